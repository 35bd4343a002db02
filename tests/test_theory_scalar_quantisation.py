"""shvc_lib.theory.scalar_quantisation: known numbers, the identity of noise and dithered rounding, and simulated rounding."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shvc_lib.errors import InvalidInput
from shvc_lib.theory import entropy, gaussian_rd
from shvc_lib.theory.scalar_quantisation import best_quantiser, noise_channel, uniform_quantiser

NORMAL, LAPLACE = stats.norm(), stats.laplace(scale=math.sqrt(0.5))
SPACE_FILLING = 0.5 * math.log2(2 * math.pi * math.e / 12)


@pytest.mark.parametrize("source", [NORMAL, LAPLACE, stats.norm(3.3, 0.7), stats.gamma(3)], ids=["normal", "laplace", "moved", "skewed"])
@pytest.mark.parametrize("step, offset, dead_zone", [(0.5, 0, 1), (1.7, 0.3, 1), (1.0, 0, 1.6)])
def test_a_quantiser_costs_what_rounding_samples_costs(source, step, offset, dead_zone):
    q = uniform_quantiser(source, step, offset, dead_zone)
    x = source.rvs(50_000, random_state=np.random.default_rng(0))
    cell = np.clip(np.searchsorted(q.edges, x) - 1, 0, len(q.masses) - 1)
    counts = np.bincount(cell, minlength=len(q.masses)) / x.size
    assert q.masses.sum() == pytest.approx(1) and entropy(counts) == pytest.approx(q.rate, abs=0.02)
    assert np.mean((x - q.points[cell]) ** 2) == pytest.approx(q.distortion, rel=0.04)


def test_without_offset_the_cells_are_those_of_rounding():
    q = uniform_quantiser(NORMAL, 0.8)
    x = NORMAL.rvs(1000, random_state=np.random.default_rng(1))
    nearest = q.points[np.searchsorted(q.edges, x) - 1] / 0.8
    assert np.array_equal(np.rint(nearest), np.rint(x / 0.8))


def test_high_rate_loses_a_quarter_of_a_bit_and_rate_zero_nothing():
    fine, coarse = uniform_quantiser(NORMAL, 0.05), uniform_quantiser(NORMAL, 6)
    assert fine.rate - gaussian_rd(fine.distortion) == pytest.approx(SPACE_FILLING, abs=3e-4)
    assert fine.distortion == pytest.approx(0.05**2 / 12, rel=1e-3)
    assert 0 <= coarse.rate - gaussian_rd(coarse.distortion) < 0.01
    nothing = uniform_quantiser(NORMAL, 100)
    assert nothing.rate == pytest.approx(0, abs=1e-9) and nothing.distortion == pytest.approx(1)


@pytest.mark.parametrize("scale, noisy, rounded", [(3, 3.639, 3.640), (1, 2.107, 2.104), (0.5, 1.254, 1.240), (0.3, 0.782, 0.552), (0.1, 0.260, 0)])
def test_noise_and_rounding_as_simulated(scale, noisy, rounded):
    assert noise_channel(stats.norm(scale=scale), 1)[0] == pytest.approx(noisy, abs=3e-3)
    assert uniform_quantiser(stats.norm(scale=scale), 1).rate == pytest.approx(rounded, abs=3e-3)


@settings(max_examples=6, deadline=None)
@given(st.sampled_from([NORMAL, LAPLACE, stats.gamma(3)]), st.floats(0.2, 6))
def test_the_noise_rate_is_the_mean_over_offsets(source, step):
    offsets = (np.arange(24) + 0.5) / 24
    mean = np.mean([uniform_quantiser(source, step, offset).rate for offset in offsets])
    assert noise_channel(source, step)[0] == pytest.approx(mean, abs=2e-3)


def test_the_best_estimate_behind_noise_is_simulated():
    x = NORMAL.rvs(200_000, random_state=np.random.default_rng(2))
    y = x + 2 * np.random.default_rng(3).uniform(-0.5, 0.5, x.size)
    bins = np.floor(y * 50).astype(int)
    bins -= bins.min()
    total = np.bincount(bins)
    means = np.bincount(bins, x) / np.maximum(total, 1)
    assert noise_channel(NORMAL, 2)[1] == pytest.approx(np.mean((x - means[bins]) ** 2), rel=0.01)


@pytest.mark.parametrize("source", [NORMAL, LAPLACE], ids=["normal", "laplace"])
@pytest.mark.parametrize("slope", [1.5, 4, 20])
def test_the_best_quantiser_beats_every_uniform_one(source, slope):
    best = best_quantiser(source, slope)
    uniform = [uniform_quantiser(source, step, 0, zone) for step in np.geomspace(0.1, 6, 30) for zone in (1, 1.2, 1.5)]
    assert best.rate + slope * best.distortion <= min(q.rate + slope * q.distortion for q in uniform) + 1e-3
    assert best.rate > gaussian_rd(best.distortion) - 1e-9 or source is LAPLACE


def test_a_laplace_source_wants_a_dead_zone():
    best = best_quantiser(LAPLACE, 4.0)
    widths = np.diff(best.edges)
    middle = len(widths) // 2
    assert widths[middle] > 1.1 * widths[middle + 1]


def test_what_is_refused():
    for bad in (0, -1, math.nan, "wide"):
        with pytest.raises(InvalidInput):
            uniform_quantiser(NORMAL, bad)
        with pytest.raises(InvalidInput):
            noise_channel(NORMAL, bad)
    with pytest.raises(InvalidInput, match="more than"):
        uniform_quantiser(NORMAL, 1e-6)
    with pytest.raises(InvalidInput):
        best_quantiser(NORMAL, 0)

"""shvc_lib.theory.rate_distortion: closed forms, water-filling against an optimiser, Blahut-Arimoto against both."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize

from shvc_lib.errors import InvalidInput
from shvc_lib.theory import (bernoulli_rd, binary_entropy, blahut_arimoto, gaussian_dr, gaussian_rd, kl, mutual_information,
                             rd_curve, reverse_water_filling)

HAMMING = 1.0 - np.eye(2)


def gaussian_grid(half_width=6.0, step=0.1):
    """A unit Gaussian as point masses: for smooth functions such a sum is the integral, to far below 1e-4 bits, as long as
    the step is well under the standard deviation sqrt(D) of the error and the cut tails hold no mass to speak of."""
    x = np.arange(-half_width, half_width + step / 2, step)
    p = np.exp(-(x**2) / 2)
    return p / p.sum(), (x[:, None] - x) ** 2


def test_closed_forms():
    assert bernoulli_rd(0.0, 0.3) == pytest.approx(binary_entropy(0.3))
    assert bernoulli_rd([0.3, 0.5, 1.0], 0.3).tolist() == [0.0, 0.0, 0.0]
    assert bernoulli_rd(0.1, 0.3) == pytest.approx(bernoulli_rd(0.1, 0.7))
    assert gaussian_rd(0.25) == 1.0
    assert gaussian_rd([0.0, 2.0, 3.0], variance=2.0).tolist() == [math.inf, 0.0, 0.0]
    assert gaussian_rd(0.25, base=math.e) == pytest.approx(math.log(2))
    assert gaussian_dr(1.0) == pytest.approx(0.25)


@given(st.floats(1e-3, 10), st.floats(1e-3, 10))
def test_gaussian_inverse(rate, variance):
    assert gaussian_rd(gaussian_dr(rate, variance), variance) == pytest.approx(rate, abs=1e-9)


@given(st.lists(st.one_of(st.just(0.0), st.floats(1e-3, 100)), min_size=1, max_size=10), st.floats(0.0, 1.2))
def test_water_filling_spends_the_distortion_and_levels_it(variances, share):
    total = sum(variances) * share
    filling = reverse_water_filling(variances, total)
    assert filling.distortions.sum() == pytest.approx(min(total, sum(variances)), abs=1e-9 * (1 + sum(variances)))
    np.testing.assert_allclose(filling.distortions, np.minimum(variances, filling.water_level))
    if total > 1e-6:
        individual = [gaussian_rd(d, v) if v > 0 else 0.0 for d, v in zip(filling.distortions, variances)]
        np.testing.assert_allclose(filling.rates, individual, atol=1e-9)
        assert filling.rate_bits == pytest.approx(sum(individual), abs=1e-9)


def test_water_filling_is_the_minimum():
    variances, total = np.array([4.0, 2.0, 1.0, 0.3]), 2.0
    answer = minimize(lambda d: np.log2(variances / d).sum() / 2, np.full(4, 0.2), bounds=[(1e-6, v) for v in variances],
                      constraints={"type": "eq", "fun": lambda d: d.sum() - total}, method="SLSQP",
                      options={"ftol": 1e-12})
    filling = reverse_water_filling(variances, total)
    assert filling.rate_bits == pytest.approx(answer.fun, abs=1e-6)
    np.testing.assert_allclose(filling.distortions, answer.x, atol=1e-3)
    assert reverse_water_filling([1.0, 0.0], 0.0).rate_bits == math.inf
    assert reverse_water_filling(np.ones(3), 3.0).rate_bits == 0.0


@pytest.mark.parametrize("p", [0.5, 0.3, 0.05])
def test_blahut_arimoto_is_the_bernoulli_closed_form(p):
    slopes = np.log2((1 - (D := np.array([0.01, 0.03, 0.1, 0.2]))) / D)  # -R'(D) = log2((1-D)/D)
    for point in rd_curve([1 - p, p], HAMMING, slopes):
        assert abs(point.rate - bernoulli_rd(point.distortion, p)) < 1e-4
        assert point.gap <= 1e-6
    if p == 0.3:  # the slope of the curve is the slope that was asked for
        np.testing.assert_allclose([q.distortion for q in rd_curve([0.7, 0.3], HAMMING, slopes)], D, atol=1e-4)


def test_blahut_arimoto_is_the_gaussian_closed_form():
    """At every rate from 2.8 bits to 0.08 bits, at the distortion the algorithm reports."""
    p, distortion = gaussian_grid()
    slopes = 1 / (2 * math.log(2) * np.array([0.02, 0.05, 0.1, 0.25, 0.5, 0.75, 0.9]))  # -R'(D) = 1 / (2 D ln 2)
    points = rd_curve(p, distortion, slopes, tolerance=5e-5, max_iterations=20_000)
    assert max(point.gap for point in points) <= 5e-5
    for point in points:
        assert abs(point.rate - gaussian_rd(point.distortion)) < 1e-4
    assert points[0].rate > 2.8 and points[-1].rate < 0.08


def test_a_cut_gaussian_would_fail_the_closed_form():
    """The comparison has teeth: three standard deviations are not a Gaussian to 1e-4 bits."""
    p, distortion = gaussian_grid(half_width=3.0)
    point = blahut_arimoto(p, distortion, 1 / (2 * math.log(2) * 0.1), tolerance=5e-5, max_iterations=20_000)
    assert abs(point.rate - gaussian_rd(point.distortion)) > 1e-3


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 6), st.integers(2, 6), st.floats(0.1, 8.0), st.integers(0, 10_000), st.integers(1, 60))
def test_the_gap_is_a_certificate(n, m, slope, seed, steps):
    """Stopped anywhere, [rate - gap, rate] holds the true R at that distortion: the lower end is a tangent below the curve."""
    rng = np.random.default_rng(seed)
    p, distortion = rng.dirichlet(np.ones(n)), rng.random((n, m))
    early = blahut_arimoto(p, distortion, slope, tolerance=1e-12, max_iterations=steps)
    best = blahut_arimoto(p, distortion, slope, tolerance=1e-9, max_iterations=50_000)
    assert early.rate == pytest.approx(mutual_information(p[:, None] * early.conditional), abs=1e-9)
    # rate + slope * distortion is what the algorithm lowers; its minimum lies within the gap.
    value, minimum = (q.rate + slope * q.distortion for q in (early, best))
    assert minimum - best.gap - 1e-9 <= value
    assert value - early.gap <= minimum + 1e-9


def test_channel_marginal_and_extremes():
    p = np.array([0.5, 0.3, 0.2, 0.0])  # a symbol that never occurs
    distortion = np.abs(np.arange(4)[:, None] - np.arange(4)).astype(float)
    free, point, exact = rd_curve(p, distortion, [0.0, 2.0, 60.0], tolerance=1e-9)
    assert free.rate == pytest.approx(0, abs=1e-9)
    assert exact.distortion == pytest.approx(0, abs=1e-9) and exact.rate == pytest.approx(1.485475, abs=1e-6)
    assert point.conditional.shape == (4, 4)
    np.testing.assert_allclose(point.conditional.sum(1), 1)
    np.testing.assert_allclose(point.marginal, p @ point.conditional)
    assert kl(point.conditional[:3], point.marginal) @ p[:3] == pytest.approx(point.rate)
    huge = blahut_arimoto(p, distortion + 5.0, 1e4)  # 2^(-slope d) is zero everywhere; the common offset must not matter
    assert huge.distortion == pytest.approx(5.0) and huge.rate == pytest.approx(1.485475, abs=1e-6)


def test_many_slopes_are_one_slope_each():
    p, distortion = gaussian_grid(4.0, 0.4)
    together = rd_curve(p, distortion, [0.5, 3.0, 9.0], tolerance=1e-4)
    for point in together:
        alone = blahut_arimoto(p, distortion, point.slope, tolerance=1e-4)
        assert (alone.iterations, alone.rate) == (point.iterations, pytest.approx(point.rate))
    rates = [point.rate for point in together]
    assert rates == sorted(rates)


def test_progress_is_quiet_unless_asked(capsys):
    blahut_arimoto([0.5, 0.5], HAMMING, 1.0)
    assert capsys.readouterr().err == ""
    blahut_arimoto([0.5, 0.5], HAMMING, 1.0, progress=True)
    assert "Blahut-Arimoto" in capsys.readouterr().err


@pytest.mark.parametrize("call, words", [
    (lambda: bernoulli_rd(-0.1, 0.5), "at least 0"),
    (lambda: bernoulli_rd(1.1, 0.5), "at most 1"),
    (lambda: bernoulli_rd(0.1, 1.5), "at most 1"),
    (lambda: bernoulli_rd(0.1, [0.5, 0.5]), "axes"),
    (lambda: bernoulli_rd([], 0.5), "empty"),
    (lambda: gaussian_rd(-1.0), "at least 0"),
    (lambda: gaussian_rd(float("nan")), "NaN"),
    (lambda: gaussian_rd(0.5, variance=0.0), "positive"),
    (lambda: gaussian_dr(-1.0), "at least 0"),
    (lambda: reverse_water_filling([], 1.0), "empty"),
    (lambda: reverse_water_filling([1.0, -1.0], 1.0), "at least 0"),
    (lambda: reverse_water_filling([1.0], -1.0), "at least 0"),
    (lambda: reverse_water_filling([[1.0]], 1.0), "axes"),
    (lambda: blahut_arimoto([0.5, 0.4], HAMMING, 1.0), "sum to one"),
    (lambda: blahut_arimoto([0.5, 0.5], np.ones((3, 2)), 1.0), "one row per symbol"),
    (lambda: blahut_arimoto([0.5, 0.5], -HAMMING, 1.0), "at least 0"),
    (lambda: blahut_arimoto([0.5, 0.5], HAMMING * np.nan, 1.0), "NaN"),
    (lambda: blahut_arimoto([0.5, 0.5], HAMMING, -1.0), "at least 0"),
    (lambda: blahut_arimoto([0.5, 0.5], HAMMING, 1.0, tolerance=0.0), "positive"),
    (lambda: blahut_arimoto([0.5, 0.5], HAMMING, 1.0, max_iterations=0), "at least 1"),
    (lambda: rd_curve([0.5, 0.5], HAMMING, []), "empty"),
    (lambda: rd_curve([0.5, 0.5], HAMMING, 1.0), "axes"),
])
def test_bad_input_is_one_clear_line(call, words):
    with pytest.raises(InvalidInput, match=words) as caught:
        call()
    assert "\n" not in str(caught.value)

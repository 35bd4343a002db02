"""Bins for continuous latents: masses of the density between integer edges, windows that nothing leaves, equal masses that are equal."""

import hashlib

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from shvc_lib.coding import (TOTAL, BitStack, Bins, binned_posterior, binned_prior, equal_mass_bins, gaussian, logistic, tables, uniform_bins)
from shvc_lib.coding.bins import POSITION_BITS, windows
from shvc_lib.errors import InvalidInput, OutOfBits
from shvc_lib.nn import logistic_window

pytestmark = pytest.mark.filterwarnings("error")
SCIPY = {"logistic": scipy.stats.logistic, "laplace": scipy.stats.laplace, "gaussian": scipy.stats.norm}
FAMILIES = tuple(SCIPY)
CHANNELS = np.array([-200, 0, 37]).reshape(3, 1, 1), np.array([40, 76, 120]).reshape(3, 1, 1)  # of a prior: narrow, middling and wide


def wanted(bins, family, means, scales):
    """Float64 masses of every bin, (symbols' shape, size). The difference is taken in the nearer tail, where it does not cancel."""
    edges = np.broadcast_to(bins.edges, (*bins.shape, bins.size - 1)) / 2.0**POSITION_BITS
    u = (edges - means[..., None] / 16) / np.exp((scales[..., None] - 48) / 16)
    far = np.full((*u.shape[:-1], 1), np.inf)
    u = np.concatenate([-far, u, far], axis=-1)
    return np.where(u[..., 1:] <= 0, np.diff(SCIPY[family].cdf(u)), -np.diff(SCIPY[family].sf(u)))


def parameters(rng, shape=(3, 4, 5), reach=400, scales=(24, 100)):
    return rng.integers(-reach, reach + 1, shape), rng.integers(*scales, shape)


def choices(family="logistic"):
    return {"uniform": uniform_bins(4, 1024), "coarse": uniform_bins(64, 64), "two": uniform_bins(16, 2),
            **{f"2^{bits}": equal_mass_bins(family, *CHANNELS, bits) for bits in (1, 3, 8, 12)}}


def every_mass(codec, bins, first, exponents):
    """The posterior's probabilities of all bins: one symbol moves through its window while the others stay at their windows' start."""
    found = np.zeros((*first.shape, bins.size))
    base = codec.bits(first)
    for place in np.ndindex(first.shape):
        for z in range(first[place], first[place] + (1 << exponents[place])):
            symbols = first.copy()
            symbols[place] = z
            found[(*place, z)] = base - codec.bits(symbols)
    return found


# --- bins -------------------------------------------------------------------------------------------------------------------------------------

def test_uniform_bins_are_the_grid():
    bins = uniform_bins(8, 16)
    assert bins.centres.tolist() == [8 * k for k in range(-8, 8)] and bins.shape == () and bins.size == 16
    np.testing.assert_array_equal(bins.edges / 2**POSITION_BITS, np.arange(-8, 7) / 2 + 0.25)
    assert bins.centre(np.array([[0, 15]])).tolist() == [[-64, 56]]


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("bits", [1, 2, 6, 14])
def test_equal_mass_bins_are_quantiles(family, bits):
    bins, (means, scales) = equal_mass_bins(family, *CHANNELS, bits), CHANNELS
    assert bins.shape == (3, 1, 1) and bins.size == 1 << bits
    level = np.exp((scales[..., None] - 48) / 16)
    mass = SCIPY[family].cdf((bins.edges / 2.0**POSITION_BITS - means[..., None] / 16) / level)
    np.testing.assert_allclose(mass, np.broadcast_to(np.arange(1, bins.size) / bins.size, mass.shape), atol=3 / TOTAL)
    medians = means[..., None] / 16 + level * SCIPY[family].ppf((np.arange(bins.size) + 0.5) / bins.size)
    assert np.abs(bins.centres / 16 - medians).max() < 1 / 32 + 3 * level.max() * bins.size / TOTAL * 2
    assert (np.diff(bins.centres) >= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_the_prior_of_equal_mass_bins_is_uniform_to_the_rounding(family):
    for bits in (1, 6, 12):
        bins = equal_mass_bins(family, *CHANNELS, bits)
        masses = binned_prior(bins, family, *CHANNELS).frequencies()
        assert np.abs(masses - (TOTAL >> bits)).max() <= 8


def test_bins_that_do_not_ascend_are_refused():
    with pytest.raises(InvalidInput, match="no width"):
        Bins(np.array([0, 0, 5]), np.arange(4))
    for edges, centres in [(np.arange(2), np.arange(3)), (np.arange(4), np.arange(4)), (np.zeros((2, 1)), np.zeros((2, 2)))]:
        with pytest.raises(InvalidInput):
            Bins(edges, centres)
    for family, means, scales, bits in [("cauchy", [0], [0], 4), ("logistic", [0], [192], 4), ("logistic", [0, 1], [0], 4),
                                        ("logistic", [0], [0], 17), ("logistic", [0.5], [0], 4)]:
        with pytest.raises(InvalidInput):
            equal_mass_bins(family, np.array(means), np.array(scales), bits)
    for width, size in [(0, 16), (16, 1), (16, 12), (16, 1 << 17)]:
        with pytest.raises(InvalidInput):
            uniform_bins(width, size)
    with pytest.raises(InvalidInput, match="do not fit"):
        binned_prior(equal_mass_bins("logistic", *CHANNELS, 4), "logistic", np.zeros((2, 4, 5), int), np.zeros((2, 4, 5), int))


# --- priors -----------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", ["uniform", "coarse", "two", "2^1", "2^8", "2^12"])
def test_prior_masses_are_those_of_scipy(family, choice):
    bins, (means, scales) = choices(family)[choice], parameters(np.random.default_rng(1), scales=(0, 192))
    cdf = binned_prior(bins, family, means, scales)
    table = cdf.frequencies()
    assert table.dtype == np.int32 and table.min() >= 1 and (table.sum(-1, dtype=np.int64) == TOTAL).all()
    error = np.cumsum(table / TOTAL, -1) - np.cumsum(wanted(bins, family, means, scales), -1)
    assert np.abs(error).max() <= (bins.size + 20) / TOTAL
    z = np.random.default_rng(2).integers(0, bins.size, means.shape)
    start, freq = cdf.intervals(z)
    rows = table.reshape(-1, bins.size)
    assert (freq == rows[np.arange(z.size), z.reshape(-1)]).all()
    assert (start == [row[:k].sum(dtype=np.int64) for row, k in zip(rows, z.reshape(-1))]).all()


def test_a_grid_of_width_one_is_the_discretised_logistic():
    means, scales = parameters(np.random.default_rng(3), reach=1000)
    for family, reference in [("logistic", logistic), ("gaussian", gaussian)]:
        table = binned_prior(uniform_bins(16, 256), family, means, scales).frequencies()
        assert np.abs(table - reference(means, scales, 256, -128).frequencies()).max() <= 4


# --- posteriors ---------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("choice", ["uniform", "coarse", "two", "2^3", "2^8"])
def test_posterior_masses_are_those_of_scipy_inside_the_window(family, choice):
    rng = np.random.default_rng(4)
    bins, (means, scales) = choices(family)[choice], parameters(rng, (3, 1, 1), scales=(24, 66))
    first, exponents = windows(bins, family, means, scales)
    found = every_mass(binned_posterior(bins, family, means, scales), bins, first, exponents)
    q = wanted(bins, family, means, scales)
    inside = (np.arange(bins.size) >= first[..., None]) & (np.arange(bins.size) < (first + (1 << exponents))[..., None])
    assert (q * ~inside).sum(-1).max() < 2.0**-21  # e^-16, the logistic's at 16 scales
    ratios = 2.0 ** found  # masses relative to that of the window's first bin
    masses = np.where(inside, ratios, 0) / np.where(inside, ratios, 0).sum(-1, keepdims=True)
    assert np.abs(np.cumsum(masses - q, -1)).max() <= (200 + 2 * 64) / TOTAL


@pytest.mark.parametrize("choice", ["uniform", "2^3", "2^8", "2^12"])
@pytest.mark.parametrize("family", FAMILIES)
def test_windows_hold_the_density_and_little_else(family, choice):
    bins, (means, scales) = choices(family)[choice], parameters(np.random.default_rng(5), (3, 20, 20), reach=4000, scales=(0, 192))
    first, exponents = windows(bins, family, means, scales)
    assert first.min() >= 0 and (first + (1 << exponents)).max() <= bins.size and exponents.min() == 1 and len(np.unique(exponents)) > 2
    reach = min(16, SCIPY[family].isf(2.0**-25)) * np.exp((scales - 48) / 16)  # half a count of mass beyond, or the end of the table
    edges = np.broadcast_to(bins.edges / 2.0**POSITION_BITS, (3, 1, 1, bins.size - 1))
    ends = [(edges <= (means / 16 + side * reach)[..., None]).sum(-1) for side in (-0.999, 0.999, -1.001, 1.001)]  # inverse scales are rounded
    assert (first <= ends[0]).all() and (ends[1] < first + (1 << exponents)).all()
    assert ((1 << exponents) < 2 * np.maximum(ends[3] - ends[2] + 1, 2)).all()


@pytest.mark.parametrize("choice", ["uniform", "coarse", "2^8", "2^12"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_windows_ends_can_be_coded(family, choice):
    """Where the density has no mass that the table knows, and a window's digits have none to share."""
    bins, (means, scales) = choices(family)[choice], parameters(np.random.default_rng(11), (3, 8, 8), reach=2000)
    codec, (first, exponents) = binned_posterior(bins, family, means, scales), windows(bins, family, means, scales)
    for z in (first, first + (1 << exponents) - 1):
        stack = BitStack.random(1000)
        before = stack.copy()
        codec.push(stack, z)
        assert stack.bits - before.bits == pytest.approx(codec.bits(z), abs=40)
        assert np.array_equal(codec.pop(stack), z) and stack == before


@pytest.mark.parametrize("choice", ["uniform", "coarse", "two", "2^1", "2^8", "2^12"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_posterior_is_a_codec(family, choice):
    """pop then push gives the stack back, push then pop the symbols; what is spent is what `bits` says; symbols may be flat."""
    bins, (means, scales) = choices(family)[choice], parameters(np.random.default_rng(6), (3, 8, 8), reach=2000)
    codec, stack = binned_posterior(bins, family, means, scales), BitStack.random(20_000, seed=1)
    before = stack.copy()
    z = codec.pop(stack)
    assert z.shape == means.shape and z.dtype == np.int32
    assert before.bits - stack.bits == pytest.approx(codec.bits(z), abs=40)
    codec.push(stack, z)
    assert stack == before
    codec.push(stack, z.reshape(-1).astype(np.uint16))
    assert stack.bits > before.bits and np.array_equal(codec.pop(stack), z) and stack == before


def test_draws_follow_the_posterior_and_never_leave_the_window():
    """10^5 draws from random bits, in bins of equal mass and in uniform ones: a chi-square test of bins that expect at least 20."""
    rng, count = np.random.default_rng(7), 50_000
    for bins in (equal_mass_bins("logistic", np.array(0), np.array(90), 10), uniform_bins(2, 2048)):
        for mean, scale in [(100, 40), (-37, 70)]:
            means, scales = np.full(count, mean), np.full(count, scale)
            z = binned_posterior(bins, "logistic", means, scales).pop(BitStack.random(40 * count, seed=int(rng.integers(1000))))
            first, exponents = windows(bins, "logistic", means[:1], scales[:1])
            assert first[0] <= z.min() and z.max() < first[0] + (1 << exponents[0])
            expected = count * wanted(bins, "logistic", means[:1], scales[:1])[0]
            seen, often = np.bincount(z, minlength=bins.size), expected >= 20
            seen, expected = np.append(seen[often], seen[~often].sum()), np.append(expected[often], expected[~often].sum())
            assert len(seen) > 20 and scipy.stats.chisquare(seen, expected, sum_check=False).pvalue > 1e-4


def test_the_trained_grid_is_what_logistic_window_gives():
    """Up to what the floor of its 96 counts moves; and both refuse a latent far away, which the prior takes."""
    means, scales = parameters(np.random.default_rng(8), (40,), scales=(24, 65))
    bins, reference = uniform_bins(16, 256), logistic_window(means, scales, 96, -128, 256)
    codec, prior = binned_posterior(bins, "logistic", means, scales), binned_prior(bins, "logistic", means, scales)
    z = BitStack.random(10_000).pop(reference)
    assert codec.bits(z + 128) == pytest.approx(reference.bits(z).sum(), abs=0.01)
    for codec_of_z in (lambda: codec.push(BitStack.random(100), z + 128 + 60), lambda: BitStack.random(100).push(z + 60, reference)):
        with pytest.raises(InvalidInput):
            codec_of_z()
    assert prior.bits(z + 128 + 60).max() > 20


def test_a_mean_outside_the_bins_falls_into_the_last_ones():
    bins = uniform_bins(16, 16)
    for mean, last in [(10_000, 15), (-10_000, 0)]:
        codec, stack = binned_posterior(bins, "logistic", np.array([mean]), np.array([30])), BitStack.random(100)
        assert codec.pop(stack).tolist() == [last]


def test_errors_leave_the_stack_alone():
    bins, (means, scales) = equal_mass_bins("logistic", *CHANNELS, 10), parameters(np.random.default_rng(9))
    codec, stack = binned_posterior(bins, "logistic", means, scales), BitStack.random(150)
    before, good = stack.copy(), windows(bins, "logistic", means, scales)[0]
    with pytest.raises(OutOfBits):
        codec.pop(stack)
    for bad in (good - 1, good + 1024, good[:2], good.swapaxes(1, 2), good.astype(float)):
        with pytest.raises(InvalidInput):
            codec.push(stack, bad)
        with pytest.raises(InvalidInput):
            codec.bits(bad)
    assert stack == before
    with pytest.raises(InvalidInput):
        bins.centre(good + 1024)
    alike = binned_posterior(uniform_bins(16, 16), "logistic", np.zeros((2, 3), int), np.full((2, 3), 40))
    with pytest.raises(InvalidInput, match="shape"):
        alike.push(stack, np.full((3, 2), 8))


# --- integers only ------------------------------------------------------------------------------------------------------------------------------

@given(st.sampled_from(FAMILIES), st.integers(-5000, 5000), st.integers(0, 191), st.integers(-40, 40))
@settings(max_examples=60, deadline=None)
def test_shifting_everything_changes_nothing(family, mean, scale, shift):
    """A mean and its edges moved by the same amount: the same masses, to the last count. What depended on floats would not."""
    bins = equal_mass_bins(family, np.array(mean), np.array(scale), 6)
    moved = equal_mass_bins(family, np.array(mean + 16 * shift), np.array(scale), 6)
    np.testing.assert_array_equal(bins.edges + (shift << POSITION_BITS), moved.edges)
    np.testing.assert_array_equal(bins.centres + 16 * shift, moved.centres)


def test_the_tables_are_those_of_every_machine():
    """Edges and masses, by their checksum: a change of these is a change of every file."""
    bins = equal_mass_bins("logistic", *CHANNELS, 8)
    means, scales = parameters(np.random.default_rng(10), (3, 4, 4))
    codec, digest = binned_posterior(bins, "logistic", means, scales), hashlib.sha256()
    for part in (bins.edges.astype("<i8"), bins.centres.astype("<i4"), binned_prior(bins, "logistic", means, scales).frequencies().astype("<i4"),
                 codec.pop(BitStack.random(5000)).astype("<i4")):
        digest.update(np.ascontiguousarray(part).tobytes())
    assert digest.hexdigest()[:16] == "1d50be23c8acc024"

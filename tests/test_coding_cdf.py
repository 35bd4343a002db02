"""Integer CDFs: masses that add up, agree with the real distributions, and are the same on every machine."""

import hashlib
import math

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from shvc_lib.coding import (TOTAL, BitStack, Categorical, DiscretizedMixture, Uniform, gaussian, laplace, logistic, logistic_mixture, mean_index,
                             quantize, scale_index, tables, weight_index)
from shvc_lib.errors import InvalidInput
from strategies import SINGLE, coded

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
SCIPY = {"logistic": scipy.stats.logistic, "laplace": scipy.stats.laplace, "gaussian": scipy.stats.norm}
FAMILIES = tuple(SCIPY)


# --- what every model keeps ---------------------------------------------------------------------------------------------------------------

@given(coded(sizes=(1, 2, 3, 17, 255, 256, 257, 2000, 65536), most=12))
@settings(max_examples=150, deadline=None)
def test_masses_sum_to_the_total_and_agree_with_the_intervals(model):
    cdf, symbols = model
    table = cdf.frequencies()
    assert table.dtype == np.int32 and table.shape == (*(cdf.shape or ()), cdf.size)
    assert table.min() >= 1 and (table.sum(-1, dtype=np.int64) == TOTAL).all()
    rows = np.broadcast_to(table, (symbols.size, cdf.size))
    start, freq = cdf.intervals(symbols)
    offsets = symbols - cdf.lower
    assert (freq == rows[np.arange(symbols.size), offsets]).all()
    assert (start == [row[:x].sum(dtype=np.int64) for row, x in zip(rows, offsets)]).all()
    np.testing.assert_array_equal(cdf.bits(symbols), 24 - np.log2(freq))
    if cdf.shape:
        np.testing.assert_array_equal(cdf.masses(1, symbols.size), table[1:])


# --- the distributions they stand for -------------------------------------------------------------------------------------------------------

def continuous(family, means, scales, size, lower=0):
    """Float64 masses of the discretised density; the outermost levels take the tails. The difference is taken in the nearer tail,
    where it does not cancel."""
    edges = (lower + np.arange(1, size) - 0.5 - np.asarray(means)[..., None]) / np.asarray(scales)[..., None]
    edge = np.full((*edges.shape[:-1], 1), np.inf)
    edges = np.concatenate([-edge, edges, edge], axis=-1)
    below, above = SCIPY[family].cdf(edges), SCIPY[family].sf(edges)
    return np.where(edges[..., 1:] <= 0, np.diff(below), -np.diff(above))


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("size, lower", [(256, 0), (2, 0), (17, -8), (300, -40), (5000, 0)])
def test_masses_are_those_of_scipy(family, size, lower):
    """To about one count of 2^24 per level: the floor that makes every symbol codable. Scales from 0.05 to 7600 levels: a level may be
    much coarser than the tables' points, or finer."""
    rng = np.random.default_rng(size)
    means = rng.integers(16 * (lower - 20), 16 * (lower + size + 20), 60)
    scales = rng.integers(0, 192, 60)
    got = SINGLE[family](means, scales, size, lower).frequencies() / TOTAL
    wanted = continuous(family, means / 16, np.exp((scales - 48) / 16), size, lower)
    error = np.abs(np.cumsum(got, -1) - np.cumsum(wanted, -1)).max()
    assert error <= (size + 20) / TOTAL
    kl = (wanted * np.log2(np.maximum(wanted, 1e-300) / got)).sum(-1)
    assert kl.max() < 3e-6 + 1.6 * size / TOTAL  # bits


def test_a_mixture_is_the_average_of_its_components():
    rng = np.random.default_rng(0)
    means, scales = rng.integers(-500, 4600, (40, 5)), rng.integers(0, 192, (40, 5))
    weights = weight_index(rng.exponential(size=(40, 5)))
    for family in FAMILIES:
        for size in (256, 257):
            got = DiscretizedMixture(family, means, scales, weights, size).frequencies() / TOTAL
            parts = continuous(family, means / 16, np.exp((scales - 48) / 16), size)
            wanted = (weights[..., None] / 4096 * parts).sum(-2)
            assert np.abs(np.cumsum(got, -1) - np.cumsum(wanted, -1)).max() < (size + 200) / TOTAL  # 2^18 before the weights
            assert (wanted * np.log2(np.maximum(wanted, 1e-300) / got)).sum(-1).max() < 1e-4


def test_a_support_for_every_symbol_moves_the_distribution_and_nothing_else():
    rng = np.random.default_rng(3)
    means, scales, lower = rng.integers(-2000, 2000, (4, 9)), rng.integers(0, 192, (4, 9)), rng.integers(-200, 200, (4, 9))
    for size in (96, 300):
        shifted = logistic(means, scales, size, lower)
        assert np.array_equal(shifted.frequencies(), logistic(means - 16 * lower, scales, size).frequencies())
        start, freq = shifted.intervals(lower + 7)
        table = shifted.frequencies().reshape(36, size)
        assert np.array_equal(start, table[:, :7].sum(1)) and np.array_equal(freq, table[:, 7])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_edge_levels_take_the_tails(family):
    for mean, heavy in ((-60 * 16, 0), (315 * 16, 255)):
        row = SINGLE[family]([mean], [scale_index(5.0)]).frequencies()[0]
        assert row.argmax() == heavy and row[heavy] > TOTAL - 1000 and row.min() == 1
    wide = SINGLE[family]([128 * 16], [191]).frequencies()[0]  # nearly flat inside: the rest goes outside, half to each end
    assert wide[0] > 0.45 * TOTAL and wide[-1] > 0.45 * TOTAL


def test_the_stable_form_where_naive_differences_are_zero():
    """At log s = -5 the float32 difference of sigmoids is exactly 0 for most levels; here none is, and the order of levels survives."""
    means = np.arange(0, 256 * 16, 61)
    scale = np.float32(np.exp(-5))
    edges = (np.arange(257, dtype=np.float32) - np.float32(0.5) - (means[:, None] / 16).astype(np.float32)) / scale
    with np.errstate(over="ignore"):
        naive = np.diff(1 / (1 + np.exp(-edges)), axis=-1)
    assert (naive == 0).mean() > 0.85
    for family in FAMILIES:
        ours = SINGLE[family](means, np.full(means.shape, scale_index(np.exp(-5.0)))).frequencies()
        assert ours.min() >= 1 and np.isfinite(np.log2(ours)).all()
        assert (np.abs(ours.argmax(-1) - means / 16) <= 0.5).all()


@given(st.sampled_from(FAMILIES), st.lists(st.tuples(st.integers(-2**29, 2**29), st.integers(0, 191)), min_size=1, max_size=20),
       st.sampled_from([1, 2, 200, 256, 700]), st.sampled_from([0, 2**24, -2**24, 777]))
@settings(max_examples=150, deadline=None)
def test_any_parameters_give_a_model(family, parameters, size, lower):
    """Means as far away as they go, the smallest and the largest scales: still positive masses that add up."""
    means, scales = np.array(parameters).T
    cdf = SINGLE[family](means, scales, size, lower)
    table = cdf.frequencies()
    assert table.min() >= 1 and (table.sum(-1, dtype=np.int64) == TOTAL).all()
    for end in (lower, lower + size - 1):
        start, freq = cdf.intervals(np.full(len(means), end))
        assert (start + freq <= TOTAL).all() and (freq >= 1).all() and (start >= 0).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_means_far_outside_are_clamped(family):
    for far, clamped in ((-2**20, -64 * 16), (2**20, (255 + 64) * 16)):
        a, b = (SINGLE[family]([mean], [150]).frequencies() for mean in (far, clamped))
        np.testing.assert_array_equal(a, b)


# --- the tables ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("family", FAMILIES)
def test_tables_are_monotone_and_symmetric(family):
    table = tables.cdf_table(family, TOTAL - 256).astype(np.int64)
    assert (np.diff(table) >= 0).all() and table[0] >= 0 and table[-1] <= TOTAL - 256
    assert np.abs(table + table[::-1] - (TOTAL - 256)).max() <= 1
    assert table[tables.REACH * tables.POINTS] == (TOTAL - 256) // 2
    rows = tables.row_table(family, TOTAL - 256).reshape(192 * 16, tables.ROW)
    assert (np.diff(rows, axis=1) >= 0).all()
    for table in (tables.cdf_table(family, TOTAL - 256), tables.row_table(family, TOTAL - 256), tables.inverse_scales()):
        with pytest.raises(ValueError):
            table[0] = 5  # shared by every model: nobody may write


@pytest.mark.parametrize("family", FAMILIES)
def test_tables_equal_a_high_precision_computation(family):
    """mpmath, 60 digits: right to half a unit, and the 2^-12 that a CDF of 36 fractional bits leaves open."""
    mp = pytest.importorskip("mpmath")
    total, points = TOTAL - 256, np.append(np.random.default_rng(1).integers(-32768, 32769, 400), [-32768, -1, 0, 1, 32768])
    table = tables.cdf_table(family, total)
    with mp.workdps(60):
        exact = {"logistic": lambda u: 1 / (1 + mp.exp(-u)), "gaussian": mp.ncdf,
                 "laplace": lambda u: mp.exp(u) / 2 if u < 0 else 1 - mp.exp(-u) / 2}[family]
        for point in points.tolist():
            assert abs(int(table[point + 32768]) - total * exact(mp.mpf(point) / 2048)) <= 0.5 + 2**-12, point
        for index, value in enumerate(tables.inverse_scales().tolist()):
            assert value == int(mp.floor(2**16 * 128 * mp.exp(mp.mpf(48 - index) / 16) + mp.mpf(1) / 2))


def test_tables_equal_scipy():
    """The same without mpmath, and for every entry."""
    u = np.arange(-32768, 32769) / 2048
    for family in FAMILIES:
        assert np.abs(tables.cdf_table(family, TOTAL) - TOTAL * SCIPY[family].cdf(u)).max() < 0.5 + 2**-11


GOLDEN = {
    "logistic": "e1bae84e70e84e82669a39faaa035b560ddc2a2dcd5ba4f045a1990deaebf0f1",
    "laplace": "c624c57c28321746cf0c27fac242d785465b1204362e95813c7a5be90d389749",
    "gaussian": "b00b16e83b9073b0c861e80446c9148b0cb2bf8472ac7a8a9c6670a618eb6cb6",
    "scales": "3623900e364eecda7c1f20843ccc857a10a86a1bfbcefd153f072d3f6461a5d6",
}


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_tables(name):
    """Any change here, by us or by another machine, breaks every file written so far."""
    table = tables.inverse_scales() if name == "scales" else tables.cdf_table(name, TOTAL)
    assert hashlib.sha256(table.astype("<i8").tobytes()).hexdigest() == GOLDEN[name]


def test_no_platform_function_touches_the_coding_path(monkeypatch):
    """Tables, masses, push and pop with exp, log and their relatives forbidden."""
    def forbidden(*_, **__):
        raise AssertionError("a platform function was called on the coding path")

    for cached in (tables._standard_cdf, tables.inverse_scales, tables.cdf_table, tables.row_table):
        cached.cache_clear()
    names = ("exp", "log", "log2", "log10", "exp2", "expm1", "log1p", "tanh", "power", "float_power", "sqrt", "divide", "true_divide")
    with monkeypatch.context() as patch:
        for name in names:
            patch.setattr(np, name, forbidden)
            if hasattr(math, name):
                patch.setattr(math, name, forbidden)
        models = [SINGLE[family]([[100, 40]], [[30, 90]], size) for family in FAMILIES for size in (256, 500)]
        models += [logistic_mixture([[100, 40]], [[30, 90]], [[4000, 96]]), Uniform(9), Categorical(np.array([[1, TOTAL - 1]]))]
        stack = BitStack()
        for cdf in models:
            number = 3 if cdf.shape is None else math.prod(cdf.shape)
            stack.push(np.full(number, 1), cdf)
        for cdf in reversed(models):
            assert (stack.pop(cdf, 3 if cdf.shape is None else None) == 1).all()
    assert stack == BitStack()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("components", [None, 3])
def test_both_paths_give_the_same_masses(family, components, monkeypatch):
    """Supports of up to 256 levels use precomputed rows. Without them: the same masses, the same intervals."""
    rng = np.random.default_rng(7)
    shape = (200, components or 1)
    means, scales = rng.integers(-2000, 6000, shape), rng.integers(0, 192, shape)
    weights = weight_index(rng.exponential(size=shape)) if components else None
    for size in (2, 100, 256):
        cdf = DiscretizedMixture(family, means, scales, weights, size)
        symbols = rng.integers(0, size, 200)
        fast = cdf.frequencies(), *cdf.intervals(symbols)
        with monkeypatch.context() as patch:
            patch.setattr(tables, "ROW_SIZE", 0)
            slow = cdf.frequencies(), *cdf.intervals(symbols)
        for a, b in zip(fast, slow):
            np.testing.assert_array_equal(a, b)


# --- uniform and categorical ------------------------------------------------------------------------------------------------------------------

def test_uniform():
    assert Uniform(4).frequencies().tolist() == [TOTAL // 4] * 4 and Uniform(4).bits([0, 3]).tolist() == [2, 2]
    assert Uniform(3).frequencies().tolist() == [5592405, 5592405, 5592406]


@given(st.lists(st.floats(0, 1e308), min_size=1, max_size=50).filter(lambda p: max(p) > 0))
@settings(max_examples=200, deadline=None)
def test_quantize(p):
    masses = quantize(p)
    assert masses.dtype == np.int32 and masses.min() >= 1 and masses.sum(dtype=np.int64) == TOTAL
    exact = np.array(p) / max(p)
    assert np.abs(masses / TOTAL - exact / exact.sum()).max() < 2 * (len(p) + 1) / TOTAL


@pytest.mark.parametrize("p", [[1e308, 1e308], [5e-324, 5e-324], [1e-320, 1e-320]])
def test_quantize_neither_overflows_nor_vanishes(p):
    assert quantize(p).tolist() == [TOTAL // 2] * 2
    assert weight_index(p).tolist() == [2048, 2048]


def test_windows_cover_their_own_levels_only():
    cdf = Categorical(np.ones((3, 4)), lower=[-10, 0, 500])
    stack = BitStack()
    stack.push([-7, 0, 503], cdf)
    assert stack.pop(cdf).tolist() == [-7, 0, 503] and stack == BitStack()
    for outside in ([-11, 0, 500], [-6, 0, 500], [-10, 4, 500], [-10, 0, 504], [-10, 0, 3]):
        with pytest.raises(InvalidInput, match="support"):
            cdf.bits(outside)


def test_models_are_values():
    """A model does not change when the arrays it was made of do, nor can it be changed through what it returns."""
    means, scales, weights = np.array([[100], [400]], np.int32), np.array([[40], [50]], np.int32), np.array([[4096], [4096]], np.int32)
    mixture, lower = logistic_mixture(means, scales, weights), np.array([3, 4], np.int32)
    table = np.array([[1, TOTAL - 1], [TOTAL - 1, 1]], np.int32)
    windows = Categorical(table, lower)
    before = mixture.frequencies().copy(), windows.frequencies().copy(), windows.intervals([3, 4])
    for array in (means, scales, weights, lower, table):
        array += 1
    after = mixture.frequencies(), windows.frequencies(), windows.intervals([3, 4])
    for a, b in zip(before, after):
        np.testing.assert_array_equal(a, b)
    for view in (windows.frequencies(), Categorical(table[0] - 1).frequencies(), windows.lower):
        with pytest.raises(ValueError):
            view[0] = 5


# --- from floats to the grids -------------------------------------------------------------------------------------------------------------------

@given(st.floats(-2**25, 2**25), st.floats(1e-3, 1e5), st.lists(st.floats(0, 1e6), min_size=1, max_size=12).filter(lambda w: max(w) > 0))
@settings(max_examples=150, deadline=None)
def test_rounding_to_the_grids(mean, scale, weights):
    assert abs(mean_index(mean) - 16 * mean) <= 0.5 and mean_index(mean).dtype == np.int32
    nearest = np.exp((scale_index(scale) - 48) / 16)
    assert abs(np.log(nearest / np.clip(scale, np.exp(-3), np.exp(143 / 16)))) <= 1 / 32 + 1e-9
    index = weight_index(weights)
    assert index.sum() == 4096 and index.min() >= 0
    assert np.abs(index - 4096 * (np.array(weights) / sum(weights))).max() < 1 + 1e-6
    logistic_mixture(np.zeros(index.size, int)[None], np.zeros(index.size, int)[None], index[None])  # and they are accepted


BAD_FLOATS = [np.nan, [1, np.inf], [], np.array([]), "a", None, [None], [1 + 1j], [[1.0], [1.0, 2.0]], [True], {}]


@pytest.mark.parametrize("value", BAD_FLOATS, ids=repr)
@pytest.mark.parametrize("function", [mean_index, scale_index, weight_index, quantize, Categorical])
def test_bad_floats(function, value):
    with pytest.raises(InvalidInput) as error:
        function(value)
    assert "\n" not in str(error.value)


OK = dict(means=[[0, 0]], scales=[[9, 9]], weights=[[4000, 96]])


@pytest.mark.parametrize("make", [
    lambda: mean_index(2.0**26), lambda: scale_index(0.0), lambda: scale_index([-1.0]), lambda: weight_index([-1.0, 2]), lambda: weight_index([0.0, 0]),
    lambda: weight_index(3.0), lambda: quantize([[1.0, 1], [0, 0]]), lambda: quantize(5.0), lambda: quantize([-1.0, 2]), lambda: quantize(np.ones(65537)),
    lambda: Uniform(0), lambda: Uniform(65537), lambda: Uniform(2.0), lambda: Uniform("2"), lambda: Uniform(True), lambda: Uniform(None), lambda: Uniform([2]),
    lambda: Uniform(2, 0.5), lambda: Uniform(2, [0, 1]), lambda: Uniform(2, []), lambda: Uniform(2, 2**24 + 1), lambda: Uniform(2, -2**63), lambda: Uniform(2, 2**70),
    lambda: Uniform(2, None), lambda: Uniform(2, np.nan), lambda: Categorical(np.array(TOTAL)), lambda: Categorical([0, TOTAL]), lambda: Categorical([1, 2]),
    lambda: Categorical([-5, TOTAL + 5]), lambda: Categorical(np.array([2**64 - 5, TOTAL + 5], np.uint64)), lambda: Categorical([2**62] * 4 + [TOTAL]),
    lambda: Categorical(np.ones(65537)), lambda: Categorical([True, False]), lambda: Categorical([0.5, -0.5, 1]), lambda: Categorical(np.zeros((0, 4))),
    lambda: Categorical(np.zeros((4, 0))), lambda: Categorical([0.5, 0.5], [0, 1]), lambda: Categorical(np.ones((2, 2)), [0, 1, 2]),
    lambda: Categorical(np.ones((2, 2)), [0.0, 1.0]), lambda: Categorical(np.ones((2, 2)), np.array([], int)), lambda: Categorical(np.ones((2, 2)), [[0], [1, 2]]),
    lambda: Categorical(np.ones((2, 2)), np.array([0, -2**63])), lambda: Categorical(np.ones((2, 2)), [2**24 + 1, 0]), lambda: Categorical([1.0, 1.0], "a"),
    lambda: logistic([0.0], [0]), lambda: logistic([0], [1.0]), lambda: logistic([], []), lambda: logistic([0], [192]), lambda: logistic([0], [-1]),
    lambda: logistic([2**30], [0]), lambda: logistic([2**64 - 1], [0]), lambda: logistic([0, 0], [0]), lambda: logistic([[0], [1, 2]], [0, 0]), lambda: logistic(None, None),
    lambda: logistic([True], [0]), lambda: logistic([0], [0], 0), lambda: logistic([0], [0], 65537), lambda: logistic([0], [0], 256, [0, 0]), lambda: logistic([0], [0], 256, 0.0),
    lambda: laplace([np.nan], [0]), lambda: gaussian([0], [np.nan]), lambda: DiscretizedMixture("cauchy", [[0]], [[0]]), lambda: DiscretizedMixture(["logistic"], [[0]], [[0]]),
    lambda: DiscretizedMixture("logistic", 5, 5), lambda: DiscretizedMixture("logistic", OK["means"], OK["scales"]),
    lambda: logistic_mixture(**OK | dict(weights=[[4096, 1]])), lambda: logistic_mixture(**OK | dict(weights=[[4097, -1]])), lambda: logistic_mixture(**OK | dict(weights=[[0.5, 0.5]])),
    lambda: logistic_mixture(**OK | dict(weights=[4000, 96])), lambda: logistic_mixture(**OK | dict(scales=[[9]])), lambda: logistic_mixture(**OK | dict(weights=[[4096]])),
])
def test_bad_models(make):
    with pytest.raises(InvalidInput) as error:
        make()
    assert "\n" not in str(error.value) and len(str(error.value)) > 10

"""Targets and proposals: densities, quantiles, divergences and density ratios, against scipy and by brute force."""

import math

import numpy as np
import pytest
from scipy import stats

from shvc_lib import theory
from shvc_lib.errors import InvalidInput
from shvc_lib.sampling.distributions import Discrete, Gaussian, common_shape, layout
from shvc_lib.sampling.randomness import uniforms

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
MEANS, SCALES = RNG.normal(size=(4, 3)), RNG.uniform(0.05, 3, (4, 3))


def test_gaussian_is_scipys():
    q, x, u = Gaussian(MEANS, SCALES), RNG.normal(size=(5, 4, 3)), RNG.uniform(size=(5, 4, 3))
    exact = stats.norm(MEANS, SCALES)
    np.testing.assert_allclose(q.log_density(x), exact.logpdf(x), rtol=1e-12)
    np.testing.assert_allclose(q.cdf(x), exact.cdf(x), rtol=1e-10)
    np.testing.assert_allclose(q.quantile(u), exact.ppf(u), rtol=1e-10, atol=1e-12)
    assert q.shape == (4, 3) and Gaussian(0, np.ones(5)).shape == (5,) and Gaussian(1, 2).shape == ()


def test_gaussian_indexing():
    q = Gaussian(MEANS, SCALES)[1]
    assert (q.mean == MEANS[1]).all() and (q.scale == SCALES[1]).all() and q[[0, 2]].shape == (2,)


def test_gaussian_divergence_per_dimension():
    q, p = Gaussian(MEANS, SCALES), Gaussian(RNG.normal(size=3), RNG.uniform(0.2, 2, 3))
    kl = q.kl(p)
    for i, j in np.ndindex(4, 3):
        assert kl[i, j] == pytest.approx(theory.gaussian_kl(MEANS[i, j], SCALES[i, j] ** 2, p.mean[j], p.scale[j] ** 2), rel=1e-10)
    np.testing.assert_allclose(q.relative_to(p).kl(Gaussian(0, 1)), kl, rtol=1e-10)
    assert (q.kl(q) == 0).all()


def test_gaussian_largest_ratio():
    """Against the maximum over a fine grid; infinite for targets as wide as the proposal or wider."""
    p, x = Gaussian(0.3, 1.5), np.linspace(-60, 60, 400_001)
    for mean, scale in ((0.3, 1.4), (2.0, 0.5), (-1.0, 0.05), (1.0, 1.3)):
        q = Gaussian(mean, scale)
        assert q.max_log_ratio(p) == pytest.approx((q.log_density(x) - p.log_density(x)).max(), abs=1e-5)
    assert Gaussian(0.3, 1.5).max_log_ratio(p) == 0
    assert np.isinf(Gaussian([0.3, 0.4, 0.3], [1.6, 1.5, 20]).max_log_ratio(p)).all()


@pytest.mark.parametrize("mean, scale", [(0, 0.5), (1.5, 0.4), (-6, 0.05), (3, 0.999), (0, 1), (0.7, 1), (-2, 1), (0, 1.3), (1, 1.001), (-2, 3)])
def test_gaussian_hockey_stick(mean, scale):
    """Against a sum over a fine grid, in the units of a proposal that is not standard."""
    q, p, x = Gaussian(2 + 3 * mean, 3 * scale), Gaussian(2, 3), np.linspace(-70, 70, 300_001)
    mass, levels = q.hockey_stick(p), np.array([1e-3, 0.1, 0.5, 1, 1.1, 2, 7.5, 1e3, 1e12])
    densities = [np.exp(d.log_density(x)) for d in (q, p)]
    for level, value in zip(levels, mass(levels), strict=True):
        assert value == pytest.approx(np.maximum(densities[0] - level * densities[1], 0).sum() * (x[1] - x[0]), abs=1e-7)
        assert mass(level) == value
    assert np.shape(Gaussian(MEANS, SCALES).hockey_stick(p)(np.ones((4, 3)))) == (4, 3)


def test_hockey_stick_ends_at_the_largest_ratio():
    q, p = Gaussian([1.0, -3.0], [0.3, 0.9]), Gaussian(0, 1)
    top = np.exp(q.max_log_ratio(p))
    assert (q.hockey_stick(p)(1.0001 * top) == 0).all() and (q.hockey_stick(p)(0.99 * top) > 0).all()


def test_discrete_hockey_stick():
    q, p = Discrete([[0.5, 0.25, 0.25], [0.1, 0.0, 0.9]]), Discrete([0.25, 0.25, 0.5])
    np.testing.assert_allclose(q.hockey_stick(p)(np.array([1.0, 1.5])), [0.25, 0.9 - 0.75])


def test_sixteen_bits():
    p = Gaussian([2.0, -1.0], [0.5, 7.0])
    x = p.mean + p.scale * RNG.normal(size=(1000, 2)) * 10.0 ** RNG.uniform(-3, 1.5, (1000, 2))
    code = p.to_16_bits(x)
    assert code.dtype == np.int64 and code.min() >= 0 and code.max() < 65536
    z = (x - p.mean) / p.scale
    assert (np.abs((p.from_16_bits(code) - p.mean) / p.scale - z) <= 1.001 * np.sqrt(1 + z**2) / 8192).all()  # half a step
    assert (p.to_16_bits(p.from_16_bits(np.repeat(np.arange(65536), 2).reshape(-1, 2))) == np.arange(65536)[:, None]).all()
    d = Discrete(np.full((1, 5), 0.2))
    assert d.from_16_bits(d.to_16_bits(np.arange(5))).tolist() == [0, 1, 2, 3, 4]


def test_layout():
    q = Gaussian(MEANS, SCALES[0]).flat((2, 4, 3))
    assert q.shape == (24,) and (q.mean[12:] == MEANS.reshape(-1)).all() and (q.scale[:3] == SCALES[0]).all()
    d = Discrete([[0.5, 0.5], [1, 0]]).flat((3, 2))
    assert d.shape == (6,) and (d.probabilities[4:] == [[0.5, 0.5], [1, 0]]).all()
    assert common_shape(q, Gaussian(0, 1), np.zeros((5, 1))) == (5, 24)


def test_streams_and_their_targets():
    """Streams count in raster order unless given; with more of them than targets, rows say which target each one samples."""
    q, p = Gaussian(MEANS, SCALES), Gaussian(0, 1)
    streams, rows, shape = layout(q, p, None)
    assert shape == (4, 3) and streams.tolist() == rows.tolist() == list(range(12))
    streams, rows, shape = layout(q[0], p, 5 + np.arange(6).reshape(2, 3))
    assert shape == (2, 3) and streams.tolist() == [5, 6, 7, 8, 9, 10] and rows.tolist() == [0, 1, 2, 0, 1, 2]
    streams, rows, shape = layout(p, p, None, np.zeros(4))
    assert shape == (4,) and streams.tolist() == [0, 1, 2, 3] and rows.tolist() == [0, 0, 0, 0]


def test_discrete_by_hand():
    q = Discrete([[0.5, 0.25, 0.25], [0.0, 1.0, 0.0]])
    assert q.shape == (2,) and q[0].shape == ()
    np.testing.assert_allclose(q.log_density([[0, 1], [2, 1]]), [[math.log(0.5), 0], [math.log(0.25), 0]])
    assert q.log_density([0, 0])[1] == -np.inf
    np.testing.assert_array_equal(q.quantile(np.array([[0.49, 0.01], [0.5, 0.99], [0.76, 0.5]])), [[0, 1], [1, 1], [2, 1]])
    p = Discrete([0.25, 0.25, 0.5])
    np.testing.assert_allclose(q.kl(p), [0.5 - 0.25, 2])
    np.testing.assert_allclose(q.max_log_ratio(p), [math.log(2), math.log(4)])
    assert p.max_log_ratio(Discrete([0.5, 0.5, 0])) == np.inf and np.isinf(p.kl(Discrete([0.5, 0.5, 0])))


@pytest.mark.parametrize("shape", [(), (2,)])
def test_discrete_quantile_makes_samples(shape):
    """Frequencies of 10^5 samples (chi-square), and impossible values never, whatever the rounding of the cumulative sums."""
    probabilities = np.array([0, 0.1, 0.1, 0.1, 0, 0.3, 0.4, 0])
    q = Discrete(np.broadcast_to(probabilities, (*shape, 8)))
    x = q.quantile(uniforms(3, np.arange(2), np.arange(50_000)[:, None])).reshape(-1)
    possible = probabilities > 0
    counts = np.bincount(x, minlength=8)
    assert counts[~possible].sum() == 0 and stats.chisquare(counts[possible], 1e5 * probabilities[possible]).pvalue > 1e-3
    assert (q.quantile(np.full(2, 1 - 2.0**-53)) == 6).all() and (q.quantile(np.full(2, 2.0**-53)) == 1).all()


def test_quantile_ends_at_the_last_possible_value():
    """Ten tenths add up to less than one in floating point: what is left must not go to the impossible value behind them."""
    q = Discrete([0.1] * 10 + [0.0])
    assert np.cumsum([0.1] * 10)[-1] < 1 and q.quantile(1 - 2.0**-53) == 9


@pytest.mark.parametrize("make", [lambda: Gaussian(0, 0), lambda: Gaussian(0, -1), lambda: Gaussian([0, np.nan], 1), lambda: Gaussian(0, np.inf),
                                  lambda: Gaussian(np.zeros(2), np.ones(3)), lambda: Gaussian([], 1), lambda: Gaussian("a", 1), lambda: Discrete([0.5, 0.6]),
                                  lambda: Discrete([1.5, -0.5]), lambda: Discrete(1.0), lambda: Discrete([np.nan, 1]), lambda: Discrete([]),
                                  lambda: Discrete([0.5, 0.5]).log_density(2), lambda: Discrete([0.5, 0.5]).log_density(0.5),
                                  lambda: Gaussian(0, 1).kl(Discrete([0.5, 0.5])), lambda: Discrete([0.5, 0.5]).max_log_ratio(Gaussian(0, 1)),
                                  lambda: Discrete([0.5, 0.5]).kl(Discrete([0.5, 0.25, 0.25])), lambda: Gaussian(0, 1).to_16_bits(1e6),
                                  lambda: Gaussian(0, 1).from_16_bits(-1), lambda: Gaussian(0, 1).from_16_bits(1 << 16),
                                  lambda: Discrete([0.5, 0.5]).from_16_bits(2), lambda: Discrete(np.full(65537, 1 / 65537)).to_16_bits(0),
                                  lambda: common_shape(Gaussian(np.zeros(2), 1), Gaussian(np.zeros(3), 1)), lambda: layout(Gaussian(0, 1), Gaussian(0, 1), -1),
                                  lambda: layout(Gaussian(np.zeros(2), 1), Gaussian(0, 1), [1, 2, 3]), lambda: layout(Gaussian(0, 1), Gaussian(0, 1), 0.5)])
def test_bad_arguments(make):
    with pytest.raises(InvalidInput) as error:
        make()
    assert "\n" not in str(error.value)

"""Dithered quantisation: exact noise, and what it costs."""

import numpy as np
import pytest
from scipy import stats

from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import Gaussian, dither

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
DRAWS = 100_000
LIMIT = 1.628 / np.sqrt(DRAWS)  # of the Kolmogorov-Smirnov distance, exceeded by chance once in 100 times
STREAMS = np.arange(DRAWS)
PRIOR = Gaussian(0.0, 1.0)
LAWS = {"gaussian": stats.norm(), "uniform": stats.uniform(-np.sqrt(3), 2 * np.sqrt(3))}


@pytest.mark.parametrize("noise", LAWS)
@pytest.mark.parametrize("mean, scale", [(0.0, 0.3), (1.37, 0.3), (-2.2, 1.7), (0.4, 0.01)])
def test_the_noise_is_what_it_should_be(noise, mean, scale):
    target = Gaussian(mean, scale)
    x = dither.decode(dither.encode(target, PRIOR, 1, noise, STREAMS), PRIOR, 1, scale, noise, STREAMS)
    error = (x - mean) / scale
    assert stats.kstest(error, LAWS[noise].cdf).statistic < LIMIT < stats.kstest(error + 0.03, LAWS[noise].cdf).statistic


@pytest.mark.parametrize("noise", LAWS)
def test_the_noise_does_not_depend_on_the_mean(noise):
    mean = np.random.default_rng(0).normal(size=DRAWS)
    x = dither.decode(dither.encode(Gaussian(mean, 0.8), PRIOR, 2, noise), PRIOR, 2, 0.8, noise, STREAMS)
    error = x - mean
    assert abs(np.corrcoef(error, mean)[0, 1]) < 3 / np.sqrt(DRAWS) and abs(np.corrcoef(error**2, np.abs(mean))[0, 1]) < 3 / np.sqrt(DRAWS)


@pytest.mark.parametrize("noise, overhead", [("uniform", 0.2546), ("gaussian", 0.5210)])
def test_overhead_over_the_mutual_information(noise, overhead):
    """0.5 log2(2 pi e / 12) for uniform noise; for Gaussian noise 0.5 log2(2 pi e) - E log2(width / scale), with E ln chi^2_3 = digamma(3/2) + ln 2."""
    scale = 0.02
    mean = np.random.default_rng(3).normal(size=DRAWS) * np.sqrt(1 - scale**2)
    index = dither.encode(Gaussian(mean, scale), PRIOR, 3, noise)
    cost = dither.bits(index, PRIOR, 3, scale, noise, STREAMS)
    assert abs((cost + np.log2(scale)).mean() - overhead) < 3 * cost.std() / np.sqrt(DRAWS) + 1e-3  # the mutual information is -log2(scale)


@pytest.mark.parametrize("noise", LAWS)
def test_cells_share_the_probability(noise):
    proposal, cells = Gaussian(3.0, 2.0), np.arange(-400, 401)
    cost = np.array([dither.bits(np.full(20, cell), proposal, 4, 0.5, noise, STREAMS[:20]) for cell in cells])
    assert np.allclose((2.0**-cost).sum(0), 1, atol=1e-12)


def test_decoding_one_alone():
    rng = np.random.default_rng(5)
    proposal = Gaussian(rng.normal(size=(40, 50)) * 9, rng.exponential(size=50) + 0.1)
    target = Gaussian(proposal.mean + proposal.scale * rng.normal(size=(40, 50)), rng.exponential(size=(40, 1)) + 0.01)
    index = dither.encode(target, proposal, 5)
    x = dither.decode(index, proposal, 5, target.scale)
    assert stats.kstest(target.cdf(x).reshape(-1), "uniform").pvalue > 0.01
    assert dither.decode(index[7, 9], proposal[7, 9], 5, target.scale[7, 9], stream=7 * 50 + 9) == x[7, 9]


def test_indices_are_pinned():
    target, proposal = Gaussian([-2.0, -0.3, 0.0, 0.4, 2.5], [0.1, 0.9, 0.02, 0.5, 0.3]), Gaussian(np.zeros(5), 1.0)
    assert dither.encode(target, proposal, 2024).tolist() == [-8, -1, 0, 1, 2]
    assert dither.encode(target, proposal, 2024, "uniform").tolist() == [-6, 0, 0, 0, 2]
    x = [-1.9376807508379918, -0.22409818048312632, -0.006263395209982482, 1.0728634383387796, 2.5373845947976887]
    assert np.allclose(dither.decode([-8, -1, 0, 1, 2], proposal, 2024, target.scale), x, rtol=1e-12)


@pytest.mark.parametrize("call, message", [
    (lambda: dither.encode(PRIOR, PRIOR, 1, "laplace"), "noise"),
    (lambda: dither.encode(Gaussian(1.0, 1e-200), PRIOR, 1), "cell"),
    (lambda: dither.decode([1], Gaussian([0.0], 1.0), 1, 0.0), "scale"),
    (lambda: dither.decode([1], Gaussian([0.0], 1.0), 1, [1.0, 2.0]), "scale"),
    (lambda: dither.decode([1.5], Gaussian([0.0], 1.0), 1, 1.0), "index"),
    (lambda: dither.bits([1, 2], Gaussian(np.zeros(3), 1.0), 1, 1.0), "broadcast"),
])
def test_errors_are_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as error:
        call()
    assert "\n" not in str(error.value)

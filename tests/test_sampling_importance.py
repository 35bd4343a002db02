"""Importance sampling with one index per block: the law of its samples, the bias it has, and how the bias goes."""

import itertools
import math

import numpy as np
import pytest
from scipy import stats

from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import importance
from shvc_lib.sampling.distributions import Discrete, Gaussian
from shvc_lib.sampling.randomness import uniforms

pytestmark = pytest.mark.filterwarnings("error")


def gaussian_of(kl, scale, number):
    """`number` copies of the Gaussian of this scale that is `kl` bits away from N(0, 1), and as many priors."""
    mean = math.sqrt(2 * math.log(2) * kl + 1 - scale**2 + 2 * math.log(scale))
    return Gaussian(np.full(number, mean), scale), Gaussian(np.zeros(number), 1)


def samples(target, prior, bits, seed=1, **options):
    """One sample per dimension, each a block of its own."""
    sizes = np.ones(target.shape, dtype=int)
    return importance.decode(importance.encode(target, prior, seed, bits, sizes, **options), prior, seed, sizes)


def distance(x, target):
    return stats.kstest(x, stats.norm(target.mean[0], target.scale[0]).cdf).statistic


def test_the_law_of_a_small_sampler():
    """Four candidates of three values: all 81 cases written out, against 10^5 draws. Sampling from the weights, and nothing else, gives this law."""
    q, p, n = np.array([0.1, 0.6, 0.3]), np.array([0.5, 0.2, 0.3]), 100_000
    law = np.zeros(3)
    for candidates in itertools.product(range(3), repeat=4):
        weights = (q / p)[list(candidates)]
        np.add.at(law, list(candidates), p[list(candidates)].prod() * weights / weights.sum())
    x = samples(Discrete(np.tile(q, (n, 1))), Discrete(np.tile(p, (n, 1))), 2)
    assert stats.chisquare(np.bincount(x, minlength=3), n * law).pvalue > 0.01
    assert stats.chisquare(np.bincount(x, minlength=3), n * q).pvalue < 1e-9  # four candidates are too few for the target itself


def test_bias_against_t():
    """KL 3 bits, scale 0.3: without extra bits the bias is plain, it shrinks with every one, and after three it is small."""
    distances = {}
    for t in range(-2, 5):
        target, prior = gaussian_of(3, 0.3, 10_000)
        distances[t] = distance(samples(target, prior, 3 + t), target)
    assert all(distances[t] < distances[t - 1] for t in range(-1, 4))
    assert distances[0] > 0.3 and distances[2] < 0.1 and distances[3] < 0.05 and distances[4] < 0.03


def test_the_bias_falls_as_one_over_n():
    """Two values, so the law for N candidates is a sum over how many of them are ones. Its bias tends to -Cov_q(x, r) / N, and the samples follow it."""
    q, p, draws = 0.6, 0.2, 100_000
    slope = -q * (1 - q) * (q / p - (1 - q) / (1 - p))
    for bits in (1, 3, 5, 10):
        ones = np.arange(2**bits + 1)
        weight = ones * q / p
        law = (stats.binom.pmf(ones, 2**bits, p) * weight / (weight + (2**bits - ones) * (1 - q) / (1 - p))).sum()
        if bits < 10:
            x = samples(Discrete(np.tile([1 - q, q], (draws, 1))), Discrete(np.tile([1 - p, p], (draws, 1))), bits)
            assert stats.binomtest(int(x.sum()), draws, law).pvalue > 0.01 > 1e-9 > stats.binomtest(int(x.sum()), draws, q).pvalue
    assert 2**10 * (law - q) == pytest.approx(slope, rel=0.01)


def test_the_largest_weight_is_another_bias():
    """It collapses onto the best ratio as candidates grow, where sampling approaches the target."""
    target, prior = gaussian_of(3, 0.3, 5000)
    spread = [samples(target, prior, bits, largest=True).std() / 0.3 for bits in (4, 6, 8)]
    assert spread[0] > 1 > 0.5 > spread[1] > 2 * spread[2]
    best = target.mean[0] / (1 - 0.3**2)  # where q / p is largest
    assert abs(samples(target, prior, 8, largest=True).mean() - best) < 0.03
    assert 0.95 < samples(target, prior, 8).std() / 0.3 < 1.05


def test_the_index_is_uniform():
    """Candidates are interchangeable, so no index is likelier than another and nothing shorter than `block` codes it."""
    target, prior = gaussian_of(2, 0.5, 30_000)
    index = importance.encode(target, prior, 2, 5, np.ones(30_000, dtype=int))
    assert stats.chisquare(np.bincount(index, minlength=32)).pvalue > 0.01


def test_one_index_for_many_dimensions():
    """Blocks of eight dimensions, KL 0.5 each: one index of 4 + 3 bits, and samples near the target in every dimension."""
    target, prior = gaussian_of(0.5, 0.7, 8 * 4000)
    sizes = np.full(4000, 8)
    bits = importance.bits_for(target, prior, 3, sizes)
    assert (bits == 7).all()
    index = importance.encode(target, prior, 3, bits, sizes)
    z = ((importance.decode(index, prior, 3, sizes) - target.mean) / 0.7).reshape(4000, 8)
    assert index.shape == (4000,) and index.max() < 128
    assert np.abs(z.mean(0)).max() < 0.15 and np.abs(z.std(0) - 1).max() < 0.1
    assert np.abs(np.corrcoef(z.T) - np.eye(8)).max() < 0.1


@pytest.mark.parametrize("work", [1 << 17, 200, 1])
def test_blocks_together_or_alone(work, monkeypatch):
    """Blocks of different sizes and bits give the indices that each gives by itself in one go, in whatever parts the work is done."""
    rng = np.random.default_rng(4)
    sizes, bits = np.array([1, 5, 2, 30, 1, 1, 2]), np.array([0, 6, 3, 7, 6, 3, 6])
    target, prior = Gaussian(rng.normal(size=(6, 7)), rng.uniform(0.3, 1.2, (6, 7))), Gaussian(np.tile(rng.normal(size=7), (6, 1)), 1.3)
    flat_target, flat_prior, ends, alone = target.flat((6, 7)), prior.flat((6, 7)), np.cumsum(sizes), []
    for end, size, b in zip(ends, sizes, bits):
        dims = np.arange(end - size, end)
        alone.append(importance.encode(flat_target[dims], flat_prior[dims], 5, int(b), stream=dims))
        assert np.ndim(alone[-1]) == 0
    monkeypatch.setattr(importance, "_WORK", work)
    index = importance.encode(target, prior, 5, bits, sizes)
    assert index.tolist() == alone and (index < 1 << bits).all() and index[1] > 0
    x = importance.decode(index, prior, 5, sizes)
    assert (x == prior.quantile(uniforms(5, np.arange(42).reshape(6, 7), np.repeat(index, sizes).reshape(6, 7)))).all()


def test_the_choice_is_by_weights():
    """The score that is maximised: the sum of log ratios over the block and a Gumbel number per candidate, written out."""
    target, prior = Gaussian([0.5, -1, 0.2], [0.3, 0.8, 1.5]), Gaussian([0, 0, 0], 1)
    candidates = uniforms(6, np.arange(3)[:, None], np.arange(64))
    x = stats.norm.ppf(candidates)
    scores = (stats.norm(target.mean[:, None], target.scale[:, None]).logpdf(x) - stats.norm.logpdf(x)).sum(0)
    assert importance.encode(target, prior, 6, 6, largest=True) == scores.argmax()
    gumbel = -np.log(-np.log(uniforms(6, 0, np.arange(64), 1)))
    assert importance.encode(target, prior, 6, 6) == (scores + gumbel).argmax()


def test_the_decoder_looks_nowhere_else(monkeypatch):
    asked = []
    monkeypatch.setattr(importance, "uniforms", lambda *arguments: asked.append(np.size(arguments[2])) or uniforms(*arguments))
    monkeypatch.setattr(importance, "uniform_rows", None)
    x = importance.decode([2**40, 3], Gaussian(np.zeros(3), 1), 7, [2, 1])
    assert (x == stats.norm.ppf(uniforms(7, np.arange(3), [2**40, 2**40, 3]))).all() and asked == [3]


def test_bits_for():
    target, prior = gaussian_of(2, 0.5, 6)
    assert importance.bits_for(target, prior) == 12 + 3 and importance.bits_for(target, prior, -20) == 0
    assert importance.bits_for(target, prior, 2, [1, 2, 3]).tolist() == [4, 6, 8]
    assert importance.bits_for(Discrete([1.0, 0]), Discrete([0.25, 0.75]), 0) == 2


@pytest.mark.parametrize("call", [
    lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, 25), lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, -1),
    lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, 2.5), lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, [1, 2]),
    lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, 4, [2, 2]), lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, 4, [3, 0]),
    lambda: importance.encode(*gaussian_of(2, 0.5, 3), -1, 4), lambda: importance.encode(*gaussian_of(2, 0.5, 3), 0, 4, stream=[0, 1]),
    lambda: importance.encode(Gaussian(0, 1), Discrete([1.0]), 0, 4), lambda: importance.encode(Discrete([1.0, 0]), Discrete([0, 1.0]), 0, 4),
    lambda: importance.bits_for(*gaussian_of(30, 0.5, 1)), lambda: importance.bits_for(Discrete([1.0, 0]), Discrete([0, 1.0])),
    lambda: importance.decode([1, 2], Gaussian(np.zeros(3), 1), 0), lambda: importance.decode(-1, Gaussian(0, 1), 0),
    lambda: importance.decode(0.5, Gaussian(0, 1), 0)])
def test_bad_arguments(call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert "\n" not in str(error.value)

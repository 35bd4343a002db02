"""Greedy rejection sampling is exact, its indices are distributed as computed, and cost what Harsha et al. promise."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import rejection
from shvc_lib.sampling.distributions import Discrete, Gaussian
from shvc_lib.sampling.randomness import uniforms

pytestmark = pytest.mark.filterwarnings("error")
PRIOR = Gaussian(0, 1)
DRAWS = np.arange(100_000)
TARGET, PROPOSAL = Discrete([0.05, 0.6, 0.05, 0.3, 0.0]), Discrete([0.3, 0.1, 0.3, 0.2, 0.1])


def gaussian_of(kl, scale):
    """The Gaussian of this scale that is `kl` bits away from N(0, 1)."""
    return Gaussian(math.sqrt(2 * math.log(2) * kl + 1 - scale**2 + 2 * math.log(scale)), scale)


def literally(q, p, count):
    """Algorithm 4 of the thesis word by word, with beta divided by what was left before the step: P(index = i) and P(x, index = i)."""
    served, joint = np.zeros_like(q), []
    for _ in range(count):
        left = 1 - served.sum()
        alpha = np.minimum(q - served, left * p)
        beta = np.divide(alpha, left * p, out=np.zeros_like(p), where=left * p > 0)
        joint.append(left * p * beta)  # the candidate is reached, is x, and is accepted
        served = served + alpha
    return np.array(joint)


@pytest.mark.parametrize("mean, scale, bits", [(1.5, 0.4, 8), (0.0, 0.9, 8), (1.0, 1.0, 6), (0.5, 1.3, 5), (2.5, 0.3, 4), (-2.0, 0.3, 0)])
def test_gaussian_samples_are_exact(mean, scale, bits):
    """10^5 draws against the target's CDF, and against 10^5 draws made by numpy; with few bits most samples come from what is left of the target."""
    index = rejection.encode(Gaussian(mean, scale), PRIOR, 1, bits, DRAWS)
    x = rejection.decode(index, PRIOR, 1, bits, DRAWS)
    assert stats.kstest(x, stats.norm(mean, scale).cdf).pvalue > 0.01
    assert stats.ks_2samp(x, np.random.default_rng(1).normal(mean, scale, DRAWS.size)).pvalue > 0.01
    left = 1 - rejection.index_probabilities(Gaussian(mean, scale), PRIOR, 1 << bits).sum()
    assert abs((index >= 1 << bits).mean() - left) < 4 * math.sqrt(left * (1 - left) / DRAWS.size) + 1e-12


def test_exact_without_a_limit():
    target = gaussian_of(4, 0.5)
    index = rejection.encode(target, PRIOR, 2, None, DRAWS[:20_000])
    assert stats.kstest(rejection.decode(index, PRIOR, 2, None, DRAWS[:20_000]), stats.norm(target.mean, target.scale).cdf).pvalue > 0.01
    assert index.max() > 256  # beyond any budget of 8 bits


@pytest.mark.parametrize("bits", [None, 6, 1, 0])
def test_discrete_samples_are_exact(bits):
    x = rejection.decode(rejection.encode(TARGET, PROPOSAL, 3, bits, DRAWS), PROPOSAL, 3, bits, DRAWS)
    counts = np.bincount(x, minlength=5)
    assert counts[4] == 0 and stats.chisquare(counts[:4], 1e5 * TARGET.probabilities[:4]).pvalue > 0.01


def test_index_and_sample_are_those_of_the_algorithm():
    """The joint distribution of (index, sample), against Algorithm 4 written out."""
    joint = literally(TARGET.probabilities, PROPOSAL.probabilities, 64)
    np.testing.assert_allclose(rejection.index_probabilities(TARGET, PROPOSAL, 64), joint.sum(1), atol=1e-14)
    index = rejection.encode(TARGET, PROPOSAL, 4, None, DRAWS)
    x = rejection.decode(index, PROPOSAL, 4, None, DRAWS)
    expected = 1e5 * joint.reshape(-1)
    often = expected > 5
    counts = np.bincount(index * 5 + x, minlength=joint.size)[:joint.size]
    rest = [1e5 - counts[often].sum()], [1e5 - expected[often].sum()]
    assert stats.chisquare(np.append(counts[often], rest[0]), np.append(expected[often], rest[1])).pvalue > 0.01


def test_gaussian_index_is_that_of_a_fine_grid():
    edges = np.linspace(-8, 8, 32_001)
    middle = (edges[1:] + edges[:-1]) / 2
    for mean, scale in ((1.5, 0.4), (0.5, 1.3), (1, 1)):
        q, p = (np.exp(d.log_density(middle)) for d in (Gaussian(mean, scale), PRIOR))
        exact = rejection.index_probabilities(Gaussian(mean, scale), PRIOR, 30)
        np.testing.assert_allclose(exact, literally(q / q.sum(), p / p.sum(), 30).sum(1), atol=2e-7)


def test_gaussian_indices_are_distributed_as_computed():
    target = Gaussian(1.5, 0.4)
    index = rejection.encode(target, PRIOR, 5, 8, DRAWS)
    expected = 1e5 * rejection.index_probabilities(target, PRIOR, 40)
    counts = np.bincount(index)[:40]
    assert stats.chisquare(np.append(counts, 1e5 - counts.sum()), np.append(expected, 1e5 - expected.sum())).pvalue > 0.01


def test_mean_index():
    """The largest ratio q / p, minus one."""
    target = Gaussian(1.0, 0.5)
    index = np.arange(1 << 13)
    probabilities = rejection.index_probabilities(target, PRIOR, 1 << 13)
    assert probabilities @ index == pytest.approx(math.exp(target.max_log_ratio(PRIOR)) - 1, abs=1e-4)  # the rest of the sum falls as 1 / count^2


def test_many_dimensions_at_once():
    """Dimensions of all kinds: together as alone, shapes kept, and the sample is the candidate that the index names."""
    rng = np.random.default_rng(6)
    target, prior = Gaussian(rng.normal(size=(3, 50)), rng.uniform(0.1, 1.3, (3, 50))), Gaussian(rng.normal(size=50), 1.5)
    index = rejection.encode(target, prior, 7, bits=5)
    x = rejection.decode(index, prior, 7, bits=5)
    assert index.shape == x.shape == (3, 50) and index.dtype == np.int64
    refused = index >= 32
    assert 5 < refused.sum() < 100
    streams = np.arange(150).reshape(3, 50)
    assert (x == prior.quantile(uniforms(7, streams, index)))[~refused].all()
    assert (x == prior.from_16_bits(np.where(refused, index - 32, 0)))[refused].all()
    for i, j in np.ndindex(3, 50):
        assert rejection.encode(target[i, j], prior[j], 7, 5, streams[i, j]) == index[i, j]
        assert rejection.decode(index[i, j], prior[j], 7, 5, streams[i, j]) == x[i, j]


def test_many_samples_of_one_target():
    """Streams beyond the target's shape draw more samples of it, the same ones as of a target written out as often."""
    streams = np.arange(1000) * 7
    shared = rejection.encode(Gaussian(1, 0.5), PRIOR, 8, 6, streams)
    assert (shared == rejection.encode(Gaussian(np.full(1000, 1), 0.5), PRIOR, 8, 6, streams)).all()
    table = rejection.encode(Gaussian([1, -1], 0.5), PRIOR, 8, 6, streams.reshape(500, 2))
    assert table.shape == (500, 2) and (table[:, 0] == shared[::2]).all() and (table[:, 1] != shared[1::2]).any()
    assert (rejection.encode(Gaussian(1, 0.5), PRIOR, 9, 6, streams) != shared).any()


@given(st.integers(0, 2**64 - 1), st.floats(-5, 5), st.floats(0.01, 3), st.floats(-5, 5), st.floats(0.1, 3), st.integers(0, 6))
@settings(max_examples=60, deadline=None)
def test_any_gaussians(seed, mean, scale, prior_mean, prior_scale, bits):
    target, prior = Gaussian(mean, scale), Gaussian(prior_mean, prior_scale)
    probabilities = rejection.index_probabilities(target, prior, 1 << bits)
    assert (probabilities >= 0).all() and probabilities.sum() <= 1 + 1e-12 and probabilities[0] == pytest.approx(1 - target.hockey_stick(prior)(1.0))
    index = rejection.encode(target, prior, seed, bits)
    assert 0 <= index < (1 << bits) + rejection.ESCAPE and np.isfinite(rejection.decode(index, prior, seed, bits))


@given(st.integers(0, 2**64 - 1), st.integers(2, 6))
@settings(max_examples=60, deadline=None)
def test_any_discrete(seed, size):
    rng = np.random.default_rng(seed)
    q, p = (rng.dirichlet(np.full(size, 0.5), 3) for _ in range(2))
    np.testing.assert_allclose(rejection.index_probabilities(Discrete(q), Discrete(p), 16), [literally(a, b, 16).sum(1) for a, b in zip(q, p)], atol=1e-12)
    index = rejection.encode(Discrete(q), Discrete(p), seed, 3)
    x = rejection.decode(index, Discrete(p), seed, 3)
    assert (Discrete(q).log_density(x) > -np.inf).all()


def test_ratios_beyond_floating_point():
    """A target 100 scales away exceeds the prior by more than 1e308: it is refused, and sampled directly."""
    target = Gaussian(np.full(500, 100.0), 0.5)
    index = rejection.encode(target, PRIOR, 1, 3)
    assert (index >= 8).all() and stats.kstest(rejection.decode(index, PRIOR, 1, 3), stats.norm(100, 0.5).cdf).pvalue > 0.01


def test_the_decoder_looks_nowhere_else(monkeypatch):
    """One random number per dimension is all that decoding asks for, however large the index."""
    asked = []
    monkeypatch.setattr(rejection, "uniforms", lambda *arguments: asked.append(np.size(arguments[2])) or uniforms(*arguments))
    monkeypatch.setattr(rejection, "uniform_rows", None)
    index = np.array([2**63 + 5, 0, 10**15], dtype=np.uint64)
    assert (rejection.decode(index, PRIOR, 0, None) == PRIOR.quantile(uniforms(0, [0, 1, 2], index))).all() and asked == [3]


@pytest.mark.parametrize("kl, scale", [(0.5, 0.6), (1, 0.5), (2, 0.9), (4, 0.5), (6, 0.3), (8, 0.1)])
def test_mean_logarithm_of_the_index(kl, scale):
    """E log2 max(index, 1) <= KL + (1 + 1/e) / ln 2, because candidate n is accepted only if n S_{n-1} <= L_n < r; and no code of KL - 1 would do."""
    count = 1 << 13
    probabilities = rejection.index_probabilities(gaussian_of(kl, scale), PRIOR, count)
    mean = probabilities @ np.log2(np.maximum(np.arange(count), 1))
    assert kl - 1 < mean <= kl + (1 + 1 / math.e) / math.log(2)


@pytest.mark.parametrize("call", [
    lambda: rejection.encode(Gaussian(0, 1.5), PRIOR, 0, None), lambda: rejection.encode(Gaussian([0, 1], [0.5, 1]), PRIOR, 0, None),
    lambda: rejection.encode(gaussian_of(8, 0.9), PRIOR, 0, None), lambda: rejection.encode(Discrete([0.5, 0.5]), Discrete([1, 0]), 0, None),
    lambda: rejection.encode(Gaussian(0, 0.5), TARGET, 0), lambda: rejection.encode(Gaussian(0, 0.5), PRIOR, -1), lambda: rejection.encode(0.5, PRIOR, 0),
    lambda: rejection.encode(Gaussian(0, 0.5), PRIOR, 0, bits=25), lambda: rejection.encode(Gaussian(0, 0.5), PRIOR, 0, bits=-1),
    lambda: rejection.encode(Gaussian(0, 0.5), PRIOR, 0, stream=-1), lambda: rejection.encode(Gaussian(np.zeros(2), 0.5), PRIOR, 0, stream=[1, 2, 3]),
    lambda: rejection.decode(256 + 65536, PRIOR, 0), lambda: rejection.decode(-1, PRIOR, 0), lambda: rejection.decode(0.0, PRIOR, 0),
    lambda: rejection.decode(0, Gaussian(np.zeros(2), 1), 0),
    lambda: rejection.decode([1, 2], PRIOR, 0, stream=[[1], [2]]), lambda: rejection.decode([1, 2, 3], Gaussian(np.zeros(2), 1), 0),
    lambda: rejection.index_probabilities(TARGET, PROPOSAL, 0)])
def test_bad_arguments(call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert "\n" not in str(error.value)

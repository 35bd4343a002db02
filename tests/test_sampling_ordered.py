"""Ordered random coding and the Poisson functional representation: the same samples as importance sampling for fewer bits, and exact ones."""

import numpy as np
import pytest
from scipy import stats

from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import Discrete, Gaussian, exponentials, importance, ordered, poisson
from shvc_lib.sampling.index_codes import zeta, zipf_exponent

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
DRAWS = 100_000
LIMIT = 1.628 / np.sqrt(DRAWS)  # of the Kolmogorov-Smirnov distance, exceeded by chance once in 100 times
STREAMS = np.arange(DRAWS)[:, None]
PRIOR = Gaussian([0.0], 1.0)


def draw(target, proposal, rule, extra_bits=3, streams=STREAMS, seed=1):
    index = ordered.encode(target, proposal, seed, extra_bits, rule, streams)
    return index, ordered.decode(index, proposal, seed, streams)


@pytest.mark.parametrize("mean, scale", [(1.0, 0.3), (-0.2, 0.8), (0.0, 0.15), (1.5, 0.2)])
def test_poisson_is_exact(mean, scale):
    _, x = draw(Gaussian([mean], scale), PRIOR, "poisson")
    distance = stats.kstest(x[:, 0], stats.norm(mean, scale).cdf).statistic
    assert distance < LIMIT < stats.kstest(x[:, 0] + 0.03 * scale, stats.norm(mean, scale).cdf).statistic


def test_poisson_is_exact_for_blocks():
    target, proposal = Gaussian([0.7, -1.0, 0.1], [0.6, 0.5, 0.8]), Gaussian(np.zeros(3), 1.0)
    _, x = draw(target, proposal, "poisson", streams=np.arange(90_000).reshape(-1, 3))
    z = (x - target.mean) / target.scale
    assert stats.kstest((z**2).sum(1), stats.chi2(3).cdf).pvalue > 0.01 and stats.kstest(z.reshape(-1), "norm").pvalue > 0.01
    assert np.abs(np.corrcoef(z.T) - np.eye(3)).max() < 3 / np.sqrt(len(z))


def test_poisson_is_exact_for_discrete_targets():
    q, p = np.array([0.5, 0.05, 0.3, 0.15, 0.0]), np.array([0.02, 0.48, 0.2, 0.1, 0.2])
    _, x = draw(Discrete([q]), Discrete([p]), "poisson")
    counts = np.bincount(x[:, 0], minlength=5)
    assert counts[4] == 0 and stats.chisquare(counts[:4], q[:4] * DRAWS).pvalue > 0.01


def test_poisson_stops_no_earlier_than_it_may():
    """Against the best of the first 4096 candidates."""
    target, streams = Gaussian([0.9], 0.25), np.arange(300)[:, None]
    index, _ = draw(target, PRIOR, "poisson", streams=streams)
    candidates = np.arange(4096)
    x = ordered.decode(np.tile(candidates, (300, 1)), PRIOR, 1, np.repeat(streams, 4096, 1)[..., None])[..., 0]
    score = np.log(np.cumsum(exponentials(1, streams, candidates, 1), 1)) - target.log_density(x) + PRIOR.log_density(x)
    assert index.max() < 1000 and (index == score.argmin(1)).all()


@pytest.mark.parametrize("bits", [0.5, 1, 2, 4])
def test_poisson_costs_what_it_may(bits):
    """KL + log2(KL + 1) + 4 bits at most (Li and El Gamal 2018), under Zipf's law with an exponent known from the divergence alone."""
    scale = 0.5 ** max(1, bits / 2)
    target = Gaussian([np.sqrt(2 * np.log(2) * bits + 1 - scale**2 + 2 * np.log(scale))], scale)
    index, _ = draw(target, PRIOR, "poisson", streams=STREAMS[:20_000])
    cost = zeta(zipf_exponent(bits + np.log2(np.e) / np.e + 1), index.size).bits(index) / index.size
    assert bits < cost < bits + np.log2(bits + 1) + 4


def test_order_costs_no_bias_and_saves_bits():
    """Against plain importance sampling, in 6000 blocks of four dimensions and about 4 bits, 2^8 candidates for each."""
    target, proposal = Gaussian(np.tile([0.9, -0.8, 0.3, 1.0], (6000, 1)), [0.35, 0.5, 0.5, 0.5]), Gaussian(np.zeros((6000, 4)), 1.0)
    plain, early = importance.encode(target, proposal, 1, 8, np.full(6000, 4)), ordered.encode(target, proposal, 1, 3)
    assert 4 < target.kl(proposal)[0].sum() < 5 and plain.max() <= 255 and early.max() <= 255
    x, y = importance.decode(plain, proposal, 1, np.full(6000, 4)), ordered.decode(early, proposal, 1)
    distances = [((z - target.mean) ** 2 / target.scale**2).sum(1) for z in (x, y)]
    assert stats.ks_2samp(*distances).pvalue > 0.01
    assert stats.chisquare(np.bincount(plain, minlength=256)).pvalue > 0.01  # uniform: worth all of its 8 bits
    for code in (zeta(zipf_exponent(np.log2(early + 1.0).mean()), 6000), poisson.codec(ordered.encode(target, proposal, 2, 3), 6000)):
        assert code.bits(early) / 6000 < 8 - 1


def test_the_law_is_importance_samplings_for_few_candidates():
    """Two candidates: the times' order statistics matter, and a Poisson process that is cut off after two is something else."""
    target, proposal, ones = Gaussian(np.full((DRAWS, 1), 0.8), 0.6), Gaussian(np.zeros((DRAWS, 1)), 1.0), np.ones(DRAWS, int)
    x = ordered.decode(ordered.encode(target, proposal, 1, 0), proposal, 1)
    y = importance.decode(importance.encode(target, proposal, 2, 1, ones), proposal, 2, ones)
    assert np.ceil(target.kl(proposal)[0, 0]) == 1 and stats.ks_2samp(x[:, 0], y[:, 0]).pvalue > 0.01


def test_bias_falls_with_the_extra_bits():
    target = Gaussian([1.5], 0.2)
    away = [stats.kstest(draw(target, PRIOR, "ordered", t, STREAMS[:10_000])[1][:, 0], stats.norm(1.5, 0.2).cdf).statistic for t in (-2, 0, 2, 4)]
    assert away[0] > 0.4 and away[1] > 0.15 and away[2] < 0.1 and away[3] < 0.03 and all(np.diff(away) < 0)


def test_blocks_with_targets_of_their_own():
    rng = np.random.default_rng(4)
    proposal = Gaussian(rng.normal(size=(6, 50, 3)) * 5, rng.exponential(size=3) + 0.1)
    target = Gaussian(proposal.mean + 0.7 * proposal.scale * rng.normal(size=(6, 50, 3)), proposal.scale * rng.uniform(0.4, 0.9, (6, 50, 3)))
    index = ordered.encode(target, proposal, 3, 4)
    x = ordered.decode(index, proposal, 3)
    assert index.shape == (6, 50) and x.shape == (6, 50, 3) and stats.kstest(target.cdf(x).reshape(-1), "uniform").pvalue > 0.01
    alone = ordered.decode(index[4, 17], proposal[4, 17], 3, np.arange(3 * (4 * 50 + 17), 3 * (4 * 50 + 18)))
    assert (alone == x[4, 17]).all()


def test_indices_are_pinned():
    target, proposal = Gaussian([[1.0, -0.3], [0.4, 0.5]], [[0.3, 0.9], [0.5, 0.4]]), Gaussian(np.zeros((2, 2)), 1.0)
    assert [ordered.encode(target, proposal, 2024, 3, rule).tolist() for rule in ("ordered", "poisson")] == [[9, 1], [9, 1]]
    x = [[-1.4546353401650476, -0.2630117118190384], [-0.8339789357506081, -0.846427064264194]]
    assert np.allclose(ordered.decode([5, 10**12], proposal, 2024), x, rtol=1e-12)


@pytest.mark.parametrize("call, message", [
    (lambda: ordered.encode(Gaussian([0.0], 0.5), PRIOR, 1, rule="best"), "rule"),
    (lambda: ordered.encode(Gaussian(0.0, 0.5), Gaussian(0.0, 1.0), 1), "axis"),
    (lambda: ordered.encode(Gaussian([0.0], 1.5), PRIOR, 1, rule="poisson"), "reasonable time"),
    (lambda: ordered.encode(Gaussian([9.0], 0.5), PRIOR, 1), "candidates"),
    (lambda: ordered.encode(Gaussian([0.0], 0.5), PRIOR, 1, 2.5), "extra_bits"),
    (lambda: ordered.encode(Gaussian([0.0], 0.5), Discrete([0.5, 0.5]), 1), "compared|broadcast"),
    (lambda: ordered.decode([-1], PRIOR, 1), "index"),
    (lambda: ordered.decode([[1, 2]], Gaussian(np.zeros((3, 2, 2)), 1.0), 1), "shape"),
])
def test_errors_are_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as error:
        call()
    assert "\n" not in str(error.value)

"""A* coding and greedy Poisson rejection sampling: exact, cheap, and in O(KL) steps."""

import numpy as np
import pytest
from scipy import stats
from scipy.integrate import solve_ivp

from shvc_lib.coding import BitStack
from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import Gaussian, exponentials, poisson, uniforms
from shvc_lib.sampling.index_codes import zeta, zipf_exponent

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
DRAWS = 100_000
LIMIT = 1.628 / np.sqrt(DRAWS)  # of the Kolmogorov-Smirnov distance, exceeded by chance once in 100 times
STREAMS = np.arange(DRAWS)
PRIOR = Gaussian(0.0, 1.0)
NARROW = [(0.0, 0.1), (1.0, 0.3), (-1.1, 0.5), (0.3, 0.9), (3.0, 0.05), (0.0, 1.0)]
WIDE = [(2.0, 1.0), (-0.5, 1.5), (0.0, 1.01)]
CASES = [("a_star", *case) for case in NARROW] + [("greedy", *case) for case in NARROW + WIDE]


def target_of(bits, scale):
    """The Gaussian of this scale whose divergence from N(0, 1) is `bits`."""
    return Gaussian(np.sqrt(2 * np.log(2) * bits + 1 - scale**2 + 2 * np.log(scale)), scale)


@pytest.mark.parametrize("rule, mean, scale", CASES)
def test_samples_are_the_targets(rule, mean, scale):
    x = poisson.decode(poisson.encode(Gaussian(mean, scale), PRIOR, 1, rule, STREAMS), PRIOR, 1, STREAMS)
    distance = stats.kstest(x, stats.norm(mean, scale).cdf).statistic
    assert distance < LIMIT < stats.kstest(x + 0.03 * scale, stats.norm(mean, scale).cdf).statistic  # and a bias of 0.03 would be seen


@pytest.mark.parametrize("rule", ["a_star", "greedy"])
def test_dimensions_with_targets_and_proposals_of_their_own(rule):
    rng = np.random.default_rng(2)
    proposal = Gaussian(rng.normal(size=(30, 100)) * 9, rng.exponential(size=100) + 0.1)
    target = Gaussian(proposal.mean + proposal.scale * rng.normal(size=(30, 100)), proposal.scale * rng.uniform(0.1, 0.95, (30, 100)))
    index = poisson.encode(target, proposal, 2, rule)
    x = poisson.decode(index, proposal, 2)
    assert index.shape == x.shape == (30, 100)
    assert stats.kstest(target.cdf(x).reshape(-1), "uniform").pvalue > 0.01
    some = np.array([2977, 5, 1203])  # decoding needs nothing but the index, the stream and the proposal of what is asked for
    alone = poisson.decode(index.reshape(-1)[some], proposal.flat((30, 100))[some], 2, some)
    assert (alone == x.reshape(-1)[some]).all()


@pytest.mark.parametrize("rule", ["a_star", "greedy"])
def test_pruning_loses_nothing(rule):
    """Against the same choice among all nodes of the first 9 levels, made with quantiles and times of its own."""
    target, levels, streams = Gaussian(0.8, 0.4), 9, np.arange(60)
    times, x = np.zeros((streams.size, 1 << levels)), np.zeros((streams.size, 1 << levels))
    for node in range(1, 1 << levels):
        depth = node.bit_length() - 1
        times[:, node] = times[:, node >> 1] + exponentials(7, streams, node, 1) * 2**depth
        x[:, node] = PRIOR.quantile((node - 2**depth + uniforms(7, streams, node)) / 2**depth)
    log_ratio = target.log_density(x) - PRIOR.log_density(x)
    if rule == "a_star":
        score = np.log(times[:, 1:]) - log_ratio[:, 1:]
    else:
        score = np.where(np.exp(log_ratio) >= threshold(target, times), times, np.inf)[:, 1:]
    index = poisson.encode(target, PRIOR, 7, rule, streams)
    assert index.max() < (1 << levels) - 1 and (index == score.argmin(1)).all()
    assert np.allclose(poisson.decode(index, PRIOR, 7, streams), x[streams, index + 1], rtol=0, atol=1e-12)


def threshold(target, times):
    """The density ratio that a candidate must have at each time, the inverse of sigma: dh/dt = S(h), solved as a differential equation in log t."""
    remaining = target.hockey_stick(PRIOR)  # S in closed form
    solution = solve_ivp(lambda t, h: np.exp(t) * remaining(h), (-20, 20), [np.exp(-20)], "DOP853", dense_output=True, rtol=1e-10, atol=1e-14)
    return solution.sol(np.log(np.maximum(times, 1e-8)).reshape(-1))[0].reshape(times.shape)


@pytest.mark.parametrize("mean, scale", NARROW[:5] + WIDE)
def test_the_tables_solve_the_equation(mean, scale):
    """sigma from the tables, put into its inverse, gives back the ratio; what an error is worth is weighed by how often it matters."""
    target = Gaussian(mean, scale)
    seen = poisson._Ratio(np.array([mean]), np.array([scale]))
    shares = np.linspace(1e-7, 1 - 1e-7, 501)
    x = np.concatenate([PRIOR.quantile(shares), target.quantile(shares)])
    log_time = poisson._Stretch(seen)(np.zeros(x.size, int), x)
    log_ratio, remaining = target.log_density(x) - PRIOR.log_density(x), target.hockey_stick(PRIOR)
    inside = (log_time > -12) & (log_time < 12)
    error = np.log(threshold(target, np.exp(log_time[inside]))) - log_ratio[inside]
    slope = remaining(np.exp(log_ratio[inside])) * np.exp(log_time[inside] - log_ratio[inside])  # d log h / d log t
    assert inside.sum() > 400 and np.abs(error / slope * remaining(np.exp(log_ratio[inside]))).max() < 3e-4


def test_tables_for_every_kind_of_target():
    """Finite and rising for all divergences up to 50 bits, also for scales next to the proposal's and for means of almost nothing."""
    rng = np.random.default_rng(0)
    near, far = 1 + rng.choice([-1, 1], 1500) * 10.0 ** rng.uniform(-16, -1, 1500), 10.0 ** rng.uniform(-12, 0.8, 1500)
    mean, scale = np.append(10.0 ** rng.uniform(-300, 0, 500), rng.uniform(-9, 9, 2500)), rng.permutation(np.append(near, far))
    some = Gaussian(mean, scale).kl(PRIOR) < poisson.MOST_BITS
    stretch = poisson._Stretch(poisson._Ratio(mean[some], scale[some]))
    assert some.sum() > 2500 and np.isfinite(stretch.log_time).all() and (np.diff(stretch.log_time, axis=1) >= 0).all()
    everywhere = np.append(rng.normal(size=some.sum() - 2) * 4, [-np.inf, np.inf])
    assert not np.isnan(stretch(np.arange(some.sum()), everywhere)).any()


@pytest.mark.parametrize("rule", ["a_star", "greedy"])
@pytest.mark.parametrize("bits", [0.5, 1, 2, 4, 8])
def test_codelength(rule, bits):
    """Bytes, under Zipf's law with the exponent that the divergence suggests, and under the code that was fitted to other samples' levels."""
    target = target_of(bits, 0.5 ** max(1, bits / 2))
    index = poisson.encode(target, PRIOR, 4, rule, STREAMS[:20_000])
    zipf, own = zeta(zipf_exponent(bits + 1), index.size), poisson.codec(poisson.encode(target, PRIOR, 5, rule, STREAMS[:20_000]), index.size)
    sizes = []
    for code in (zipf, own):
        stack = BitStack()
        code.push(stack, index)
        sizes.append(8 * len(stack.to_bytes()) / index.size)
        assert (code.pop(BitStack.from_bytes(stack.to_bytes())) == index).all()
    assert bits < sizes[1] < bits + 2.1 and sizes[1] < sizes[0] < bits + 2 * np.log2(bits + 1) + 2


def test_steps_grow_with_the_divergence_not_with_its_exponential():
    bits = np.array([6, 8, 12, 16, 24])
    visited = {rule: np.array([poisson.search(target_of(b, 0.01), PRIOR, 5, rule, STREAMS[:3000]).visited.mean() for b in bits])
               for rule in ("a_star", "greedy")}
    assert (visited["greedy"] < 1.1 * bits + 4).all() and (visited["a_star"] < 1.5 * bits + 6).all()
    assert (visited["greedy"] < visited["a_star"]).all() and (visited["greedy"] > 0.7 * bits).all()  # it is a count of something


def test_a_negative_mean_is_the_mirror_image():
    """Not of the candidates, but of the tables and so of the cost."""
    left, right = (poisson._Stretch(poisson._Ratio(np.array([m]), np.array([0.4]))) for m in (-1.5, 1.5))
    assert (left.log_time == right.log_time).all()


def test_indices_are_pinned():
    """The format: what one version has written the next can read."""
    target = Gaussian([-2.0, -0.3, 0.0, 0.4, 2.5], [0.1, 0.9, 0.02, 0.5, 0.3])
    proposal = Gaussian(np.zeros(5), 1.0)
    assert [poisson.encode(target, proposal, 2024, rule).tolist() for rule in ("greedy", "a_star")] == [[3, 0, 4, 0, 6], [3, 0, 4, 0, 6]]
    x = [-1.3812827150598852, -2.6900446545928274, 0.14509008999472323, 0.017945486363696413, 0.7599469076378124]
    assert np.allclose(poisson.decode([0, 1, 2, 12345, 10**15], proposal, 2024), x, rtol=1e-12)


def test_depth():
    assert poisson.depth([0, 1, 2, 3, 6, 7, 2**60 - 2, 2**60 - 1, 2**60]).tolist() == [0, 1, 1, 2, 2, 3, 59, 60, 60]


@pytest.mark.parametrize("call, message", [
    (lambda: poisson.encode(Gaussian(0.0, 0.5), PRIOR, 1, "best"), "rule"),
    (lambda: poisson.encode(Gaussian(0.0, 1.5), PRIOR, 1, "a_star"), "bounded"),
    (lambda: poisson.encode(Gaussian(1.0, 1.0), PRIOR, 1, "a_star"), "bounded"),
    (lambda: poisson.encode(Gaussian(30.0, 0.5), PRIOR, 1), "too far"),
    (lambda: poisson.encode(Gaussian(np.full(9, 8.0), 1.2), PRIOR, 1), "too far"),
    (lambda: poisson.encode(Gaussian(np.zeros(2), 0.5), Gaussian(np.zeros(3), 1.0), 1), "broadcast"),
    (lambda: poisson.encode(Gaussian(0.0, 0.5), PRIOR, -1), "seed"),
    (lambda: poisson.codec([0, 1], 2).push(BitStack(), [0, -1]), "indices"),
    (lambda: poisson.codec([0, 1], 2).push(BitStack(), [0, 1, 2]), "given for 2"),
    (lambda: poisson.codec([-1], 2), "observed"),
    (lambda: poisson.decode([-1], PRIOR, 1), "index"),
    (lambda: poisson.decode([2**62 - 1], PRIOR, 1), "index"),
    (lambda: poisson.decode([0.5], PRIOR, 1), "index"),
    (lambda: poisson.decode([1, 2], Gaussian(np.zeros(3), 1.0), 1), "broadcast"),
    (lambda: poisson.decode(1, Gaussian(np.zeros(3), 1.0), 1), "shape"),
])
def test_errors_are_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as error:
        call()
    assert "\n" not in str(error.value)

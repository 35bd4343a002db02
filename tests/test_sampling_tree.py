"""Tree coding: the same plan and sample at both ends, the bits that were agreed upon, and samples that lie where exact ones would."""

import hashlib
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shvc_lib.coding import BitStack
from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import tree
from shvc_lib.sampling.distributions import Gaussian

pytestmark = pytest.mark.filterwarnings("error")


def problem(bits, seed=0):
    """(target, proposal, worth): dimensions expected to cost `bits` each, whose targets' means vary as the proposal says."""
    scale = 2.0 ** -np.asarray(bits, dtype=float)
    target = Gaussian(np.random.default_rng(seed).normal(size=scale.size) * np.sqrt(1 - scale**2), scale)
    return target, Gaussian(np.zeros(scale.size), 1), np.rint(np.asarray(bits) * 2**16).astype(np.int64)


def mixed(number, seed=0):
    """Many cheap dimensions, few dear ones."""
    return np.minimum(np.random.default_rng(seed).gamma(0.4, 2.5, number), 7)


def sent(target, proposal, worth, seed=5, survivors=128, **options):
    """(plan, index, sample) after a round trip through a file."""
    plan = tree.plan(worth, seed, **options)
    index, codec, stack = tree.encode(target, proposal, seed, plan, survivors), tree.codec(plan), BitStack()
    codec.push(stack, index)
    bits = codec.bits(index)
    assert bits == len(plan.dims) * plan.bits.sum() <= stack.bits <= bits + 64
    stack = BitStack.from_bytes(stack.to_bytes())
    decoded = codec.pop(stack)
    assert stack.bits == 0 and (decoded == index).all() and decoded.dtype == index.dtype == np.int64
    return plan, index, tree.decode(decoded, proposal, seed, plan)


def distortion(sample, target):
    """D: 1 for exact samples. Sums are weighted as a squared error weights them: by the targets' variances."""
    return ((sample - target.mean) ** 2).sum() / (target.scale**2).sum()


def leaves(plan, seed):
    """(branches, samples) of all leaves of a plan of one chain, in the order of their branches, walked all at once."""
    branches = np.stack(np.unravel_index(np.arange(1 << int(plan.bits.sum())), [1 << int(b) for b in plan.bits]), 1)
    state, samples = tree._roots(seed, np.arange(1)), np.empty((len(branches), plan.size))
    for column, dimension in enumerate(plan.dims[0]):
        state = tree._child(state, branches[:, column].astype(np.uint32), column)
        samples[:, dimension] = tree._NORMAL[state >> np.uint32(16)]
    assert np.array_equal(samples[-1], tree.standard(branches[-1:], seed, plan))
    return branches, samples


def digest(*arrays):
    return hashlib.sha256(b"".join(np.ascontiguousarray(a).astype("<i8").tobytes() for a in arrays)).hexdigest()[:16]


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 300), st.integers(0, 2**64 - 1), st.integers(1, 256), st.one_of(st.none(), st.integers(1, 9)), st.integers(0, 9))
def test_every_dimension_has_its_place(number, seed, steps, chains, extra):
    """Once in a chain or among the rest, which holds what is not worth a search; the bits follow the worths."""
    rng = np.random.default_rng(number)
    worth = np.rint(rng.exponential(1.5, number) * 2**16 * (rng.random(number) < 0.8)).astype(np.int64)
    plan = tree.plan(worth, seed, steps / 64, chains, extra)
    again = tree.plan(worth.astype(np.uint64).tolist() if number % 2 else worth.copy(), np.uint64(seed), steps / 64, chains, extra)
    assert all(np.array_equal(a, b) for a, b in zip(plan, again)) and plan.size == number
    real = plan.dims[plan.dims < number]
    assert sorted([*real.tolist(), *plan.rest.tolist()]) == list(range(number)) and (plan.dims <= number).all()
    assert (worth[real] >= 256).all() and (worth[plan.rest] < 256).all() and plan.dims.size - real.size < len(plan.dims)
    assert plan.bits.shape == plan.dims.shape[1:] and (0 <= plan.bits).all() and (plan.bits <= tree.MOST_SPLIT).all()
    due = extra + np.cumsum(np.append(worth, 0)[plan.dims].sum(0) / len(plan.dims)) / 2**16 * steps / 64
    assert (np.cumsum(plan.bits) <= due).all()
    if plan.bits.size and plan.bits.max() < tree.MOST_SPLIT:
        assert (np.cumsum(plan.bits) > due - 1 - plan.bits.size * 2.0**-16 * (1 + steps / 64)).all()


def test_chains_and_rates():
    worth = problem(mixed(20_000))[2]
    total = worth.sum() / 2**16
    for rate in (1, 1.0625, 1.5):
        plan = tree.plan(worth, 1, rate)
        assert len(plan.dims) == 1 + int(total) // 1000
        spent = len(plan.dims) * (plan.bits.sum() - 3)
        assert rate * total * 0.99 < spent <= rate * total
    assert len(tree.plan(worth * 20, 1).dims) == 128 and len(tree.plan(worth, 1, chains=7).dims) == 7
    means = np.append(worth, 0)[tree.plan(worth, 1, chains=10).dims].astype(float)
    assert (np.ptp(means, axis=0) / 2**16).mean() < 0.02  # what stands in one column is worth nearly the same
    order = means.mean(0).argsort()
    assert abs(stats.spearmanr(order, np.arange(order.size)).statistic) < 0.1  # and the columns come in any order
    assert not np.array_equal(tree.plan(worth, 2).dims, tree.plan(worth, 1).dims)


def test_the_same_whoever_computes():
    """One thread or many, all at once or a chain at a time; other survivors and other seeds find other branches."""
    target, proposal, worth = problem(mixed(300))
    plan = tree.plan(worth, 5, chains=5)
    index = tree.encode(target, proposal, 5, plan, 20, threads=1)
    assert all(np.array_equal(tree.encode(target, proposal, 5, plan, 20, threads), index) for threads in (2, 5, 60, None))
    assert (index >> plan.bits == 0).all() and (index[:, plan.bits > 0] > 0).any(0).mean() > 0.5
    assert (tree.encode(target, proposal, 5, plan, 2) != index).any() and (tree.encode(target, proposal, 6, plan, 20) != index).any()


def test_the_best_leaf_of_a_small_tree():
    """With room for all paths the branch taken is that of the largest q / p: all leaves written out, and sums of log ratios in float64."""
    target, proposal, worth = problem([1.5, 2, 0.5, 1, 2.5, 0.2])
    plan = tree.plan(worth, 7, 1.25, 1, 2)
    assert plan.bits.sum() == 11 and (plan.bits == 0).any()
    branches, samples = leaves(plan, 7)
    ratio = (target.log_density(samples) - proposal.log_density(samples)).sum(1)
    assert np.unique(samples, axis=0).shape == samples.shape
    for survivors in (1 << 11, tree._CHILDREN):
        assert np.array_equal(tree.encode(target, proposal, 7, plan, survivors), branches[[ratio.argmax()]])
    found = tree.encode(target, proposal, 7, plan, 1)[0]
    assert ratio[(branches == found).all(1)][0] < ratio.max() - 1  # no beam: each split is decided at once


def test_survivors_are_the_best_ones():
    """A chain of two columns: the beam after the first one holds the paths that q / p ranks highest, as many as allowed."""
    target, proposal, worth = problem([4, 4], seed=2)
    plan = tree.plan(worth, 8, 1, 1, 0)
    assert plan.bits.tolist() == [4, 4]
    first, second = plan.dims[0]
    index, samples = leaves(plan, 8)
    ratio = target.log_density(samples) - proposal.log_density(samples)
    rank = ratio[::16, first].argsort()[::-1]
    for survivors in range(1, 17):
        allowed = np.isin(index[:, 0], rank[:survivors])
        best = np.where(allowed, ratio.sum(1), -np.inf).argmax()
        assert np.array_equal(tree.encode(target, proposal, 8, plan, survivors), index[[best]])


def test_how_many_candidates_are_looked_at(monkeypatch):
    target, proposal, worth = problem([0.1, 5, 0.01, 0.01, 2, 0.1, 9] * 9)
    plan, take, sizes = tree.plan(worth, 3, chains=3), np.take, []
    monkeypatch.setattr(np, "take", lambda table, at, **options: sizes.append(at.shape) or take(table, at, **options))
    for survivors in (1, 20, 5000):
        sizes.clear()
        tree.encode(target, proposal, 3, plan, survivors, threads=1)
        assert len(sizes) == 21 and sum(map(math.prod, sizes)) == 3 * tree.candidates(plan, survivors)
        assert max(map(math.prod, sizes)) <= 3 * 8192 and all(shape[0] == 3 and shape[2] <= 4 * survivors for shape in sizes)
    assert tree.candidates(tree.plan([0], 1)) == 0


def test_candidates_are_normal_and_independent():
    """Along a path, among the branches of a parent, among its grandchildren, from chain to chain: states' high bits are uniform, and so are pairs of them."""
    def pairs(a, b):
        return stats.chisquare(np.bincount(((a >> 24).astype(np.int64) << 8 | b >> 24).reshape(-1), minlength=1 << 16)).pvalue

    state, along = tree._roots(9, np.arange(2048)), []
    for column in range(200):
        state = tree._child(state, np.uint32(column % 2), column)
        along.append(state)
    along = np.array(along)
    children = tree._child(state[:, None], np.arange(512, dtype=np.uint32), 200)
    grandchildren = [tree._child(children, np.uint32(branch), 201) for branch in (0, 1)]
    assert stats.chisquare(np.bincount((along >> 16).reshape(-1), minlength=1 << 16)).pvalue > 1e-3
    assert stats.chisquare(np.bincount((children >> 16).reshape(-1), minlength=1 << 16)).pvalue > 1e-3
    for a, b in ((along[1:], along[:-1]), (along[2:], along[:-2]), (along[:, 1:], along[:, :-1]), (children[:, 1:], children[:, :-1]),
                 (children[:, 2:], children[:, :-2]), (children[:, 256:], children[:, :-256]), (children[1:], children[:-1]), grandchildren,
                 (grandchildren[0], children), (grandchildren[0][:, 1:], grandchildren[0][:, :-1])):
        assert pairs(a, b) > 1e-3
    table = tree._NORMAL
    assert abs(table.mean()) < 1e-12 and table.var() == pytest.approx(1, abs=1e-4) and (table == -table[::-1]).all()
    assert stats.kstest(table, "norm").statistic < 1e-4


def test_frozen():
    """Files hold branches of these trees: the candidates, the plan and the states may never change."""
    table = tree._NORMAL * tree.GRID
    assert (table == np.rint(table)).all() and digest(table) == "db9f6de9a853d1f4"
    assert digest(tree._scrambled(np.arange(1000, dtype=np.uint32)), tree._roots(2**63 + 11, np.arange(1000))) == "a283dea8a1fa8c58"
    bits = np.arange(500) % 43 / 16
    target, proposal, worth = problem(bits)
    plan = tree.plan(worth, 2**40 + 7, chains=3)
    assert digest(*plan) == "2fe812ce87ba78be"
    index = np.random.default_rng(0).integers(0, 1 << 9, plan.dims.shape) & (1 << plan.bits) - 1
    assert digest(tree.standard(index, 2**40 + 7, plan) * tree.GRID) == "36606c8c1d376729"


def test_samples_are_as_far_from_their_means_as_exact_ones():
    """8000 dimensions, half of them worth little. D is 1 within four standard errors of an exact sampler's, the mean error none."""
    target, proposal, worth = problem(mixed(8000))
    plan, _, sample = sent(target, proposal, worth)
    total, error = target.kl(proposal).sum(), np.sqrt(2 * (target.scale**4).sum()) / (target.scale**2).sum()
    spent = len(plan.dims) * int(plan.bits.sum())
    assert spent == pytest.approx(1.0625 * worth.sum() / 2**16 + 3 * len(plan.dims), rel=0.01) and spent < 1.1 * total
    assert distortion(sample, target) == pytest.approx(1, abs=4 * error)
    z = (sample - target.mean) / target.scale
    assert abs(z.mean()) < 4 / math.sqrt(z.size) and abs(z[mixed(8000) > 1].mean()) < 4 / math.sqrt((mixed(8000) > 1).sum())
    shrink = (sample * target.mean).sum() / (target.mean**2).sum()
    assert 0.95 < shrink < 1.02  # exact samples: 1; a narrow beam falls short of the targets' means


def test_what_fewer_survivors_and_fewer_bits_cost():
    """Three bits a dimension, 3200 of them: without a beam, or with fewer bits than the samples are worth, they are plainly farther off."""
    target, proposal, worth = problem(np.full(3200, 3.0))
    error = math.sqrt(2 / 3200)
    distances = {survivors: distortion(sent(target, proposal, worth, survivors=survivors)[2], target) for survivors in (1, 8, 128)}
    assert distances[128] == pytest.approx(1, abs=4 * error)
    assert distances[1] > 3 > distances[8] > 1.5
    assert distortion(sent(target, proposal, worth, rate=0.796875)[2], target) > 2
    assert distortion(sent(target, proposal, worth, rate=1.25)[2], target) < 0.6  # more than it is worth: the sample crowds the mode


def test_borrowing():
    """One chain whose dimensions are worth 0.2 bits, but every tenth 4: a budget along the path, not a budget for each."""
    bits = np.where(np.arange(2000) % 10, 0.2, 4.0)
    target, proposal, worth = problem(bits)
    plan, _, sample = sent(target, proposal, worth, chains=1)
    dear = bits == 4
    assert (np.diff(np.cumsum(plan.bits)) <= 5).all() and (plan.bits == 0).sum() > 1000
    for part in (dear, ~dear):
        assert distortion(sample[part], target[part]) == pytest.approx(1, abs=5 * math.sqrt(2 / part.sum()))


def test_the_rest_comes_from_the_proposal():
    """Dimensions that are worth nothing get samples of the proposal, other ones for each seed, whatever the targets may say."""
    worth = np.zeros(20_000, np.int64)
    worth[:10] = 2 << 16
    plan = tree.plan(worth, 4)
    target, proposal = Gaussian(np.full(20_000, 3.0), 0.1), Gaussian(np.full(20_000, 5.0), 2)
    index = tree.encode(target, proposal, 4, plan)
    sample = tree.decode(index, proposal, 4, plan)
    assert plan.rest.tolist() == list(range(10, 20_000))
    assert stats.kstest(sample[10:], stats.norm(5, 2).cdf).pvalue > 1e-3
    assert abs(np.corrcoef(sample[10:], tree.decode(index, proposal, 5, plan)[10:])[0, 1]) < 4 / math.sqrt(20_000)
    assert np.array_equal(sample, 5 + 2 * tree.standard(index, 4, plan))


def test_nothing_to_search():
    target, proposal, _ = problem(np.full(50, 2.0))
    plan, index, sample = sent(target, proposal, np.zeros(50, np.int64))
    assert index.shape == (1, 0) and plan.rest.tolist() == list(range(50)) and np.unique(sample).size == 50
    stack = BitStack.random(100)
    before = stack.copy()
    tree.codec(plan).push(stack, index)
    assert stack == before and tree.codec(plan).pop(stack).shape == (1, 0) and stack == before


@pytest.mark.parametrize("number", [1, 2, 3])
@pytest.mark.parametrize("bits", [0.1, 3.0, 12.0])
def test_few_dimensions(number, bits):
    """Every one of them is in a chain; a split has at most 9 bits, of which nothing is left over."""
    target, proposal, worth = problem(np.full(number, bits), seed=1)
    plan, index, sample = sent(target, proposal, worth)
    assert plan.dims.shape == (1, number) and plan.rest.size == 0 and plan.bits[0] == min(3 + int(1.0625 * bits), 9)
    if bits == 3:
        assert np.abs((sample - target.mean) / target.scale).max() < 4
    alone = [tree.plan(worth * 1000, 0, chains=chains) for chains in (None, 7)]
    assert [p.dims.shape for p in alone] == [(number, 1) if bits > 1 else (1, number), (7, 1)] and all(p.rest.size == 0 for p in alone)


def test_no_dimension_is_left_over():
    """101 dear dimensions in 4 chains, where 100 would fit: all 101 are near their targets' means."""
    target, proposal, worth = problem(np.full(101, 5.0))
    plan, _, sample = sent(target, proposal, worth, chains=4)
    assert plan.dims.shape == (4, 26) and (plan.dims == 101).sum() == 3
    assert np.abs((sample - target.mean) / target.scale).max() < 6


def test_very_dear_dimensions():
    """12 bits are more than one split has; the others do not suffer, and these are far better than the proposal's samples."""
    bits = np.where(np.arange(2000) % 50, mixed(2000), 12.0)
    target, proposal, worth = problem(bits)
    plan, _, sample = sent(target, proposal, worth)
    z, dear = (sample - target.mean) / target.scale, bits == 12
    assert plan.bits.max() == tree.MOST_SPLIT and len(plan.dims) * plan.bits.sum() == pytest.approx(1.0625 * bits.sum() + 3 * len(plan.dims), rel=0.01)
    assert np.median(np.abs(z[dear])) < 2 and np.abs(z[dear]).max() < 2**12 / 100
    assert distortion(sample[~dear], target[~dear]) == pytest.approx(1, abs=5 * math.sqrt(2 * (target.scale**4).sum()) / (target.scale**2).sum())


def test_targets_far_away():
    """Out of all candidates' reach, or narrower than their grid: still an index, and the nearest candidates."""
    proposal = Gaussian(np.zeros(4), 1)
    plan = tree.plan(np.full(4, 6 << 16), 1)
    for target in (Gaussian([1e200, -1e200, 1e9, -50], [1e-200, 1e-300, 1e-9, 0.1]), Gaussian([50, -50, 9, -9], 1e-100)):
        sample = tree.decode(tree.encode(target, proposal, 1, plan), proposal, 1, plan)
        assert (np.sign(sample) == np.sign(target.mean)).all() and np.abs(sample).min() > 1.5


GOOD = tree.plan([1 << 16] * 6, 0)
PAIR = problem(np.full(6, 1.0))[:2]
INDEX = tree.encode(*PAIR, 0, GOOD)


@pytest.mark.parametrize("call", [
    lambda: tree.plan([], 0), lambda: tree.plan([0.5], 0), lambda: tree.plan([-1], 0), lambda: tree.plan([1 << 31], 0), lambda: tree.plan([[1], [1, 2]], 0),
    lambda: tree.plan([1], -1), lambda: tree.plan([1], 0.5), lambda: tree.plan([1], 1 << 64), lambda: tree.plan([1], 0, 1.01), lambda: tree.plan([1], 0, 0),
    lambda: tree.plan([1], 0, -1), lambda: tree.plan([1], 0, math.nan), lambda: tree.plan([1], 0, math.inf), lambda: tree.plan([1], 0, "1"),
    lambda: tree.plan([1], 0, chains=0), lambda: tree.plan([1], 0, chains=1.5), lambda: tree.plan([1], 0, extra=-1), lambda: tree.plan([1], 0, extra=63),
    lambda: tree.encode(PAIR[0], PAIR[1][:5], 0, GOOD), lambda: tree.encode(PAIR[0][:5], PAIR[1][:5], 0, GOOD), lambda: tree.encode(*PAIR, -1, GOOD),
    lambda: tree.encode(PAIR[0].flat((2, 6)), PAIR[1].flat((2, 6)), 0, GOOD), lambda: tree.encode(1, PAIR[1], 0, GOOD), lambda: tree.encode(*PAIR, 0.0, GOOD),
    lambda: tree.encode(*PAIR, 0, GOOD, 0), lambda: tree.encode(*PAIR, 0, GOOD, 1 << 20), lambda: tree.encode(*PAIR, 0, GOOD, threads=0),
    lambda: tree.decode(INDEX, Gaussian(0, 1), 0, GOOD), lambda: tree.decode(INDEX, PAIR[1][:5], 0, GOOD), lambda: tree.decode(INDEX, None, 0, GOOD),
    lambda: tree.decode(INDEX, PAIR[1], -1, GOOD), lambda: tree.decode(INDEX * 1.0, PAIR[1], 0, GOOD)])
def test_bad_arguments(call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("damaged", [INDEX[:, 1:], INDEX[0], np.repeat(INDEX, 2, 0), INDEX - 1 - INDEX.max(), INDEX + (1 << GOOD.bits), INDEX + (1 << 40), [],
                                     (INDEX + (1 << GOOD.bits)).astype(np.uint64), INDEX.astype(float), "branches", [[1], [1, 2]]])
def test_a_damaged_index_is_refused(damaged):
    """By the decoder as by the codec, which would lose a branch where nothing splits; and no stack is touched."""
    stack = BitStack.random(100)
    before, codec = stack.copy(), tree.codec(GOOD)
    for call in (lambda: tree.decode(damaged, PAIR[1], 0, GOOD), lambda: codec.push(stack, damaged), lambda: codec.bits(damaged)):
        with pytest.raises(InvalidInput) as error:
            call()
        assert "\n" not in str(error.value) and stack == before


def test_branches_of_any_integer_type():
    for kind in (np.uint8, np.uint64, np.int16):
        assert np.array_equal(tree.decode(INDEX.astype(kind), PAIR[1], 0, GOOD), tree.decode(INDEX.tolist(), PAIR[1], 0, GOOD))

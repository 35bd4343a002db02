"""ArIB on small models where everything can be counted: it starts from nothing, what it lends itself is accounted for to the bit, and what cannot be
borrowed is the best guess."""

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import coded, stacks

from shvc_lib.coding import TOTAL, BitStack, Categorical, Uniform, independent, logistic
from shvc_lib.coding.arib import _HALF_WORD, _PADDED, _PADDING, Loan, Split, _overdraft, _settle, _stacks, _unsettle, arib, lend, mode_first
from shvc_lib.coding.bits_back import bit_swap, bits_back, push_chain
from shvc_lib.coding.codec import Codec
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits

STATES = 8
FLAG = float(_PADDED.bits(np.array([0])).sum())  # bits that "the code ends on a regular stack" costs


def uniform(size, dims):
    return independent(Uniform(size), dims)


def toy(z_bits=8, first_bits=8, rest_bits=8, z=1, first=1, rest=1):
    """Uniform parts: z takes z_bits per value, and so on; every length can be worked out by hand."""
    return Split(uniform(1 << z_bits, z), lambda z: uniform(1 << first_bits, first), lambda x: uniform(1 << z_bits, z), lambda x: uniform(1 << rest_bits, rest))


def latents(dims, spread=50, size=96):
    """(prior, posterior) of `dims` latents whose modes are not at an end of the support; the posterior is a little the narrower."""
    modes = np.arange(dims) % 7 - 3
    return logistic(16 * modes, np.full(dims, spread + 10), size, -size // 2), logistic(16 * modes, np.full(dims, spread), size, -size // 2), modes


class Hidden:
    """z -> first -> second, `dims` independent copies of finite variables; q is the exact posterior p(z | first), by Bayes' rule.

    `sharp`: how little z is in doubt when first is known; `dull`: how much second says that first has not said."""

    def __init__(self, dims=100, sharp=0.7, dull=0.5, seed=0, levels=1):
        rng = np.random.default_rng(seed)
        self.dims, self.prior = dims, rng.dirichlet(np.ones(STATES))
        table = lambda keep: keep * np.eye(STATES)[rng.permutation(STATES)] + (1 - keep) * rng.dirichlet(np.ones(STATES), STATES)  # noqa: E731
        self.down, self.on, self.above = table(sharp), table(dull), table(0.6)
        self.top = self.prior
        if levels == 2:  # another z above, whose marginal below is the prior
            self.prior = self.top @ self.above
        joint = self.prior[:, None] * self.down
        self.up, self.marginal = (joint / joint.sum(0)).T, joint.sum(0)
        upper = self.top[:, None] * self.above
        self.over, self.levels = (upper / upper.sum(0)).T, levels

    def split(self, mode=True):
        code = lambda table, parent: independent(Categorical(table[parent]))  # noqa: E731
        turned = (lambda table, parent: mode_first(Categorical(table[parent]))) if mode else code
        tile = lambda row: independent(Categorical(np.tile(row, (self.dims, 1))))  # noqa: E731
        prior = tile(self.prior) if self.levels == 1 else bit_swap(tile(self.top), [lambda z: code(self.above, z)], [lambda z: turned(self.over, z)])
        return Split(prior, lambda z: code(self.down, z), lambda x: turned(self.up, x), lambda x: code(self.on, x))

    def sample(self, count, seed=1):
        rng = np.random.default_rng(seed)
        first = rng.choice(STATES, (count, self.dims), p=self.marginal)
        second = np.array([[rng.choice(STATES, p=self.on[v]) for v in row] for row in first])
        return list(zip(first, second))

    def exact_bits(self, x):
        return float(-np.log2(self.marginal[x[0]]).sum() - np.log2(self.on[x[0], x[1]]).sum())


def equal(a, b):
    return len(a) == len(b) == 2 and all(np.array_equal(v, w) for v, w in zip(a, b))


def regular(stack):
    """Holds what a file may hold, may not be overdrawn, and is the same after a file."""
    return stack.bits >= 0 and not stack.overdraft and BitStack.from_bytes(stack.to_bytes()) == stack


# --- worked out by hand -----------------------------------------------------------------------------------------------------------------------

def test_a_loan_worked_out_by_hand():
    """The rest is 12 bits, z takes 8 of them and gives them back: 8 + 12 in all, and the flag that says that nothing was padded."""
    stack = BitStack()
    loan = lend(toy(rest_bits=12), stack, ([3], [5]))
    assert loan == Loan(rest=12, lent=8, overdrawn=False)
    assert type(loan.rest) is type(loan.lent) is int and type(loan.overdrawn) is bool
    assert 20 <= stack.bits <= 21 and FLAG < 0.03
    assert arib(*toy(rest_bits=12)).bits(([3], [5])) == pytest.approx(20)
    assert equal(arib(*toy(rest_bits=12)).pop(stack), ([3], [5])) and stack == BitStack()


@pytest.mark.parametrize("rest, z", [(1, 1), (2, 1), (0, 1), (1, 2), (1, 4), (1, 5), (1, 6), (4, 8), (4, 9), (4, 100), (8, 1200), (1000, 1003), (1000, 2000)])
def test_an_overdraft_worked_out_by_hand(rest, z):
    """Bytes: z takes z of them, the second part lends `rest`. Up to two bytes more come out of the head, word for word; beyond, some of the head's four may
    stay there for ever. What z did without is what the stream is longer than its first and second part."""
    split = toy(rest=rest, z=z) if rest else toy(rest_bits=0, z=z)
    x, stack = ([7], [5] * rest or [0]), BitStack()
    loan = lend(split, stack, x)
    assert loan.rest == 8 * rest and loan.overdrawn == (z > rest)
    assert loan.lent == 8 * z if z <= rest + 2 else 8 * rest + 16 <= loan.lent <= 8 * rest + 32
    assert abs(stack.bits - (8 + 8 * rest + 8 * z - loan.lent)) <= (17 if z > rest + 2 else 1) and regular(stack)
    assert equal(arib(*split).pop(stack), x) and stack == BitStack()


def test_what_an_empty_stack_gives():
    """Popping four hundred latents from nothing: with `mode_first` modes from some symbol on, in the order of the values the bottom of the support;
    before it some draws, which the head's own 32 bits pay for; and all of it pushed back leaves nothing, word for word."""
    _, q, modes = latents(400)
    for codec, left in [(mode_first(q), modes), (independent(q), np.full(400, -48))]:
        stack = BitStack()
        with _overdraft(stack):
            z = codec.pop(stack)
            assert -32 <= stack.bits < 0
            different = np.flatnonzero(z != left)
            assert 0 < different.size and different.max() < 20 and stack != BitStack()
            codec.push(stack, z)
        assert stack == BitStack() and not stack.overdraft


def test_a_head_of_nothing_stays_nothing():
    """At 0 a pop gives the symbol whose interval begins at 0, for ever, and its push leaves 0, too."""
    _, q, modes = latents(400)
    for codec, expected in [(mode_first(q), modes), (independent(q), np.full(400, -48))]:
        stack = BitStack()
        with _overdraft(stack):
            assert stack.bits == 0 and stack.pop(Uniform(1 << 16), 2).size and stack.bits == -32  # the head's own bits
            for _ in range(3):
                assert np.array_equal(codec.pop(stack), expected) and stack.bits == -32
            codec.push(stack, expected)
            assert stack.bits == -32


# --- the flag at the end ----------------------------------------------------------------------------------------------------------------------

def test_the_flag_costs_almost_nothing_on_a_regular_stack():
    stack = BitStack.random(1000)
    before = stack.copy()
    for _ in range(1000):
        _settle(stack)
    assert (stack.bits - before.bits) / 1000 == pytest.approx(FLAG, rel=0.1) and FLAG < 0.03
    for _ in range(1000):
        _unsettle(stack)
    assert stack == before


def certain(size, dims):
    """0 nearly always: the other symbols have one count each."""
    return independent(Categorical(np.array([TOTAL - size + 1, *[1] * (size - 1)])), dims)


@pytest.mark.parametrize("z", [1, 2, 8, 9, 10, 30, 300])
@pytest.mark.parametrize("below", [0, 1, 3, 20])
@pytest.mark.parametrize("part", [1, 5])
def test_a_code_that_ends_below_a_regular_head_is_padded(z, below, part):
    """First and second are as good as certain, and so is z under the prior; a bit of each z was taken all the same. What is left is a number below 2^32, and
    bytes must carry it. Under a prior that gives these bits back nothing is padded."""
    before, x = BitStack.random(below, 5) if below else BitStack(), ([0] * part, [0] * part)
    for prior in (certain, uniform):
        split = Split(prior(2, z), lambda v: certain(3, part), lambda v: uniform(2, z), lambda v: certain(4, part))
        stack = before.copy()
        loan = lend(split, stack, x)
        assert loan.overdrawn == (z > below) and loan.rest in (0, 1) and regular(stack)
        if prior is uniform:
            assert stack.copy().pop(_PADDED, 1) == [0] and stack.bits <= below + 1
        elif below == 0:
            assert stack.copy().pop(_PADDED, 1) == [int(z < 10)] and stack.bits <= 38  # ten: the head's last bit was a 1, which is dear
        for own in (BitStack.from_bytes(stack.to_bytes()), stack):
            assert equal(arib(*split).pop(own), x) and own == before


def test_padding_is_whatever_the_number():
    """Each number of bits that can be left: padded and found again, exactly, by bytes."""
    for taken in range(33):
        stack = BitStack()
        with _overdraft(stack):
            symbols = [stack.pop(Uniform(2), 1) for _ in range(taken)]
            assert stack.bits == -taken if taken <= 8 else stack.bits < 0
            left = stack.bits
            _settle(stack)
        assert regular(stack) and stack.bits <= 32 + 7 + 1
        stack = BitStack.from_bytes(stack.to_bytes())
        with _overdraft(stack):
            _unsettle(stack)
            assert stack.bits == left
            for symbol in symbols[::-1]:
                stack.push(symbol, Uniform(2))
        assert stack == BitStack()


@pytest.mark.parametrize("padding", [[0, 0], [1, 2], [65_535, 65_534], [65_534, 65_535], [0, 65_535]])
def test_padding_of_other_numbers_is_corrupt(padding):
    for below in (0, 500):
        stack = BitStack.random(below, 1)
        stack.push(np.array(padding, dtype=np.int32), _HALF_WORD)
        stack.push(np.array([1], dtype=np.int32), _PADDED)
        before = stack.copy()
        with pytest.raises(CorruptFile, match="padding"):
            arib(*toy()).pop(stack)
        assert stack == before and not stack.overdraft
    assert _PADDING.tolist() == [65_535] * 2


# --- round trips ------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2])
def test_from_nothing_to_nothing_at_the_cost_of_the_evidence(levels):
    """With exact posteriors the stack grows by -log2 p(x), whatever z was drawn: no initial bits, and no more than the flag beyond."""
    hidden = Hidden(dims=300, dull=0.1, levels=levels)
    split, values = hidden.split(), hidden.sample(20)
    codec, grown, ideal = arib(*split), [], []
    for x in values:
        stack = BitStack()
        loan = lend(split, stack, x)
        grown.append(stack.bits), ideal.append(hidden.exact_bits(x))
        assert not loan.overdrawn and loan.rest >= loan.lent > 100
        assert equal(codec.pop(stack), x) and stack == BitStack()
        assert abs(grown[-1] - ideal[-1]) < 3
        assert abs(codec.bits(x) - ideal[-1]) < 1
    assert sum(grown) == pytest.approx(sum(ideal), rel=0.002)


@pytest.mark.parametrize("dull", [0.5, 0.9999])
def test_values_one_on_top_of_the_other_and_what_lies_below_stays(dull):
    hidden = Hidden(dims=50, sharp=0.3, dull=dull)
    codec, values, stack = arib(*hidden.split()), hidden.sample(30), BitStack.random(333, seed=9)
    before = stack.copy()
    for x in values:
        codec.push(stack, x)
    stack = BitStack.from_bytes(stack.to_bytes())
    assert all(equal(codec.pop(stack), x) for x in values[::-1]) and stack == before


@pytest.mark.parametrize("below", [0, 1, 40, 10_000, 300_000, 400_000])
@pytest.mark.parametrize("z", [1000, 45_000])
def test_what_lies_below_is_dug_into_and_comes_back(below, z):
    """z takes more than the second part lends and goes on with what lies below, down to the deepest chunk and beyond: all of it is put back."""
    split, stack, x = toy(z=z, rest=3), BitStack.random(below, 4), ([7], [1, 2, 3])
    before, words = stack.copy(), stack.words()
    loan = lend(split, stack, x)
    assert loan.overdrawn == (8 * z > below + 24) and loan.rest == 24
    assert loan.lent == 8 * z if not loan.overdrawn else below + 24 < loan.lent <= below + 24 + 32
    assert regular(stack)
    stack = BitStack.from_bytes(stack.to_bytes())
    assert equal(arib(*split).pop(stack), x) and stack == before and np.array_equal(stack.words(), words)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(most=12), coded(most=12), coded(most=12), coded(most=12), st.booleans(), st.booleans(), st.sampled_from([0, 1, 2, 3, 64, 3000]),
       st.integers(0, 2**32))
def test_any_models_from_empty_or_full_stacks(prior, first, second, wide, turned, levels, below, seed):
    """Any four models, matched to one another or not: z under q has the support of its prior, so that every z can be pushed."""
    (cdf, _), (likelihood, x), (rest, y), (top, _) = prior, first, second, wide
    as_codec = lambda model, symbols: independent(model, len(symbols) if model.shape is None else None)  # noqa: E731
    table = np.random.default_rng(seed).dirichlet(np.full(cdf.size, 0.3), len(prior[1]))
    q = Categorical(table, np.broadcast_to(cdf.lower, (len(prior[1]),)))
    posterior = mode_first(q) if turned else independent(q)
    over = as_codec(cdf, prior[1])
    if levels:
        over = bit_swap(as_codec(top, wide[1]), [lambda z: over_plain], [lambda z: as_codec(top, wide[1])])
        over_plain = as_codec(cdf, prior[1])
    split = Split(over, lambda z: as_codec(likelihood, x), lambda v: posterior, lambda v: as_codec(rest, y))
    stack = BitStack.random(below, seed) if below else BitStack()
    before = stack.copy()
    loan = lend(split, stack, (x, y))
    assert 0 <= loan.lent <= loan.rest + below + 32 and loan.rest >= 0
    assert loan.overdrawn >= (loan.lent > loan.rest + below) and (levels or loan.overdrawn == (loan.lent > loan.rest + below))
    assert regular(stack)
    for own in (BitStack.from_bytes(stack.to_bytes()), stack):
        assert equal(arib(*split).pop(own), (x, y)) and own == before and not own.overdraft


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(), stacks())
def test_mode_first_is_the_same_distribution_turned_round(pair, stack):
    """Round trip, cost, the mode at 0 and so the first that an empty stack gives; for every kind of model with a row per symbol."""
    cdf, x = pair
    if cdf.shape is None:
        cdf = Categorical(np.tile(cdf.frequencies(), (len(x), 1)), cdf.lower)
    codec, before = mode_first(cdf), stack.copy()
    assert codec.bits(x) == pytest.approx(float(cdf.bits(x).sum()), abs=1e-9)
    codec.push(stack, x)
    popped = codec.pop(stack)
    assert np.array_equal(popped, x) and popped.dtype == np.int32 and stack == before
    zeros = BitStack()
    with _overdraft(zeros):
        assert codec.pop(zeros)[0] == (cdf.frequencies().argmax(-1) + cdf.lower)[0]
    with pytest.raises(InvalidInput, match="outside the model's support"):
        codec.push(stack, np.asarray(x) + cdf.size)
    assert stack == before


def test_zeros_give_modes_and_not_the_lowest_bin():
    """What a stack of zeros tells the posterior to draw: with `mode_first` its best guess, without it the bottom of the support."""
    means = np.array([-16 * 20, 0, 16 * 50])
    cdf = logistic(means, np.full(3, 60), 256, -128)
    for codec, expected in [(mode_first(cdf), [-20, 0, 50]), (independent(cdf), [-128] * 3)]:
        stack = BitStack()
        stack.push(np.zeros(10, dtype=np.int32), _HALF_WORD)
        assert stack.bits == 160 and codec.pop(stack).tolist() == expected


def test_nearly_empty_stacks():
    rng, overdrawn = np.random.default_rng(0), 0
    for _ in range(1000):
        prior, q, rest, likelihood = (Categorical(rng.dirichlet(np.full(16, 0.5), n)) for n in (3, 3, 2, 3))
        split = Split(independent(prior), lambda z: independent(likelihood), lambda x: mode_first(q), lambda x: independent(rest))
        stack, x = BitStack.random(int(rng.integers(0, 4)), int(rng.integers(1 << 30))), (rng.integers(0, 16, 3), rng.integers(0, 16, 2))
        start = stack.copy()
        overdrawn += lend(split, stack, x).overdrawn
        assert regular(stack)
        assert equal(arib(*split).pop(stack), x) and stack == start
    assert 50 < overdrawn < 950


# --- when the loan is too small ---------------------------------------------------------------------------------------------------------------

def by_hand(split, x):
    """The four steps on an empty stack; OutOfBits where the loan does not suffice."""
    stack = BitStack()
    split.rest(x[0]).push(stack, x[1])
    z = split.posterior(x[0]).pop(stack)
    split.likelihood(z).push(stack, x[0])
    split.prior.push(stack, z)
    stack.push(np.array([0]), _PADDED)
    return stack


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("dull", [0.2, 0.97, 0.9999])
def test_overdrawn_where_a_plain_stack_runs_out_and_nowhere_else(dull, levels):
    """Second parts that say less and less: the words of the four steps by hand, or OutOfBits by hand."""
    hidden, found = Hidden(dims=200, sharp=0.2, dull=dull, levels=levels), []
    split = hidden.split()
    for x in hidden.sample(6):
        stack = BitStack()
        loan = lend(split, stack, x)
        found.append(loan.overdrawn)
        if loan.overdrawn:
            with pytest.raises(OutOfBits):
                by_hand(split, x)
            assert levels == 2 or loan.rest < loan.lent <= loan.rest + 32
        else:
            assert stack == by_hand(split, x) and loan.lent <= loan.rest
        assert regular(stack) and equal(arib(*split).pop(stack), x) and stack == BitStack()
    assert all(found) if dull > 0.9 else not any(found) or levels == 2  # the z above may run short where that below does not


@pytest.mark.parametrize("dull, shortage", [(0.1, False), (0.9999, True)])
def test_a_shortage_costs_no_more_than_the_modes_that_fill_it(dull, shortage):
    """Growth beyond the ideal: nothing where enough is lent; otherwise at most what the modes of all z are worth under q. `bits` knows no shortage."""
    hidden = Hidden(dims=200, sharp=0.2, dull=dull)
    split, codec = hidden.split(), arib(*hidden.split())
    for x in hidden.sample(6):
        stack = BitStack()
        loan = lend(split, stack, x)
        assert loan.overdrawn == shortage == (loan.lent > loan.rest)
        extra, modes = stack.bits - hidden.exact_bits(x), hidden.up[x[0]].argmax(-1)
        if shortage:
            assert 50 < extra < -np.log2(hidden.up[x[0], modes]).sum() + 3
            guess = split.rest(x[0]).bits(x[1]) + split.likelihood(modes).bits(x[0]) + split.prior.bits(modes)  # a posterior without a choice
            assert stack.bits < guess + 3
        else:
            assert abs(extra) < 3 and stack.bits == pytest.approx(codec.bits(x), abs=3)


def test_modes_first_make_a_shortage_cheap():
    """A flat image: nothing in the second part. With the modes at 0 almost all latents are modes and the stream is at most as long as these under the
    prior; without them the lowest bin comes again and again, which the prior thinks impossible."""
    p, q, modes = latents(400)
    cost, lowest = {}, {}
    for name, posterior in [("modes", mode_first(q)), ("bottom", independent(q))]:
        drawn = []
        split = Split(independent(p), lambda z: (drawn.append(z), uniform(256, 1))[1], lambda v: posterior, lambda v: uniform(1, 1))
        stack, x = BitStack(), ([3], [0])
        loan = lend(split, stack, x)
        cost[name], z = stack.bits, drawn[0]
        assert loan.overdrawn and loan.rest == 0 and 0 < loan.lent <= 32
        lowest[name] = (z == -48).mean()
        assert cost[name] == pytest.approx(p.bits(z).sum() + 8 - loan.lent, abs=32)
        assert equal(arib(*split).pop(stack), x) and stack == BitStack()
        if name == "modes":
            assert (z == modes).mean() > 0.95
    assert cost["modes"] < p.bits(modes).sum() + 8 + 32
    assert lowest["modes"] == 0 and lowest["bottom"] > 0.95 and cost["bottom"] > 2 * cost["modes"]


def test_no_shortage_is_too_large():
    """A quarter of a million latents and nothing to draw them by."""
    split, stack = toy(z=1 << 18, rest_bits=0), BitStack.random(100)
    before = stack.copy()
    loan = lend(split, stack, ([1], [0]))
    assert loan.overdrawn and 100 < loan.lent <= 132 and stack.bits == pytest.approx(8 << 18, abs=200)
    assert equal(arib(*split).pop(stack), ([1], [0])) and stack == before


# --- levels above -----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("below", [0, 3, 333])
def test_an_upper_level_may_be_overdrawn_alone(below):
    """The second part lends z_1 all that it takes; z_2 takes a hundred bytes and finds one, and what lies below."""
    prior = bit_swap(uniform(256, 100), [lambda z: uniform(256, 1)], [lambda z: uniform(256, 100)])
    split, stack, x = toy()._replace(prior=prior), BitStack.random(below, 2), ([9], [200])
    before = stack.copy()
    loan = lend(split, stack, x)
    assert loan == Loan(rest=8, lent=8, overdrawn=True)
    assert regular(stack) and stack.bits == pytest.approx(8 + 8 + 8 * 100 - 32, abs=18)
    other = BitStack.from_bytes(stack.to_bytes())
    for own in (stack, other):
        assert equal(arib(*split).pop(own), x) and own == before


def test_an_upper_level_that_finds_modes():
    """Two levels of exact posteriors, the loan enough for the lower: cheaper with the modes first than in the order of the states."""
    hidden, cost = Hidden(dims=200, sharp=0.95, dull=0.7, levels=2, seed=3), {}
    for mode in (True, False):
        split, cost[mode] = hidden.split(mode), 0
        for x in hidden.sample(6):
            stack = BitStack()
            lend(split, stack, x)
            cost[mode] += stack.bits
            assert regular(stack) and equal(arib(*split).pop(stack), x) and stack == BitStack()
    assert cost[True] <= cost[False]


# --- lanes ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("below", [0, 50])
def test_lanes_with_overdrafts_of_their_own_are_single_stacks(levels, below):
    """Five values at a time, some of which lend enough: each lane holds what coding its value alone gives."""
    hidden, dims = Hidden(dims=60, sharp=0.3, dull=0.9, levels=levels), 60
    values = [x for seed in range(5) for x in hidden.sample(1, seed)]
    rng = np.random.default_rng(0)
    values[1] = (values[1][0], rng.integers(0, STATES, dims))  # unexpected second parts lend plenty
    values[4] = (values[4][0], rng.integers(0, STATES, dims))
    start = lambda: [BitStack.random(below, lane) for lane in range(5)]  # noqa: E731
    lanes = Lanes(start())
    batch = tuple(np.stack(part) for part in zip(*values))
    plain = hidden.split()
    tile = lambda row: independent(Categorical(np.tile(row, (5, dims, 1))))  # noqa: E731
    wide = plain._replace(prior=tile(hidden.prior))
    if levels == 2:
        under, over = lambda z: independent(Categorical(hidden.above[z])), lambda z: mode_first(Categorical(hidden.over[z]))
        wide = plain._replace(prior=bit_swap(tile(hidden.top), [under], [over]))
    loan = lend(wide, lanes, batch)
    assert all(part.shape == (5,) for part in loan) and loan.rest.dtype == loan.lent.dtype == np.int64 and loan.overdrawn.dtype == bool
    assert loan.overdrawn.any() and not loan.overdrawn[[1, 4]].any()
    for lane, (x, stack) in enumerate(zip(values, start())):
        before = stack.copy()
        assert lend(plain, stack, x) == tuple(part[lane] for part in loan) and stack == lanes.stacks[lane] and regular(lanes.stacks[lane])
        assert equal(arib(*plain).pop(stack), x) and stack == before
    assert equal(arib(*wide).pop(lanes), batch) and lanes == Lanes(start())
    assert not any(own.overdraft for own in lanes.stacks)


def test_a_lane_that_must_be_padded_and_one_that_must_not():
    split = Split(certain(2, 2 * 9), lambda v: uniform(1, 2), lambda v: uniform(2, 2 * 9), lambda v: uniform(16, 2))
    lanes = Lanes([BitStack(), BitStack.random(500, 1)])
    before = lanes.copy()
    loan = lend(split, lanes, (np.zeros((2, 1), dtype=int), np.array([[3], [4]])))
    assert loan.overdrawn.tolist() == [True, False] and loan.rest.tolist() == [4, 4] and loan.lent.tolist() == [9, 9]
    assert [own.copy().pop(_PADDED, 1)[0] for own in lanes.stacks] == [1, 0] and all(map(regular, lanes.stacks))
    first, second = arib(*split).pop(lanes)
    assert second.tolist() == [[3], [4]] and lanes == before


# --- nobody else may ---------------------------------------------------------------------------------------------------------------------------

def refuses(stack):
    """A pop of more than there is raises, and changes nothing."""
    before = stack.copy()
    with pytest.raises(OutOfBits):
        stack.pop(Uniform(1 << 16), 4 + 2 * int(np.max(stack.bits)))
    return stack == before


def watched(split, seen):
    """The parts note what stacks they are given: whether each may be overdrawn."""
    def watch(codec):
        def noted(action):
            def call(stack, *x):
                seen.extend(own.overdraft for own in _stacks(stack))
                return action(stack, *x)
            return call
        return Codec(noted(codec.push), noted(codec.pop), codec.bits)
    return Split(watch(split.prior), lambda z: watch(split.likelihood(z)), lambda x: watch(split.posterior(x)), lambda x: watch(split.rest(x)))


@pytest.mark.parametrize("z", [1, 50])
def test_overdraft_is_on_within_and_off_again(z):
    seen = []
    split, stack, x = watched(toy(z=z), seen), BitStack(), ([1], [2])
    assert refuses(stack)
    lend(split, stack, x)
    assert seen == [True] * 4 and not stack.overdraft and refuses(stack)
    arib(*split).pop(stack)
    assert seen == [True] * 8 and not stack.overdraft and refuses(stack) and stack == BitStack()
    with pytest.raises(OutOfBits):  # nor does ordinary bits-back coding find more than there is
        bits_back(uniform(256, 9), lambda z: uniform(256, 1), lambda x: uniform(256, 9)).push(stack, [1])
    assert not BitStack.overdraft and stack == BitStack()


class Stop(Exception):
    """No error of ours."""


@pytest.mark.parametrize("part", ["prior", "likelihood", "posterior", "rest"])
@pytest.mark.parametrize("error", [Stop, InvalidInput, OutOfBits, KeyboardInterrupt])
@pytest.mark.parametrize("below", [0, 3, 700])
def test_overdraft_is_off_again_after_an_error_inside(part, error, below):
    """In each part, on the way there and on the way back: raised as it is or as CorruptFile, the stack as it was."""
    split, x = toy(z=50), ([1], [2])

    def fail(*_):
        raise error
    failing = Codec(fail, fail, None)
    part = {part: failing if part == "prior" else lambda _: failing}
    broken = split._replace(**part)
    stack, other = BitStack.random(below, 6), Lanes([BitStack.random(below, lane) for lane in range(2)])
    wide = Split(uniform(256, 100), lambda z: uniform(256, 2), lambda x: uniform(256, 100), lambda x: uniform(256, 2))
    for own, parts, value in [(stack, broken, x), (other, wide._replace(**part), ([[1], [1]], [[2], [2]]))]:
        before = own.copy()
        with pytest.raises(error):
            lend(parts, own, value)
        assert own == before and not any(each.overdraft for each in _stacks(own))
    arib(*split).push(stack, x)
    before = stack.copy()
    with pytest.raises((error, CorruptFile)):
        arib(*broken).pop(stack)
    assert stack == before and not stack.overdraft


def test_one_inside_the_other():
    """An ArIB code as the second part of another: the inner one does not take the overdraft from the outer one, which takes it from all."""
    seen = []
    inner = arib(*watched(toy(z=30), seen))
    split = Split(uniform(256, 60), lambda z: uniform(256, 1), lambda x: uniform(256, 60), lambda x: inner)
    outer, stack, x = arib(*watched(split, seen)), BitStack(), ([4], ([1], [2]))
    outer.push(stack, x)
    assert len(seen) == 8 and all(seen) and not stack.overdraft and regular(stack)
    first, second = outer.pop(stack)
    assert len(seen) == 16 and all(seen) and not stack.overdraft and stack == BitStack()
    assert np.array_equal(first, x[0]) and equal(second, x[1])


@pytest.mark.parametrize("first", [1, 2, 9])
def test_one_above_the_other(first):
    """An ArIB code as the prior of another, begun on a stack that is overdrawn already."""
    own = arib(*toy(z=30))
    prior = Codec(lambda stack, z: own.push(stack, (z[:1], z[1:])), lambda stack: np.concatenate(own.pop(stack)), None)
    split = Split(prior, lambda z: uniform(2, first), lambda x: uniform(256, 2), lambda x: uniform(1, 1))
    stack, x = BitStack(), (np.ones(first, dtype=int), [0])
    assert lend(split, stack, x).overdrawn and regular(stack)
    assert equal(arib(*split).pop(stack), x) and stack == BitStack() and not stack.overdraft


@pytest.mark.parametrize("lanes", [0, 3])
def test_chains_that_are_metered(lanes):
    """`push_chain` wraps its stack: overdrawn all the same, 32 bits below nothing at most, and off again."""
    number = max(lanes, 1)
    split = Split(uniform(256, 50 * number), lambda z: uniform(256, number), lambda x: uniform(256, 50 * number), lambda x: uniform(256, number))
    codec, stack = arib(*split), Lanes([BitStack() for _ in range(3)]) if lanes else BitStack()
    before = stack.copy()
    values = [tuple(np.full((lanes, 1) if lanes else 1, 10 * i + part) for part in range(2)) for i in range(4)]
    ledgers = push_chain(codec, values, stack)
    assert np.all(sum(ledger.net for ledger in ledgers) == stack.bits) and np.all(ledgers[0].initial <= 32) and np.all(ledgers[0].initial >= 16)
    assert all(own.overdraft is False and regular(own) for own in _stacks(stack)) and refuses(stack if not lanes else stack.stacks[0])
    assert all(equal(codec.pop(stack), x) for x in values[::-1]) and stack == before


# --- errors -----------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("x", [[[1], [2], [3]], 5, np.zeros((2, 1), dtype=int), "ab"[:1], ([1],)])
def test_only_pairs_are_taken(x):
    with pytest.raises(InvalidInput, match="a pair"):
        arib(*toy()).push(BitStack(), x)


@pytest.mark.parametrize("x", [([256], [1]), ([1], [256]), ([1, 2], [1]), ([1], [1.5]), ([-1], [0])])
@pytest.mark.parametrize("bits", [0, 500])
def test_a_push_that_fails_changes_nothing(x, bits):
    """A symbol outside the support or of another number, in either part: also after z has been popped, or the stack overdrawn."""
    for z in (1, 50, 500):
        stack = BitStack.random(bits, 3)
        before = stack.copy()
        with pytest.raises(InvalidInput):
            arib(*toy(z=z)).push(stack, x)
        assert stack == before and not stack.overdraft


@pytest.mark.parametrize("bits", [0, 5, 13, 21])
def test_a_pop_that_runs_out_changes_nothing(bits):
    stack = BitStack.random(bits, 1)
    before = stack.copy()
    with pytest.raises((OutOfBits, CorruptFile)):
        for _ in range(4):
            arib(*toy()).pop(stack)
            before = stack.copy()
    assert stack == before and not stack.overdraft


@pytest.mark.parametrize("rest", [1, 20])
def test_a_stack_that_holds_too_little_for_the_second_part(rest):
    """Nothing but the empty stack, or one lane that is: what comes below zero is no value."""
    split = toy(rest=rest)
    with pytest.raises(OutOfBits, match="too little"):
        arib(*split).pop(BitStack())
    wide = Split(uniform(256, 2), lambda z: uniform(256, 2), lambda x: uniform(256, 2), lambda x: uniform(256, 2 * rest))
    lanes = Lanes([BitStack.random(1000), BitStack()])
    lanes.stacks[0].push(np.array([0]), _PADDED)
    before = lanes.copy()
    with pytest.raises(OutOfBits, match="too little"):
        arib(*wide).pop(lanes)
    assert lanes == before


def test_a_latent_that_no_push_can_have_drawn_is_corrupt():
    """The prior allows more of z than the posterior does."""
    split = toy()._replace(posterior=lambda x: mode_first(Categorical(np.array([[TOTAL // 4] * 4]))))
    stack = BitStack.random(1000)
    before = stack.copy()
    with pytest.raises(CorruptFile, match="codec has not written"):
        for _ in range(40):
            arib(*split).pop(stack)
            before = stack.copy()
    assert stack == before and not stack.overdraft


@pytest.mark.parametrize("dull", [0.2, 0.9999])
def test_a_damaged_stream_never_passes_for_another(dull):
    """One bit of every byte of a stream is turned: what comes out is an error, or other values, or something is left over."""
    hidden = Hidden(dims=100, sharp=0.2, dull=dull)
    split, (x,) = hidden.split(), hidden.sample(1)
    codec, stack = arib(*split), BitStack()
    assert lend(split, stack, x).overdrawn == (dull > 0.9)
    data, errors = stack.to_bytes(), 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        try:
            other = BitStack.from_bytes(bytes(damaged))
            before = other.copy()
            assert not equal(codec.pop(other), x) or other != BitStack()
        except (CorruptFile, OutOfBits):
            errors += 1
            assert place == len(data) - 1 or other == before and not other.overdraft
    assert errors > (0.3 * len(data) if dull < 0.9 else 0)


@pytest.mark.parametrize("dull", [0.2, 0.9999])
def test_a_truncated_stream_never_passes_for_another(dull):
    """Words, or bytes, missing at the bottom or at the top: an error, the stack as it was; or not the value with nothing left."""
    hidden = Hidden(dims=60, sharp=0.2, dull=dull)
    split, (x,) = hidden.split(), hidden.sample(1)
    codec, stack = arib(*split), BitStack()
    codec.push(stack, x)
    data, errors, tried = stack.to_bytes(), 0, 0
    for part in [data[i:] for i in range(1, len(data))] + [data[:i] for i in range(len(data))]:
        try:
            other = BitStack.from_bytes(part)
        except CorruptFile:
            continue
        before, tried = other.copy(), tried + 1
        try:
            assert not equal(codec.pop(other), x) or other != BitStack()
        except (CorruptFile, OutOfBits, InvalidInput):
            errors += 1
            assert other == before and not other.overdraft
    assert tried > 50 and (dull > 0.9 or errors > 0.3 * tried)

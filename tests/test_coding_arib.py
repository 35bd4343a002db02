"""ArIB on small models where everything can be counted: it starts from nothing, and what it lends itself is accounted for to the bit."""

import signal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from strategies import coded, stacks

from shvc_lib.coding import TOTAL, BitStack, Categorical, Uniform, independent, logistic
from shvc_lib.coding.arib import _NONE, Loan, Split, _fill, _push_count, arib, lend, mode_first
from shvc_lib.coding.bits_back import bit_swap
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits

STATES = 8
COUNT = -np.log2(_NONE / TOTAL)  # bits that "no filler" costs


def uniform(size, dims):
    return independent(Uniform(size), dims)


def toy(z_bits=8, first_bits=8, rest_bits=8, z=1, first=1, rest=1):
    """Uniform parts: z takes z_bits per value, and so on; every length can be worked out by hand."""
    return Split(uniform(1 << z_bits, z), lambda z: uniform(1 << first_bits, first), lambda x: uniform(1 << z_bits, z), lambda x: uniform(1 << rest_bits, rest))


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


# --- worked out by hand -----------------------------------------------------------------------------------------------------------------------

def test_a_loan_worked_out_by_hand():
    """The rest is 12 bits, z takes 8 of them and gives them back: 8 + 12 in all, and the count of no filler words."""
    stack = BitStack()
    loan = lend(toy(rest_bits=12), stack, ([3], [5]))
    assert loan == Loan(rest=12, lent=8, filler=0) and all(type(number) is int for number in loan)
    assert 20 <= stack.bits <= 21 and COUNT < 0.03
    assert arib(*toy(rest_bits=12)).bits(([3], [5])) == pytest.approx(20)
    assert equal(arib(*toy(rest_bits=12)).pop(stack), ([3], [5])) and stack == BitStack()


@pytest.mark.parametrize("rest, z, words", [(1, 1, 0), (2, 1, 0), (0, 1, 1), (1, 2, 1), (1, 5, 1), (1, 6, 2), (4, 100, 24), (4, 101, 25), (8, 1200, 298)])
def test_the_filler_worked_out_by_hand(rest, z, words):
    """Bytes: z takes z of them, the second part lends `rest`; what is short comes in words of four, as few as suffice."""
    split = toy(rest=rest, z=z) if rest else toy(rest_bits=0, z=z)
    x, stack = ([7], [5] * rest or [0]), BitStack()
    loan = lend(split, stack, x)
    assert loan == Loan(8 * rest, 8 * z, 32 * words)
    assert 32 * words >= 8 * (z - rest) > 32 * (words - 1) or words == 0
    count = COUNT if not words else 7 + 2 * np.log2(words)  # about: length, then the number
    assert abs(stack.bits - (8 + 8 * rest + 32 * words) - count) < 4
    assert equal(arib(*split).pop(stack), x) and stack == BitStack()


def test_none_costs_almost_nothing_and_many_a_few_dozen_bits():
    """The count of filler words: 0.02 bits for none; a length and that many bits otherwise; all of them come back."""
    from shvc_lib.coding.arib import _pop_count

    stack = BitStack.random(1000)
    before = stack.copy()
    for number in range(1000):
        _push_count(stack, [0])
    assert (stack.bits - before.bits) / 1000 == pytest.approx(COUNT, rel=0.1) and COUNT < 0.03
    for number in range(1000):
        assert _pop_count(stack) == [0]
    assert stack == before
    for number in [1, 2, 3, 4, 255, 256, 257, 65_537, (1 << 17) - 1]:
        _push_count(stack, [number])
        assert stack.bits - before.bits < 8 + 2 * np.log2(2 * number)
        assert _pop_count(stack) == [number] and stack == before


@pytest.mark.parametrize("number", [1 << 17, (1 << 18) + 12_345, (1 << 19) - 1])
def test_the_count_of_a_flat_image_of_a_megapixel_or_more(number):
    from shvc_lib.coding.arib import _pop_count

    stack = BitStack.random(1000)
    before = stack.copy()
    _push_count(stack, [number])
    assert stack.bits - before.bits < 8 + 2 * np.log2(2 * number)
    assert _pop_count(stack) == [number] and stack == before


# --- round trips ------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2])
def test_from_nothing_to_nothing_at_the_cost_of_the_evidence(levels):
    """With exact posteriors the stack grows by -log2 p(x), whatever z was drawn: no initial bits, and no more than the count beyond."""
    hidden = Hidden(dims=300, dull=0.1, levels=levels)
    split, values = hidden.split(), hidden.sample(20)
    codec, grown, ideal = arib(*split), [], []
    for x in values:
        stack = BitStack()
        loan = lend(split, stack, x)
        grown.append(stack.bits), ideal.append(hidden.exact_bits(x))
        assert loan.filler == 0 and loan.rest >= loan.lent > 100
        assert equal(codec.pop(stack), x) and stack == BitStack()
        assert abs(grown[-1] - ideal[-1]) < 3
        assert abs(codec.bits(x) - ideal[-1]) < 1
    assert sum(grown) == pytest.approx(sum(ideal), rel=0.002)


def test_values_one_on_top_of_the_other_and_what_lies_below_stays():
    hidden = Hidden(dims=50)
    codec, values, stack = arib(*hidden.split()), hidden.sample(30), BitStack.random(333, seed=9)
    before = stack.copy()
    for x in values:
        codec.push(stack, x)
    stack = BitStack.from_bytes(stack.to_bytes())
    assert all(equal(codec.pop(stack), x) for x in values[::-1]) and stack == before


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(most=12), coded(most=12), coded(most=12), coded(most=12), st.booleans(), st.booleans(), st.sampled_from([0, 64, 3000]), st.integers(0, 2**32))
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
    assert min(loan) >= 0 and loan.filler % 32 == 0 and (below < 3000 or loan.filler == 0 or loan.lent > 1000)
    assert equal(arib(*split).pop(stack), (x, y)) and stack == before


@settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(coded(), stacks())
def test_mode_first_is_the_same_distribution_turned_round(pair, stack):
    """Round trip, cost, the mode at 0 and so the first that zeros give; for every kind of model with a row per symbol."""
    cdf, x = pair
    if cdf.shape is None:
        cdf = Categorical(np.tile(cdf.frequencies(), (len(x), 1)), cdf.lower)
    codec, before = mode_first(cdf), stack.copy()
    assert codec.bits(x) == pytest.approx(float(cdf.bits(x).sum()), abs=1e-9)
    codec.push(stack, x)
    popped = codec.pop(stack)
    assert np.array_equal(popped, x) and popped.dtype == np.int32 and stack == before
    zeros = BitStack()
    zeros.push(np.zeros(2 * len(x) + 8, dtype=np.int32), Uniform(1 << 16))
    assert codec.pop(zeros)[0] == (cdf.frequencies().argmax(-1) + cdf.lower)[0]
    with pytest.raises(InvalidInput, match="outside the model's support"):
        codec.push(stack, np.asarray(x) + cdf.size)
    assert stack == before


def test_zeros_give_modes_and_not_the_lowest_bin():
    """What a filler alone tells the posterior to draw: with `mode_first` its best guess, without it the bottom of the support."""
    means = np.array([-16 * 20, 0, 16 * 50])
    cdf = logistic(means, np.full(3, 60), 256, -128)
    for codec, expected in [(mode_first(cdf), [-20, 0, 50]), (independent(cdf), [-128] * 3)]:
        stack = BitStack()
        _fill(stack, [5])
        assert stack.bits == 160 and codec.pop(stack).tolist() == expected


# --- when the loan is too small ---------------------------------------------------------------------------------------------------------------

def by_hand(split, x, words):
    """The four steps over `words` words of filler, on an empty stack; OutOfBits where these do not suffice."""
    stack = BitStack()
    if words:
        stack.push(np.zeros(2 * words, dtype=np.int32), Uniform(1 << 16))
    split.rest(x[0]).push(stack, x[1])
    z = split.posterior(x[0]).pop(stack)
    split.likelihood(z).push(stack, x[0])
    split.prior.push(stack, z)
    _push_count(stack, [words])
    return stack


@pytest.mark.parametrize("levels", [1, 2])
@pytest.mark.parametrize("dull", [0.2, 0.97, 0.9999])
def test_the_filler_is_the_least_that_suffices(dull, levels):
    """Second parts that say less and less: the same words as by hand with that many, and OutOfBits with one less."""
    hidden, fillers = Hidden(dims=200, sharp=0.2, dull=dull, levels=levels), []
    split = hidden.split()
    for x in hidden.sample(6):
        stack = BitStack()
        loan = lend(split, stack, x)
        words = loan.filler // 32
        fillers.append(words)
        assert stack == by_hand(split, x, words)
        if words:
            with pytest.raises(OutOfBits):
                by_hand(split, x, words - 1)
            assert levels == 2 or loan.rest + loan.filler - 32 < loan.lent <= loan.rest + loan.filler
        assert equal(arib(*split).pop(stack), x) and stack == BitStack()
    assert all(fillers) if dull > 0.9 else not any(fillers) or levels == 2  # the z above may run short where that below does not


@pytest.mark.parametrize("dull, shortage", [(0.1, False), (0.9999, True)])
def test_a_shortage_costs_about_what_is_short(dull, shortage):
    """Growth beyond the ideal: nothing where enough is lent; lent - rest otherwise, the last word and the count apart. `bits` knows no filler."""
    hidden = Hidden(dims=200, sharp=0.2, dull=dull)
    split, codec = hidden.split(), arib(*hidden.split())
    for x in hidden.sample(6):
        stack = BitStack()
        loan = lend(split, stack, x)
        assert (loan.lent > loan.rest) == shortage == (loan.filler > 0)
        extra = stack.bits - hidden.exact_bits(x)
        short = max(0, loan.lent - loan.rest)
        assert short - 3 < extra < short + (32 + 20 if shortage else 3)
        if not shortage:
            assert stack.bits == pytest.approx(codec.bits(x), abs=3)


def test_modes_first_make_a_shortage_cheap():
    """A flat image: nothing in the second part. With the mode at 0 the first latents are modes, the others as if drawn from q, and the stream is
    as long as z under the prior; without it the lowest bin comes again and again, 24 bits each: an interval of a single count leaves zeros zeros."""
    dims, cost, lowest = 400, {}, {}
    q, p = logistic(np.zeros(dims, dtype=np.int32), np.full(dims, 50), 96, -48), logistic(np.zeros(dims, dtype=np.int32), np.full(dims, 60), 96, -48)
    entropy = float((-(f := q.frequencies()[0] / TOTAL) * np.log2(f)).sum()) * dims
    for name, posterior in [("modes", mode_first(q)), ("bottom", independent(q))]:
        split, stack, x = Split(independent(p), lambda z: uniform(256, 1), lambda v: posterior, lambda v: uniform(1, 1)), BitStack(), ([3], [0])
        loan = lend(split, stack, x)
        cost[name] = stack.bits
        assert loan.rest == 0 and loan.filler - 32 < loan.lent <= loan.filler
        zeros = BitStack()
        _fill(zeros, [loan.filler // 32])
        z = posterior.pop(zeros)
        lowest[name] = (z == -48).mean()
        assert cost[name] == pytest.approx(p.bits(z).sum() + 8 + loan.filler - loan.lent, abs=40)
        assert equal(arib(*split).pop(stack), x) and stack == BitStack()
        if name == "modes":
            assert not z[:2].any() and loan.lent == pytest.approx(entropy, rel=0.1) and 1 < z.std() < 3
    assert lowest["modes"] == 0 and lowest["bottom"] > 0.1 and cost["bottom"] > 2 * cost["modes"]


def test_too_large_a_shortage_is_refused():
    """More than half a million words: OutOfBits, and the stack as it was."""
    split = Split(uniform(1 << 16, 1 << 20), lambda z: uniform(2, 1), lambda x: uniform(1 << 16, 1 << 20), lambda x: uniform(2, 1))
    stack = BitStack.random(100)
    before = stack.copy()
    with pytest.raises(OutOfBits, match="half a million"):
        arib(*split).push(stack, ([1], [1]))
    assert stack == before


# --- lanes ------------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("levels", [1, 2])
def test_lanes_with_fillers_of_their_own_are_single_stacks(levels):
    """Five values at a time, some of which lend enough: each lane holds what coding its value alone gives."""
    hidden, dims = Hidden(dims=60, sharp=0.3, dull=0.9, levels=levels), 60
    values = [x for seed in range(5) for x in hidden.sample(1, seed)]
    rng = np.random.default_rng(0)
    values[1] = (values[1][0], rng.integers(0, STATES, dims))  # unexpected second parts lend plenty
    values[4] = (values[4][0], rng.integers(0, STATES, dims))
    lanes = Lanes([BitStack() for _ in values])
    batch = tuple(np.stack(part) for part in zip(*values))
    plain = hidden.split()
    tile = lambda row: independent(Categorical(np.tile(row, (5, dims, 1))))  # noqa: E731
    wide = plain._replace(prior=tile(hidden.prior))
    if levels == 2:
        below, over = lambda z: independent(Categorical(hidden.above[z])), lambda z: mode_first(Categorical(hidden.over[z]))
        wide = plain._replace(prior=bit_swap(tile(hidden.top), [below], [over]))
    loan = lend(wide, lanes, batch)
    assert all(part.shape == (5,) and part.dtype == np.int64 for part in loan)
    assert loan.filler[1] == loan.filler[4] == 0 and len(set(loan.filler.tolist())) >= 3
    for lane, x in enumerate(values):
        stack = BitStack()
        assert lend(plain, stack, x) == tuple(int(part[lane]) for part in loan) and stack == lanes.stacks[lane]
        assert equal(arib(*plain).pop(stack), x)
    assert equal(arib(*wide).pop(lanes), batch) and lanes == Lanes([BitStack() for _ in values])


# --- errors -----------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("x", [[[1], [2], [3]], 5, np.zeros((2, 1), dtype=int), "ab"[:1], ([1],)])
def test_only_pairs_are_taken(x):
    with pytest.raises(InvalidInput, match="a pair"):
        arib(*toy()).push(BitStack(), x)


@pytest.mark.parametrize("x", [([256], [1]), ([1], [256]), ([1, 2], [1]), ([1], [1.5]), ([-1], [0])])
@pytest.mark.parametrize("bits", [0, 500])
def test_a_push_that_fails_changes_nothing(x, bits):
    """A symbol outside the support or of another number, in either part: also after z has been popped, or a filler laid."""
    for z in (1, 50):
        stack = BitStack.random(bits, 3)
        before = stack.copy()
        with pytest.raises(InvalidInput):
            arib(*toy(z=z)).push(stack, x)
        assert stack == before


@pytest.mark.parametrize("bits", [0, 5, 13, 21])
def test_a_pop_that_runs_out_changes_nothing(bits):
    stack = BitStack.random(bits, 1)
    before = stack.copy()
    with pytest.raises((OutOfBits, CorruptFile)):
        for _ in range(4):
            arib(*toy()).pop(stack)
            before = stack.copy()
    assert stack == before


def test_a_latent_that_no_push_can_have_drawn_is_corrupt():
    """The prior allows more of z than the posterior does."""
    split = toy()._replace(posterior=lambda x: mode_first(Categorical(np.array([[TOTAL // 4] * 4]))))
    stack = BitStack.random(1000)
    before = stack.copy()
    with pytest.raises(CorruptFile, match="codec has not written"):
        for _ in range(40):
            arib(*split).pop(stack)
            before = stack.copy()
    assert stack == before


def test_a_filler_that_is_not_zero_is_corrupt():
    """Twenty words of something else laid under the loan."""
    split, stack, x = toy(z=100), BitStack(), ([1], [1])
    stack.push(np.arange(1, 41, dtype=np.int32), Uniform(1 << 16))
    split.rest(x[0]).push(stack, x[1])
    z = uniform(256, 50).pop(stack)
    for codec, value in [(uniform(256, 50), z), (split.likelihood(z), x[0]), (uniform(256, 50), z)]:
        codec.push(stack, value)
    _push_count(stack, [20])
    before, half = stack.copy(), arib(uniform(256, 50), split.likelihood, lambda x: uniform(256, 50), split.rest)
    stack = by_hand(toy(z=50), x, 20)
    assert equal(half.pop(stack), x)
    with pytest.raises(CorruptFile):
        half.pop(before)


def test_a_damaged_stream_never_passes_for_another():
    """One bit of every byte of a stream is turned: what comes out is an error, or other values, or something is left over."""
    hidden = Hidden(dims=100, sharp=0.2, dull=0.9999)
    split, (x,) = hidden.split(), hidden.sample(1)
    codec, stack = arib(*split), BitStack()
    loan = lend(split, stack, x)
    data, errors = stack.to_bytes(), 0
    assert loan.filler > 0
    for place in range(len(data)):
        damaged = bytearray(data)
        damaged[place] ^= 1 << place % 8
        try:
            other = BitStack.from_bytes(bytes(damaged))
            before = other.copy()
            assert not equal(codec.pop(other), x) or other != BitStack()
        except (CorruptFile, OutOfBits):
            errors += 1
            assert place == len(data) - 1 or other == before
    assert errors > 0.5 * len(data)


def test_nearly_empty_stacks():
    """Found by trial: enough with plenty of filler under it, not enough with none, and never tried with one word."""
    def stop(*_):
        raise TimeoutError
    rng, before = np.random.default_rng(0), signal.signal(signal.SIGALRM, stop)
    try:
        for _ in range(1000):
            prior, q, rest, likelihood = (Categorical(rng.dirichlet(np.full(16, 0.5), n)) for n in (3, 3, 2, 3))
            split = Split(independent(prior), lambda z: independent(likelihood), lambda x: mode_first(q), lambda x: independent(rest))
            stack, x = BitStack.random(int(rng.integers(0, 4)), int(rng.integers(1 << 30))), (rng.integers(0, 16, 3), rng.integers(0, 16, 2))
            start = stack.copy()
            signal.setitimer(signal.ITIMER_REAL, 5)
            lend(split, stack, x)
            signal.setitimer(signal.ITIMER_REAL, 0)
            assert equal(arib(*split).pop(stack), x) and stack == start
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)

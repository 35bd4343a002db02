"""The stack of bits: what is pushed comes back, what is below stays, and no mistake changes anything."""

import hashlib
from unittest import mock

import numpy as np
import pytest
from hypothesis import given, settings

from shvc_lib.coding import TOTAL, BitStack, Categorical, Uniform, bitstack, laplace, logistic, logistic_mixture
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits
from strategies import KINDS, coded, count_of, random_model, random_symbols, stacks

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too


@given(coded(), stacks())
@settings(max_examples=150, deadline=None)
def test_pop_inverts_push(model, stack):
    cdf, symbols = model
    before = stack.copy()
    stack.push(symbols, cdf)
    grown = stack.bits - before.bits
    assert grown <= cdf.bits(symbols).sum() + 2
    popped = stack.pop(cdf, count_of(cdf, symbols.size))
    assert popped.dtype == np.int32 and popped.tolist() == symbols.tolist()
    assert stack == before and stack.to_bytes() == before.to_bytes() and stack.bits == before.bits


@given(coded(), stacks())
@settings(max_examples=80, deadline=None)
def test_push_inverts_pop(model, stack):
    """The stack as a sampler: bits become symbols, and the symbols give the very bits back."""
    cdf, symbols = model
    before = stack.copy()
    try:
        popped = stack.pop(cdf, count_of(cdf, symbols.size))
    except OutOfBits:
        assert stack == before
        return
    assert cdf.offsets(popped).max() < cdf.size
    stack.push(popped, cdf)
    assert stack == before


@given(coded(most=200))
@settings(max_examples=100, deadline=None)
def test_actual_is_at_most_ideal_plus_64(model):
    cdf, symbols = model
    stack = BitStack()
    stack.push(symbols, cdf)
    ideal = cdf.bits(symbols).sum()
    assert ideal * (1 - 2**-8) - 1 <= stack.bits <= 8 * len(stack.to_bytes()) <= ideal + 64
    assert 8 * len(stack.to_bytes()) <= stack.bits + 40


def test_a_million_symbols_cost_what_they_should():
    """Drawn from the model, roundings cancel. The worst message repeats the symbol with the highest interval: there they add up."""
    rng, stack = np.random.default_rng(1), BitStack()
    cdf = Categorical(rng.exponential(size=100))
    symbols = rng.choice(100, 1_000_000, p=cdf.frequencies() / TOTAL)
    stack.push(symbols, cdf)
    assert 0 <= 8 * len(stack.to_bytes()) - cdf.bits(symbols).sum() <= 64
    worst, cdf = BitStack(), Uniform(3)
    worst.push(np.full(1_000_000, 2), cdf)
    ideal = cdf.bits(np.full(1_000_000, 2)).sum()
    assert 8 * len(worst.to_bytes()) <= ideal * (1 + 2**-8) + 64  # an interval's rounding is at most 2^-8 of its bits


@given(stacks())
@settings(max_examples=60, deadline=None)
def test_bytes_and_copies(stack):
    data = stack.to_bytes()
    again = BitStack.from_bytes(data)
    assert again == stack and again.bits == stack.bits and again.to_bytes() == data
    assert BitStack.from_bytes(bytearray(data)) == stack == BitStack.from_bytes(np.frombuffer(data, np.uint8))
    copy = stack.copy()
    copy.push([3], Uniform(7))
    assert copy != stack and stack.to_bytes() == data
    copy.restore(stack)
    assert copy == stack
    copy.push([3], Uniform(7))
    assert copy != stack and stack.to_bytes() == data and repr(stack) == f"BitStack({stack.bits} bits)"


@pytest.mark.parametrize("bits", [0, 1, 5, 31, 32, 33, 64, 1000])
def test_random_holds_what_was_asked(bits):
    stack = BitStack.random(bits, seed=9)
    assert stack.bits == bits and stack == BitStack.random(bits, seed=9) and stack != BitStack.random(bits, seed=10)
    if bits:
        ones = stack.pop(Categorical([0.5, 0.5]), bits)  # and no more than that
        assert stack.bits == 0 and (bits < 100 or 0.4 < ones.mean() < 0.6)
    with pytest.raises(OutOfBits):
        stack.pop(Categorical([0.5, 0.5]), 1)


@pytest.mark.parametrize("data", [b"", b"\1", b"abcd", bytes(5), bytes(100), b"\1\2\3\4\0", b"\1\0\0\0\1\0\0\0"])
def test_from_bytes_rejects_what_no_stack_writes(data):
    with pytest.raises(CorruptFile):
        BitStack.from_bytes(data)


@pytest.mark.parametrize("data", ["hello world", 12, None, [1, 2, 3, 4, 5], 1.5])
def test_from_bytes_takes_bytes(data):
    with pytest.raises(InvalidInput):
        BitStack.from_bytes(data)


MODELS = {
    "uniform": Uniform(256), "one row": Categorical([0.5, 0.25, 0.25]), "rows": Categorical(np.ones((60, 4))),
    "logistic": logistic(np.zeros(60, int) + 2000, np.full(60, 90)), "laplace, size 2": laplace(np.zeros(60, int) + 8, np.full(60, 90), 2),
    "mixture, size 3000": logistic_mixture(np.full((60, 2), 9000), np.full((60, 2), 150), np.full((60, 2), 2048), 3000),
    "windows": Categorical(np.ones((60, 9)), np.arange(60)), "blocks": Categorical(np.ones((60, 1 << 15))),
}


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("bits", [0, 1, 31, 32, 40])
def test_out_of_bits_leaves_the_stack(name, bits):
    """60 symbols cost more than 40 bits under each model; "blocks" and size 3000 run out in a later internal block."""
    cdf = MODELS[name]
    stack = BitStack.random(bits, seed=1) if bits else BitStack()
    before, data = stack.copy(), stack.to_bytes()
    for _ in range(2):
        with pytest.raises(OutOfBits, match=f"holds {bits} bits"):
            stack.pop(cdf, count_of(cdf, 60))
        assert stack == before and stack.to_bytes() == data and stack.bits == bits


@pytest.mark.parametrize("name", MODELS)
def test_what_was_pushed_survives_a_greedy_pop(name):
    """The stack holds the last 59 of 60 symbols: popping all 60 fails, far into the pop, and then the 59 are still there."""
    cdf, stack = MODELS[name], BitStack()
    rest = Categorical(cdf.frequencies()[:59], cdf.lower[:59] if np.ndim(cdf.lower) else cdf.lower) if cdf.shape else cdf
    symbols = rest.lower + np.arange(59) % 2
    stack.push(symbols, rest)
    before = stack.copy()
    with pytest.raises(OutOfBits):
        stack.pop(cdf, count_of(cdf, 60 if cdf.shape else 200))
    assert stack == before and stack.pop(rest, count_of(rest, 59)).tolist() == symbols.tolist() and stack == BitStack()


def test_out_of_bits_across_shared_row_blocks():
    """More symbols than one internal block of a shared row, popped from a stack that lasts for a block and a half."""
    cdf = Categorical([0.5, 0.5])
    stack = BitStack.random(200_000, seed=2)
    before = stack.copy()
    with pytest.raises(OutOfBits):
        stack.pop(cdf, 10**6)
    assert stack == before
    ones = stack.pop(cdf, 200_000)
    stack.push(ones, cdf)
    assert stack == before
    with pytest.raises(InvalidInput):
        stack.pop(cdf, 10**13)  # no attempt at an array of that size


BAD_SYMBOLS = [1.0, [1.5], np.array([np.nan]), [], np.array([], int), [True], np.array([True, False]), "a", ["a"], None, [None], [[1], [2, 3]], [-1], [256],
               [2**31], [2**63 - 1], [-2**63], [2**70], np.array([2**64 - 1], np.uint64), np.array([2**64 - 3], np.uint64), [1 + 2j],
               np.array(["2020"], "M8[Y]"), {"a": 1}, [0, 0, 255, 256], np.array([-1], np.int8)]


@pytest.mark.parametrize("symbols", BAD_SYMBOLS, ids=repr)
def test_bad_symbols(symbols):
    for cdf in (Uniform(256), Categorical(np.ones(256)), Uniform(255, lower=1)):
        refuses(lambda stack: stack.push(symbols, cdf))
        for method in (cdf.bits, cdf.intervals, cdf.offsets):
            refuses(lambda stack: method(symbols))
    shaped = logistic([0], [0])
    refuses(lambda stack: stack.push(symbols, shaped))
    refuses(lambda stack: shaped.bits(symbols))


def refuses(action):
    """InvalidInput, one line, and the stack is as it was. (The mark above turns numpy's warnings into failures.)"""
    stack = BitStack.random(77, seed=3)
    before = stack.to_bytes()
    with pytest.raises(InvalidInput) as error:
        action(stack)
    assert "\n" not in str(error.value) and stack.to_bytes() == before


def test_unsigned_numbers_do_not_wrap_around():
    """2^64 - 1 is not -1, though it is in int64."""
    for cdf in (Uniform(4, lower=-2), Categorical(np.ones((1, 4)), lower=[-2])):
        refuses(lambda stack: stack.push(np.array([2**64 - 1], np.uint64), cdf))
        refuses(lambda stack: stack.push(np.array([2**32 - 1], np.uint64), cdf))


def test_wrong_numbers_and_shapes():
    cdf = logistic(np.zeros((4, 3), int), np.full((4, 3), 50))
    for shape in ((11,), (13,), (3, 4), (2, 6), (4, 3, 2)):
        refuses(lambda stack: stack.push(np.zeros(shape, int), cdf))
    for count in (0, 11, 13, 12.0, "12", True, np.nan, [12]):
        refuses(lambda stack: stack.pop(cdf, count))
    for count in (None, 0, -1, 2.0, 2.5, np.nan, np.inf, "2", "x", [2], True):
        refuses(lambda stack: stack.pop(Uniform(4), count))
    for other in (None, 5, [0.5, 0.5], Uniform, np.ones(4)):
        refuses(lambda stack: stack.push([1], other))
        refuses(lambda stack: stack.pop(other, 1))
    for arguments in ((-1,), (1.5,), ("8",), (None,), (8, -1), (8, 0.5), (True,)):
        refuses(lambda stack: BitStack.random(*arguments))


@pytest.mark.parametrize("dtype", [np.int8, np.uint8, np.int16, np.uint16, np.int32, np.uint32, np.int64, np.uint64, ">i4"])
def test_any_integer_dtype_and_memory_order(dtype):
    cdf = logistic(np.full((4, 5), 700), np.full((4, 5), 80))
    base = np.random.default_rng(0).integers(0, 100, (8, 5)).astype(dtype)
    expected = BitStack()
    expected.push(base[::2].astype(np.int32), cdf)
    for symbols in (base[::2], np.asfortranarray(base[::2]), base[::2].copy(), base[::2].tolist(), base[::2].reshape(-1)):
        stack = BitStack()
        stack.push(symbols, cdf)
        assert stack == expected and stack.pop(cdf, 20).tolist() == base[::2].tolist() and stack == BitStack()


def test_scalars_and_shapes():
    stack = BitStack()
    for cdf, symbols in ((logistic(np.array(7 * 16), np.array(40)), 9), (logistic(np.zeros((2, 1, 3), int), np.zeros((2, 1, 3), int)), np.ones((2, 1, 3), int))):
        stack.push(symbols, cdf)
        popped = stack.pop(cdf)
        assert isinstance(popped, np.ndarray) and popped.dtype == np.int32 and popped.shape == cdf.shape and (popped == symbols).all()
    stack.push(np.int8(3), Uniform(5))
    assert stack.pop(Uniform(5), np.int64(1)).tolist() == [3] and stack == BitStack()


@pytest.mark.parametrize("masses", [[TOTAL - 1, 1], [1, TOTAL - 1], [TOTAL - 2, 1, 1], [1, TOTAL - 2, 1], [1, 1, TOTAL - 2], [1, 1, 1, TOTAL - 3]])
def test_extreme_masses(masses):
    """A mass of 2^24 - 1, a mass of 1, at both ends and in the middle."""
    cdf = Categorical(np.array(masses))
    for below in (BitStack(), BitStack.random(500)):
        symbols, stack = np.random.default_rng(0).integers(0, len(masses), 300), below.copy()
        stack.push(symbols, cdf)
        assert stack.pop(cdf, 300).tolist() == symbols.tolist() and stack == below


def test_a_certain_symbol_costs_nothing():
    for cdf in (Uniform(1, lower=5), Categorical([1.0], lower=5), logistic([3], [3], size=1, lower=5)):
        stack = BitStack()
        stack.push([5], cdf)
        assert stack == BitStack() and cdf.bits([5]).tolist() == [0] and stack.pop(cdf, 1).tolist() == [5]
        refuses(lambda stack: stack.push([6], cdf))


def test_the_largest_support():
    rng = np.random.default_rng(0)
    for cdf in (Uniform(65536), Categorical(rng.exponential(size=65536)), logistic(rng.integers(0, 2**20, 9), rng.integers(0, 192, 9), 65536)):
        symbols, stack = np.append(rng.integers(0, 65536, 7), [0, 65535]), BitStack()
        stack.push(symbols, cdf)
        assert stack.pop(cdf, 9).tolist() == symbols.tolist() and stack == BitStack()
        assert cdf.masses(0, 9).sum(-1).tolist() == [TOTAL] * len(cdf.masses(0, 9)) and cdf.masses(0, 9).min() >= 1


def test_golden_bytes():
    """The format, pinned. Integer parameters only, so every machine and every numpy writes these bytes."""
    draw, stack = np.random.RandomState(5), BitStack()
    for size in (1, 2, 7, 256, 1000):
        means, scales = draw.randint(-2000, 20000, (50, 3)), draw.randint(0, 192, (50, 3))
        symbols = draw.randint(0, size, 50)
        stack.push(symbols, logistic_mixture(means, scales, np.tile([1000, 96, 3000], (50, 1)), size))
        stack.push(symbols, laplace(means[:, 0], scales[:, 0], size))
        stack.push(symbols, Uniform(size))
    assert hashlib.sha256(stack.to_bytes()).hexdigest() == "222020e5129204cc6165eab6cb7644249d395925a6422d4572dd8e16ee7d2d66"


@pytest.mark.parametrize("seed", range(20))
def test_where_the_stack_is_cut_cannot_be_seen(seed):
    """A coder that holds only a few words and everything else in chunks, beside one that holds all: equal words, errors and copies."""
    rng = np.random.default_rng(seed)
    pairs = [(BitStack.random(1000, seed), 1 << 20), (BitStack.random(1000, seed), int(rng.integers(2, 6)))]
    kept = [stack.copy() for stack, _ in pairs]
    for _ in range(100):
        action = rng.choice(["push", "pop", "copy", "restore"], p=[0.45, 0.45, 0.05, 0.05])
        number = int(rng.integers(1, 60))
        cdf = random_model(rng, rng.choice(KINDS), int(rng.choice([2, 17, 300])), number)
        symbols, answers = random_symbols(rng, cdf, number), []
        for index, (stack, top) in enumerate(pairs):
            with mock.patch.object(bitstack, "_TOP", top):
                if action == "push":
                    stack.push(symbols, cdf)
                    assert stack._ans.num_words() <= 2 * top
                elif action == "pop":
                    try:
                        answers.append(stack.pop(cdf, number).tolist())
                    except OutOfBits as error:
                        answers.append(str(error))
                elif action == "copy":
                    kept[index] = stack.copy()
                else:
                    stack.restore(kept[index])
        (whole, _), (cut, _) = pairs
        assert answers[:1] == answers[1:] and whole == cut and whole.bits == cut.bits and kept[0] == kept[1]


def test_a_copy_of_a_long_stack_is_short():
    stack = BitStack.random(1 << 20)
    stack.push([1, 2, 3], Uniform(4))
    assert stack.copy()._ans.num_words() < stack.words().size / 3 and stack.copy() == stack


@pytest.mark.parametrize("order", ["C", "F", "moved axis"])
def test_a_table_may_lie_in_memory_in_any_order(order):
    """One row for every symbol: what was pushed comes back, and the bytes are the same."""
    rng = np.random.default_rng(0)
    table = rng.dirichlet(np.ones(4), 36)
    laid = {"C": table, "F": np.asfortranarray(table), "moved axis": np.moveaxis(np.ascontiguousarray(table.T), 0, -1)}[order]
    symbols, stack, plain = rng.integers(0, 4, 36, dtype=np.int32), BitStack(), BitStack()
    stack.push(symbols, Categorical(laid))
    plain.push(symbols, Categorical(table))
    assert stack.to_bytes() == plain.to_bytes()
    assert np.array_equal(stack.pop(Categorical(laid)), symbols)

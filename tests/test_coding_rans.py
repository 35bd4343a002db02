"""The teaching coder, and that constriction's words are its words."""

import hashlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shvc_lib.coding import PRECISION, RANS, TOTAL, BitStack, Categorical
from shvc_lib.errors import InvalidInput, OutOfBits
from strategies import KINDS, count_of, random_model, random_symbols

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
SIZES = (1, 2, 3, 5, 64, 255, 256, 257, 1000, 4096)


def push(coder, symbols, cdf):
    """The teaching coder takes one symbol at a time; the first is pushed last, so that it is popped first."""
    for start, freq in reversed(list(zip(*cdf.intervals(symbols)))):
        if cdf.size > 1:
            coder.push(start, freq)


def pop(coder, cdf, number):
    """Decode by looking `peek` up in the cumulative masses: nothing in common with what BitStack does."""
    masses = cdf.masses(0, number)
    symbols = []
    for i in range(number):
        row = masses[i % len(masses)]
        ends = np.cumsum(row)
        x = int(np.searchsorted(ends, coder.peek(), side="right"))
        if cdf.size > 1:
            coder.pop(ends[x] - row[x], row[x])
        symbols.append(x)
    return np.array(symbols) + cdf.lower


@pytest.mark.parametrize("kind", KINDS)
def test_same_words_as_constriction(kind):
    """8 kinds x 125 = 1000 random models; pushes and pops interleaved; from the empty stack and from random ones."""
    rng = np.random.default_rng(KINDS.index(kind))
    pushed, partly = 0, 0
    sizes = [SIZES[i * len(SIZES) // 125] for i in range(125)]  # grouped, so that tables are made once per size
    for model, size in enumerate(sizes):
        if model % 5 == 0:  # a new pair of coders for every fifth model
            stack = BitStack() if model % 2 else BitStack.random(int(rng.integers(0, 3000)), seed=model)
            coder, below = RANS(stack.words()), stack.copy()
            layers = []
        number = int(rng.integers(1, 30 if size < 1000 else 8))
        cdf = random_model(rng, kind, size, number)
        symbols = random_symbols(rng, cdf, number)
        stack.push(symbols, cdf)
        push(coder, symbols, cdf)
        layers.append((symbols, cdf))
        pushed += 1
        assert stack.words().tolist() == coder.words()
        if rng.random() < 0.3 or model % 5 == 4:
            for symbols, cdf in [layers.pop() for _ in range(len(layers) if model % 5 == 4 else 1)]:
                popped = stack.pop(cdf, count_of(cdf, symbols.size))
                assert popped.tolist() == symbols.tolist() == pop(coder, cdf, symbols.size).tolist()
                assert stack.words().tolist() == coder.words()
                partly += model % 5 != 4
        if model % 5 == 4:
            assert stack == below
    assert pushed == 125 and partly > 10


def test_the_arithmetic_by_hand():
    """x' = (x // f) 2^24 + start + x % f, from x = 2^32."""
    coder = RANS()
    coder.push(5, 3)
    x = (2**32 // 3) * 2**24 + 5 + 2**32 % 3
    assert coder.words() == [x % 2**32, x >> 32]
    coder.push(0, 1 << 10)  # 2^54 or more would overflow: a word moves out first
    assert len(coder.words()) == 3 and coder.words()[0] == x % 2**32


@given(st.lists(st.tuples(st.integers(0, TOTAL - 1), st.integers(1, TOTAL)).map(lambda p: (p[0], min(p[1], TOTAL - p[0]))), max_size=60),
       st.lists(st.integers(0, 2**32 - 1), max_size=4), st.integers(1, 2**32 - 1))
@settings(max_examples=150, deadline=None)
def test_pop_inverts_push(intervals, below, top):
    coder = RANS([*below, top, top])
    before = coder.words()
    for start, freq in intervals:
        coder.push(start, freq)
        assert 2**32 <= coder.head < 2**64 and start <= coder.peek() < start + freq
    for start, freq in reversed(intervals):
        coder.pop(start, freq)
    assert coder.words() == before


def test_numpy_integers_do_not_overflow():
    """`intervals` gives int32 arrays: their elements must be as good as Python's integers."""
    plain, numpy = RANS(), RANS()
    for start, freq in ((7, 1), (TOTAL - 9, 9), (0, TOTAL - 1), (1, 2)):
        plain.push(start, freq)
        numpy.push(np.int32(start), np.int32(freq))
    assert plain.words() == numpy.words()


def test_empty_raises_and_stays_empty():
    coder = RANS()
    with pytest.raises(OutOfBits):
        coder.pop(0, TOTAL // 2)
    assert coder.words() == [0, 1] == RANS().words() == BitStack().words().tolist()


@pytest.mark.parametrize("start, freq", [(-1, 5), (0, 0), (0, TOTAL + 1), (TOTAL, 1), (TOTAL - 1, 2), (0.0, 3), (0, 2.5), (None, 1), ("0", 1),
                                         (True, 1), (float("nan"), 1), ([0], [1])])
def test_bad_intervals(start, freq):
    coder = RANS([1, 2, 3])
    for action in (coder.push, coder.pop):
        with pytest.raises(InvalidInput) as error:
            action(start, freq)
        assert "\n" not in str(error.value) and coder.words() == [1, 2, 3]


def test_pop_checks_the_interval():
    coder = RANS()
    coder.push(100, 50)
    words = coder.words()
    with pytest.raises(InvalidInput, match="next symbol"):
        coder.pop(200, 50)
    assert coder.words() == words


@pytest.mark.parametrize("words", [[1], [], [1, 0], [1, 2**32], [-1, 1], [1.5, 2.0], ["a", "b"], None, 7, [[1, 2], [3]], [True, True], [2**70, 1]])
def test_bad_words(words):
    with pytest.raises(InvalidInput):
        RANS(words)


def test_golden_words():
    """The format, pinned: a stream written by one version is read by the next."""
    rng = np.random.RandomState(3)  # the legacy generator's stream is frozen by numpy's policy
    coder, cdf = RANS(), Categorical(np.array([1, 2, 1000, TOTAL - 1003]))
    push(coder, rng.randint(0, 4, 500), cdf)
    digest = hashlib.sha256(np.array(coder.words(), dtype="<u4").tobytes()).hexdigest()
    assert PRECISION == 24 and digest == "f104bae9a09a148d0992a52685528c546bf3e2958c72cb78a55ecc3ad57e0664"

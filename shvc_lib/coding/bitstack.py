"""A stack of bits: push symbols under a model, pop them under the same model, last in first out.

The bytes are those of the from-scratch coder in `rans`; the arithmetic is done by `constriction` (Bamler 2022), at ten to a hundred
million symbols per second. Three things are added to it.

*Integers.* Models are `IntegerCDF`s. constriction makes frequencies w_i + 1 of float weights w_i >= 0 that sum to 2^24 minus their
number; passing integers as floats makes that exact. To push, only the symbol's own interval matters, so each symbol is coded with a row of three
weights (below, the symbol, above) whatever the size of its support.

*Emptiness.* constriction's coder decodes for ever: from an exhausted message it returns the symbol at quantile 0. Here an empty stack
is a head of 2^32, every message keeps its head at 2^32 or above, and a pop that falls below raises `OutOfBits`.

*All or nothing.* Everything is validated before the coder is touched, and a pop that runs out of bits pushes back what it
took. After any error the stack is as it was.

*Copies that cost nothing.* constriction's coder holds the top of the stack; what lies deeper is kept in chunks that nobody writes to and that
copies share. So a copy takes as long from a chain of ten thousand images as from one, and codecs take one before they try something
(`codec.all_or_nothing`). Taught in chapter 1, *Codes*; chapter 2 is about what stacks make possible.
"""

import math
import sys
from functools import lru_cache
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptFile, InvalidInput, OutOfBits
from . import tables
from .cdf import IntegerCDF
from .checks import integer
from .rans import EMPTY, TOTAL, WORD

_SENTINEL_BITS = WORD  # valid bits that constriction counts for the empty head 2^32
MAX_COUNT = 1 << 31  # symbols that one pop may ask for
_TOP = 1 << 12  # words that stay in the coder when the rest becomes a chunk, which happens when there are more than twice as many
_MANY, _FEW = 1 << 19, 1 << 11  # masses of a pop, and bits on a stack, from which on compiled code searches for symbols; masses, if it is loaded already
_BLOCK = 1 << 13  # how many symbols at a time
_TABLE_ENTRIES = 1 << 17  # masses tabulated at a time when popping: 512 KiB, stays in the cache


def _block(cdf):
    """How many symbols to pop at a time."""
    return _TABLE_ENTRIES if cdf.shape is None else max(1, _TABLE_ENTRIES // cdf.size)


@lru_cache(maxsize=None)
def _constriction():
    """The library's parts, imported with the first stack: where models are only trained, nothing is coded and it may be missing."""
    import constriction

    categorical = constriction.stream.model.Categorical
    return SimpleNamespace(coder=constriction.stream.stack.AnsCoder, row=lambda weights: categorical(weights, perfect=False),
                           rows=categorical(perfect=False), lazy_rows=categorical(perfect=False, lazy=True))


def _coder(words):
    return _constriction().coder(np.ascontiguousarray(words, dtype=np.uint32))


class _Chunk(NamedTuple):
    """Words below the coder's; `below`: the chunk that they lie on, or None; `depth`: words in all chunks from here down."""

    words: np.ndarray
    below: Any
    depth: int


def compiled_for(size):
    """To be called with the size of a file in bytes before it is decoded in parts. If it is large, every pop of this process that can profit from compiled
    code has it from now on; otherwise only those from a stack of 64 kB or more, because importing numba takes half a second."""
    if 8 * size >= _MANY:
        from . import compiled  # noqa: F401


class BitStack:
    """An empty stack. See `random` and `from_bytes` for stacks that hold something."""

    overdraft = False  # whether pops may go on when nothing is left: for `coding.arib` alone

    def __init__(self):
        self._ans, self._deep = _coder([0, 1]), None  # the top, and the chunk below it

    @classmethod
    def random(cls, bits, seed=0):
        """A stack that holds `bits` random bits: the initial bits that bits-back coding borrows."""
        bits, rng = integer("bits", bits, 0), np.random.default_rng(integer("seed", seed, 0))
        words = rng.integers(0, EMPTY, bits // WORD + 2, dtype=np.uint64)
        words[-1] = 1 << bits % WORD | words[-1] & ((1 << bits % WORD) - 1)
        stack = cls()
        stack._ans = _coder(words)
        return stack

    @classmethod
    def from_bytes(cls, data):
        """The stack that `to_bytes` wrote. Raises CorruptFile when no stack is written so, InvalidInput when `data` is not bytes."""
        try:
            data = bytes(memoryview(data))
        except TypeError:
            raise InvalidInput(f"a stack is read from bytes, got {type(data).__name__}") from None
        if len(data) <= WORD // 8 or data[-1] == 0:
            raise CorruptFile("these bytes are no stack: a stack has at least 5 bytes and does not end in a zero byte")
        padded = data + bytes(-len(data) % 4)
        stack = cls()
        stack._ans = _coder(np.frombuffer(padded, dtype="<u4"))
        return stack

    def to_bytes(self):
        """The stack as bytes, little-endian words without trailing zero bytes: at most 40 bits more than `bits`."""
        return self.words().astype("<u4").tobytes().rstrip(b"\0")

    def words(self):
        """The 32-bit words, equal to those of `rans.RANS` after the same pushes: uint32 array."""
        return self._all(self._ans.get_compressed())

    def _all(self, top):
        """The words from the lowest to those of the coder, `top`."""
        parts, deep = [top], self._deep
        while deep:
            parts.append(deep.words)
            deep = deep.below
        return np.concatenate(parts[::-1])

    def _sink(self):
        """Make a chunk of what the coder holds, but for its top."""
        if self._ans.num_words() > 2 * _TOP:
            words = self._ans.get_compressed()
            low = words[:-_TOP].copy()
            self._ans, self._deep = _coder(words[-_TOP:]), _Chunk(low, self._deep, low.size + self._depth)

    def _rise(self, number):
        """Have at least `number` words in the coder, or all that there are; what is not needed of a chunk stays one."""
        deep, missing, parts = self._deep, number - self._ans.num_words(), []
        while deep and missing > 0:
            taken = min(missing, deep.words.size)
            parts.append(deep.words[-taken:])
            deep, missing = (deep.below if taken == deep.words.size else _Chunk(deep.words[:-taken], deep.below, deep.depth - taken)), missing - taken
        if deep is not self._deep:
            self._ans, self._deep = _coder(np.concatenate([*parts[::-1], self._ans.get_compressed()])), deep

    @property
    def _depth(self):
        return self._deep.depth if self._deep else 0

    @property
    def bits(self):
        """Bits on the stack, 0 when empty (the head's position counts as the sentinel it is and not as content); less than 0 while it is overdrawn."""
        return int(self._ans.num_valid_bits()) - _SENTINEL_BITS + WORD * self._depth

    def copy(self):
        """An independent stack with the same contents."""
        stack = type(self)()
        stack.restore(self)
        return stack

    def restore(self, other):
        """Make this stack's contents those of `other`."""
        self._ans, self._deep = other._ans.clone(), other._deep

    def __eq__(self, other):
        return isinstance(other, BitStack) and np.array_equal(self.words(), other.words())

    def __repr__(self):
        return f"BitStack({self.bits} bits)"

    def push(self, symbols, cdf):
        """Push integer symbols under `cdf` (an IntegerCDF) so that `pop(cdf)` returns them in the same order.

        Raises InvalidInput (wrong dtype, wrong number, outside the support, empty) and leaves the stack as it was.
        """
        if not isinstance(cdf, IntegerCDF):
            raise InvalidInput(f"cdf must be an IntegerCDF, got {type(cdf).__name__}")
        self._encode(*cdf.intervals(symbols), cdf.size)

    def _encode(self, start, freq, size):
        if size == 1:  # a certain symbol has no cost and changes nothing
            return
        rows = np.empty((start.size, min(size, 3)), dtype=np.float32)
        if size == 2:
            column = (start > 0).astype(np.int32)
            rows[:, 0] = np.where(column, start, freq) - 1
            rows[:, 1] = np.where(column, freq, TOTAL - freq) - 1
        else:
            column = np.ones(start.size, dtype=np.int32)
            rows[:, 0], rows[:, 1], rows[:, 2] = start - 1, freq - 1, TOTAL - 1 - start - freq
            # At either end of [0, 2^24) the part below or above is empty; a column cannot be, so split the other side.
            first, last = np.flatnonzero(start == 0), np.flatnonzero(start + freq == TOTAL)
            if first.size:
                rows[first] = np.stack([freq[first] - 1, 0 * first, TOTAL - 2 - freq[first]], axis=1)
                column[first] = 0
            if last.size:
                rows[last] = np.stack([start[last] - 2, 0 * last, freq[last] - 1], axis=1)
                column[last] = 2
        self._ans.encode_reverse(column, _constriction().rows, rows)
        self._sink()

    def pop(self, cdf, count=None):
        """Pop what was pushed under the same `cdf`: int32 array of `cdf.shape`, or of `count` symbols for a shared row.

        Raises OutOfBits when the stack holds too little, and then leaves it as it was.
        """
        if not isinstance(cdf, IntegerCDF):
            raise InvalidInput(f"cdf must be an IntegerCDF, got {type(cdf).__name__}")
        if cdf.shape is None:
            if count is None:
                raise InvalidInput("this model has one row for any number of symbols: say how many with count=...")
            shape = (integer("count", count, 1, MAX_COUNT),)
        else:
            shape = cdf.shape
            if count is not None and integer("count", count) != math.prod(shape):
                raise InvalidInput(f"count is {count}, but the model is of {math.prod(shape)} symbols")
        number = math.prod(shape)
        offsets = self._search(cdf, number) if self._worth_searching(cdf, number) else None
        if offsets is None:  # or if the words run out, which is for the other one to judge
            offsets = self._tabulate(cdf, number)
        symbols = offsets.reshape(shape)
        return np.asarray(symbols + cdf.lower, dtype=np.int32) if np.any(cdf.lower) else symbols

    def _tabulate(self, cdf, number):
        """Pop offsets from `cdf.lower`, int32 (number,), by tables of all masses."""
        offsets = np.zeros(number, dtype=np.int32)
        if cdf.size > 1:
            self._rise(number + 2)  # no symbol takes more than a word
            step = _block(cdf)
            for first in range(0, number, step):
                last = min(first + step, number)
                offsets[first:last] = self._decode(cdf, first, last)
                if self._ans.num_words() < 2 and not self.overdraft:  # the head fell below 2^32 with no word left to refill it
                    self._put_back(offsets[:last], cdf)
                    raise OutOfBits(f"the stack holds {self.bits} bits, too few to pop {number} symbols of this model")
        return offsets

    def _worth_searching(self, cdf, number):
        """Whether compiled code should find the symbols: if it can, and if what numpy would do takes longer than importing numba, unless that is done."""
        enough = number * cdf.size >= _FEW if f"{__package__}.compiled" in sys.modules else min(number * cdf.size, self.bits) >= _MANY
        return (enough and self.bits >= 0
                and getattr(cdf, "searched", lambda first, last: None)(0, 1) is not None)

    def _search(self, cdf, number):
        """The same by compiled code that searches for each symbol; or None, and nothing has changed, if the words run out."""
        from . import compiled  # here: numba takes half a second to import

        self._sink()  # below, only words that may be needed are copied
        offsets, quantiles = np.empty(number, dtype=np.int32), tables.quantiles(cdf.family, compiled.QUANTILE_BITS)
        for most in (number // 4, number):  # words that are copied: a symbol takes one at most, and mostly far less
            self._rise(most + 2)
            words = self._ans.get_compressed()
            head, left = np.uint64(words[-1]) << np.uint64(WORD) | np.uint64(words[-2]), words.size - 2
            for first in range(0, number, _BLOCK):
                last = min(first + _BLOCK, number)
                table, *rows = cdf.searched(first, last)
                rows = [np.ascontiguousarray(row) for row in rows]
                head, left = compiled.pop(np.uint64(head), words, left, table, *rows, quantiles, cdf.size, offsets[first:last])
                if head == 0:
                    break
            else:
                self._ans = _coder(np.append(words[:left], np.array([head % EMPTY, head >> WORD], dtype=np.uint32)))
                return offsets
        return None

    def _decode(self, cdf, first, last):
        weights = np.ascontiguousarray(cdf.masses(first, last) - 1, dtype=np.float32)  # rows of another order would be read as if they were in this one
        if cdf.shape is None:
            return self._ans.decode(_constriction().row(weights[0]), last - first)
        return self._ans.decode(_constriction().lazy_rows, weights)

    def _put_back(self, offsets, cdf):
        """Undo a failed pop: encoding is the exact inverse of decoding even below the empty head."""
        step = _block(cdf)
        for first in reversed(range(0, offsets.size, step)):
            part = offsets[first:first + step]
            masses = cdf.masses(first, first + part.size)
            rows = np.zeros(1, dtype=np.int64) if cdf.shape is None else np.arange(part.size)
            freq = masses[rows, part]
            start = (np.cumsum(masses, axis=1, dtype=np.int32) - masses)[rows, part]
            self._encode(start, freq, cdf.size)

"""Integer CDFs: what a model hands to the coder.

A distribution over `size` neighbouring integers lower, lower + 1, ... becomes masses that are integers, at least 1 each, and sum
to 2^24. A symbol is then an interval [start, start + freq) of [0, 2^24), its ideal codelength is 24 - log2(freq) bits,
and encoder and decoder agree by construction: they compare integers. A floor of one count per symbol costs at most
size / 2^24 of the mass and makes every symbol codable.

`Uniform`, `Bernoulli` and `Categorical` live here; logistic, Laplace, Gaussian and mixtures in `discretized`. Taught in chapter 1, *Codes*.
"""

import math
from functools import cached_property

import numpy as np

from ..errors import InvalidInput
from .checks import array, integer, integers
from .rans import PRECISION, TOTAL
from .tables import constant, normalize

MAX_SIZE, MAX_LOWER = 1 << 16, 1 << 24


class IntegerCDF:
    """Base class. `shape`: the symbols' shape, or None when one row of masses serves any number of symbols;
    `size`: number of neighbouring integers in the support; `lower`: the smallest (an int, or an int32 array of `shape`)."""

    shape = None
    size = 0
    lower = 0

    def offsets(self, symbols):
        """Validated symbols as flat int64 offsets 0 ... size - 1 from `lower`. Raises InvalidInput.

        Symbols may be flat whatever the model's shape; an array of another shape of the same size is refused as a mistake."""
        symbols = integers("symbols", symbols)
        if self.shape is not None:
            if symbols.size != math.prod(self.shape):
                raise InvalidInput(f"{symbols.size} symbols were given to a model of {math.prod(self.shape)}")
            if symbols.ndim > 1 and len(self.shape) > 1 and symbols.shape != self.shape:
                raise InvalidInput(f"symbols of shape {symbols.shape} were given to a model of shape {self.shape}")
        offsets = symbols.reshape(-1).astype(np.int64) - np.reshape(self.lower, -1)
        low, high = offsets.min(), offsets.max()
        if low < 0 or high >= self.size:
            bad = np.flatnonzero((offsets < 0) | (offsets >= self.size))
            raise InvalidInput(f"{bad.size} symbols lie outside the model's support of {self.size} values; "
                               f"the first is {symbols.reshape(-1)[bad[0]]} at position {bad[0]}")
        return offsets

    def intervals(self, symbols):
        """(start, freq) of each symbol: two flat int32 arrays, 0 <= start, freq >= 1, start + freq <= 2^24."""
        raise NotImplementedError

    def masses(self, first, last):
        """Integer masses of the flat positions first ... last - 1: int32, shape (last - first, size), rows sum to 2^24.
        A model with `shape` None returns its one row, shape (1, size)."""
        raise NotImplementedError

    def frequencies(self):
        """The whole table of integer masses: int32, shape `shape` + (size,), or (size,) for a shared row."""
        if self.shape is None:
            return self.masses(0, 1)[0]
        return self.masses(0, math.prod(self.shape)).reshape(*self.shape, self.size)

    def bits(self, symbols):
        """Ideal codelength of each symbol in bits, -log2(freq / 2^24): float64, the shape of `symbols`."""
        return (PRECISION - np.log2(self.intervals(symbols)[1])).reshape(np.shape(symbols))


def support(size, lower, shape=None):
    """Validated (size, lower): Python integers, or lower an int32 array of `shape`, a window of `size` integers for every symbol."""
    size = integer("size", size, 1, MAX_SIZE)
    if not np.ndim(array("lower", lower)):
        return size, integer("lower", lower, -MAX_LOWER, MAX_LOWER)
    lower = integers("lower", lower, -MAX_LOWER, MAX_LOWER)
    if lower.shape != shape:
        raise InvalidInput(f"lower has shape {lower.shape}, the symbols have {shape}")
    return size, constant(lower.astype(np.int32))


class Uniform(IntegerCDF):
    """Equal masses over lower ... lower + size - 1 (the last one takes what does not divide 2^24)."""

    def __init__(self, size, lower=0):
        self.size, self.lower = support(size, lower)

    def intervals(self, symbols):
        step = TOTAL // self.size
        start = self.offsets(symbols) * step
        freq = np.where(start == (self.size - 1) * step, TOTAL - (self.size - 1) * step, step)
        return start.astype(np.int32), freq.astype(np.int32)

    def masses(self, first, last):
        step = TOTAL // self.size
        row = np.full((1, self.size), step, dtype=np.int32)
        row[0, -1] = TOTAL - (self.size - 1) * step
        return row


class Bernoulli(IntegerCDF):
    """Bits, one probability each. `ones`: integers, the mass of a 1 out of 2^24, 1 ... 2^24 - 1, of the symbols' shape (not a scalar)."""

    size = 2

    def __init__(self, ones):
        ones = integers("masses of ones", ones, 1, TOTAL - 1)
        if not ones.ndim:
            raise InvalidInput("masses of ones need a shape: one entry per symbol")
        self.shape, self._ones = ones.shape, np.array(ones.reshape(-1), dtype=np.int32)

    def intervals(self, symbols):
        one, zeros = self.offsets(symbols), TOTAL - self._ones
        return np.where(one, zeros, np.int32(0)), np.where(one, self._ones, zeros)

    def masses(self, first, last):
        ones = self._ones[first:last]
        return np.stack([TOTAL - ones, ones], axis=1)


def quantize(probabilities):
    """Probabilities (..., n) -> int32 masses >= 1 that sum to 2^24 along the last axis.

    Each mass is 1 + floor(p * (2^24 - n)); what the floors leave over goes to the row's largest. Input: finite, not
    negative, with a positive sum (it is normalised here). Float arithmetic: for files that other machines must read, pass `Categorical` integers.
    """
    p = normalize("probabilities", probabilities)
    n = integer("the number of probabilities in a row", p.shape[-1], 1, MAX_SIZE)
    masses = 1 + np.floor(p * (TOTAL - n)).astype(np.int64)
    largest = masses.argmax(-1)[..., None]
    np.put_along_axis(masses, largest, np.take_along_axis(masses, largest, -1) + TOTAL - masses.sum(-1, keepdims=True), -1)
    return masses.astype(np.int32)


class Categorical(IntegerCDF):
    """A table of masses: one row (n,) for any number of symbols, or one row per symbol (..., n).

    Floats are probabilities and go through `quantize`; integers must be masses >= 1 that sum to 2^24 already. `lower`
    is one integer, or (with a row per symbol) an array of `shape`: each row then covers its own window of n
    neighbouring integers, and what lies outside the window cannot be coded.
    """

    def __init__(self, probabilities, lower=0):
        table = array("probabilities", probabilities)
        if table.dtype.kind in "iu":
            table = integers("masses", table, 1, TOTAL)
            if not table.ndim or (table.sum(-1, dtype=np.int64) != TOTAL).any():
                raise InvalidInput("integer masses must sum to 2^24 along the last axis (or pass floats)")
        else:
            table = quantize(table)
        self.shape = table.shape[:-1] or None
        self.size, self.lower = support(table.shape[-1], lower, self.shape)
        self._table = constant(table.reshape(-1, self.size).astype(np.int32))

    @cached_property
    def _start(self):  # where each interval begins: only pushing needs to know
        return np.cumsum(self._table, axis=1, dtype=np.int32) - self._table

    def intervals(self, symbols):
        offsets = self.offsets(symbols)
        rows = 0 if self.shape is None else np.arange(offsets.size)
        return self._start[rows, offsets], self._table[rows, offsets]

    def masses(self, first, last):
        return self._table if self.shape is None else self._table[first:last]

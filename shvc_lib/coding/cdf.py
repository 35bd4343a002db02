"""Integer CDFs: what a model hands to the coder.

A distribution over `size` neighbouring integers lower, lower + 1, ... becomes masses that are integers, at least 1 each, and sum
to 2^24. A symbol is then an interval [start, start + freq) of [0, 2^24), its ideal codelength is 24 - log2(freq) bits,
and encoder and decoder agree by construction: they compare integers. A floor of one count per symbol costs at most
size / 2^24 of the mass and makes every symbol codable.

`Uniform` and `Categorical` live here; logistic, Laplace, Gaussian and mixtures in `discretized`. Taught in chapter 1, *Codes*.
"""

import numpy as np

from ..errors import InvalidInput
from .rans import PRECISION, TOTAL

MAX_SIZE, MAX_LOWER = 1 << 16, 1 << 24


class IntegerCDF:
    """Base class. `shape`: the symbols' shape, or None when one row of masses serves any number of symbols;
    `size`: number of neighbouring integers in the support; `lower`: the smallest (an int, or an int32 array of `shape`)."""

    shape = None
    size = 0
    lower = 0

    def offsets(self, symbols):
        """Validated symbols as flat int32 offsets 0 ... size - 1 from `lower`. Raises InvalidInput."""
        symbols = np.asarray(symbols)
        if symbols.dtype.kind not in "iu":
            raise InvalidInput(f"symbols must be integers, got dtype {symbols.dtype}")
        if symbols.size == 0:
            raise InvalidInput("symbols is empty: there is nothing to code")
        if self.shape is not None and symbols.size != int(np.prod(self.shape)):
            raise InvalidInput(f"{symbols.size} symbols were given to a model of {int(np.prod(self.shape))}")
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
        return self.masses(0, int(np.prod(self.shape))).reshape(*self.shape, self.size)

    def bits(self, symbols):
        """Ideal codelength of each symbol in bits, -log2(freq / 2^24): float64, the shape of `symbols`."""
        return (PRECISION - np.log2(self.intervals(symbols)[1])).reshape(np.shape(symbols))


def _check_support(size, lower):
    if not isinstance(size, (int, np.integer)) or not 1 <= size <= MAX_SIZE:
        raise InvalidInput(f"size must be an integer from 1 to {MAX_SIZE}, got {size!r}")
    if np.asarray(lower).dtype.kind not in "iu" or np.abs(lower).max() > MAX_LOWER:
        raise InvalidInput(f"lower must be an integer of at most {MAX_LOWER} in size")


class Uniform(IntegerCDF):
    """Equal masses over lower ... lower + size - 1 (the last one takes what does not divide 2^24)."""

    def __init__(self, size, lower=0):
        _check_support(size, lower)
        self.size, self.lower = int(size), int(lower)

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


def quantize(probabilities):
    """Probabilities (..., n) -> int32 masses >= 1 that sum to 2^24 along the last axis.

    Each mass is 1 + floor(p * (2^24 - n)); what the floors leave over goes to the row's largest. Input: finite, not
    negative, with a positive sum (it is normalised here). Float arithmetic: for files that other machines must read, pass `Categorical` integers.
    """
    p = np.asarray(probabilities, dtype=np.float64)
    if not p.ndim or p.shape[-1] == 0:
        raise InvalidInput("probabilities is empty")
    if not np.isfinite(p).all() or (p < 0).any() or not (p.sum(-1) > 0).all():
        raise InvalidInput("probabilities must be finite, not negative, and have a positive sum")
    n = p.shape[-1]
    masses = 1 + np.floor(p / p.sum(-1, keepdims=True) * (TOTAL - n)).astype(np.int64)
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
        table = np.asarray(probabilities)
        if not table.ndim or table.size == 0:
            raise InvalidInput("probabilities is empty")
        _check_support(table.shape[-1], lower)
        if table.dtype.kind == "f":
            table = quantize(table)
        elif table.dtype.kind not in "iu" or table.min() < 1 or (table.sum(-1, dtype=np.int64) != TOTAL).any():
            raise InvalidInput("integer masses must be at least 1 and sum to 2^24 (or pass floats)")
        self.shape = table.shape[:-1] or None
        self.size = table.shape[-1]
        if np.ndim(lower) and np.shape(lower) != self.shape:
            raise InvalidInput(f"lower has shape {np.shape(lower)}, the rows have {self.shape}")
        self.lower = np.asarray(lower, dtype=np.int32) if np.ndim(lower) else int(lower)
        self._table = table.reshape(-1, self.size).astype(np.int32)
        self._start = np.cumsum(self._table, axis=1, dtype=np.int32) - self._table

    def intervals(self, symbols):
        offsets = self.offsets(symbols)
        rows = 0 if self.shape is None else np.arange(offsets.size)
        return self._start[rows, offsets], self._table[rows, offsets]

    def masses(self, first, last):
        return self._table if self.shape is None else self._table[first:last]

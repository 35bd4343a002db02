"""Several stacks side by side that behave like one: a batch is coded together, and each of its members stays on a stack of its own.

Networks like batches, files do not: whoever opens one image should not have to decode sixty-three others. So a model of shape
(lanes, ...) is evaluated once for the whole batch, its intervals are computed once, and then every lane's symbols go onto that lane's stack. What
a lane holds is, word for word, what coding its member alone would have given, provided that the model's integers do not depend on the
batch (`nn.exact` is there for that). Codecs cannot tell the difference: `bits_back` and its kin run over `Lanes` as over a `BitStack`.
Taught in chapter 2.
"""

import numpy as np

from ..errors import InvalidInput, OutOfBits
from .bitstack import MAX_COUNT, BitStack
from .cdf import IntegerCDF
from .checks import integer, integers
from .codec import all_or_nothing


class _Lane(IntegerCDF):
    """One lane's part of a model with a row per symbol, as far as popping needs it."""

    def __init__(self, cdf, lane):
        self.shape, self.size = cdf.shape[1:], cdf.size
        self.lower = cdf.lower[lane] if np.ndim(cdf.lower) else cdf.lower
        self._cdf, self._first = cdf, lane * int(np.prod(self.shape))

    def masses(self, first, last):
        return self._cdf.masses(self._first + first, self._first + last)


class Lanes:
    """Lanes over a list of BitStacks, which are used as they are, not copied: `lanes.stacks[i]` belongs to the i-th member of the batch.

    Models have the shape (lanes, ...); one with a shared row serves any number of symbols per lane. Raises InvalidInput.
    """

    def __init__(self, stacks):
        self.stacks = list(stacks)
        if not self.stacks or not all(isinstance(stack, BitStack) for stack in self.stacks):
            raise InvalidInput("lanes are made of a list of BitStacks, at least one")
        if len({id(stack) for stack in self.stacks}) < len(self.stacks):
            raise InvalidInput("every lane needs a stack of its own: one was given twice")

    @property
    def bits(self):
        """Bits on each stack: int64 array, one per lane."""
        return np.array([stack.bits for stack in self.stacks], dtype=np.int64)

    def copy(self):
        """Independent lanes with the same contents."""
        return Lanes([stack.copy() for stack in self.stacks])

    def restore(self, other):
        """Make the contents of these stacks those of `other`'s."""
        for stack, old in zip(self.stacks, other.stacks, strict=True):
            stack.restore(old)

    def __eq__(self, other):
        return isinstance(other, Lanes) and self.stacks == other.stacks

    def __repr__(self):
        return f"Lanes({len(self.stacks)} stacks, {self.bits.sum()} bits)"

    def _check(self, cdf):
        if not isinstance(cdf, IntegerCDF):
            raise InvalidInput(f"cdf must be an IntegerCDF, got {type(cdf).__name__}")
        if cdf.shape is not None and cdf.shape[:1] != (len(self.stacks),):
            raise InvalidInput(f"a model of shape {cdf.shape} was given to {len(self.stacks)} lanes: its first axis must be the lane")

    def push(self, symbols, cdf):
        """Push each lane's symbols onto its stack so that `pop(cdf)` returns them. Under a shared row the symbols' first axis is the lane.

        Raises InvalidInput as `BitStack.push` does, and leaves every stack as it was.
        """
        self._check(cdf)
        if cdf.shape is None and integers("symbols", symbols).shape[:1] != (len(self.stacks),):
            raise InvalidInput(f"symbols of shape {np.shape(symbols)} were given to {len(self.stacks)} lanes: their first axis must be the lane")
        intervals = (values.reshape(len(self.stacks), -1) for values in cdf.intervals(symbols))
        for stack, start, freq in zip(self.stacks, *intervals):
            stack._encode(start, freq, cdf.size)

    def pop(self, cdf, count=None):
        """Pop what was pushed under the same `cdf`: int32 array of `cdf.shape`; for a shared row `count` symbols in all, (lanes, count / lanes).

        Raises OutOfBits, naming the lane, when one of the stacks holds too little, and then leaves every one as it was.
        """
        self._check(cdf)
        if cdf.shape is not None:
            number = int(np.prod(cdf.shape))
            if count is not None and integer("count", count) != number:
                raise InvalidInput(f"count is {count}, but the model is of {number} symbols")
        elif integer("count (this model has one row for any number of symbols)", count, 1, MAX_COUNT) % len(self.stacks):
            raise InvalidInput(f"{count} symbols cannot be shared out evenly to {len(self.stacks)} lanes")
        symbols = []
        with all_or_nothing(self):
            for lane, stack in enumerate(self.stacks):
                try:
                    symbols.append(stack.pop(cdf, count // len(self.stacks)) if cdf.shape is None else stack.pop(_Lane(cdf, lane)))
                except OutOfBits as error:
                    raise OutOfBits(f"lane {lane}: {error}") from None
        return np.stack(symbols)

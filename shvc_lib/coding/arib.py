"""Autoregressive initial bits (ArIB): bits-back coding that lends itself what it borrows, so that one image alone needs no bits to begin with.

The value is split in two, x = (first, second), such that the second part does not need z: p(x | z) = p(second | first) p(first | z) and
q(z | x) = q(z | first). Then the stack moves in four steps (SHVC, Ryder et al. 2022, section 4.2), and popping undoes them from the last to the first:

    push second under p(second | first)        the loan is made
    pop z under q(z | first)                   and taken,
    push first under p(first | z)
    push z under p(z)                          and what was taken has been put to use.

*When the loan is too small.* A flat image's second part may hold fewer bits than z takes. Nothing forbids such an image: here, and nowhere else, a stack may
be *overdrawn*. When its last word is used up, its head falls below 2^32, soon below 2^24. From there on a pop only subtracts the beginning of its symbol's
interval, until the head rests on symbols whose interval begins at 0: they take nothing, and pushing them puts nothing back, the exact inverse. `mode_first`
turns intervals round so that these symbols are the modes. So an image that lends itself too little codes what it can as a draw and the rest of z as its best
guess, as a deterministic posterior would. No filler is sent, nothing has to be counted, and the receiver ends with the empty stack that the sender began
with. In the order of the values these symbols would be the lowest bins, far from anything likely. Taught in chapter 6.
"""

import math
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptFile, InvalidInput, OutOfBits
from .bits_back import _draw, _Metered
from .cdf import Categorical, IntegerCDF, Uniform
from .codec import Codec, all_or_nothing
from .rans import TOTAL, WORD

_HALF_WORD, _PADDING = Uniform(1 << WORD // 2), np.full(2, (1 << WORD // 2) - 1, dtype=np.int32)
_PADDED = Categorical(np.array([TOTAL - (TOTAL >> 6), TOTAL >> 6]))  # "the code ends on a regular stack": 0.02 bits

_ENTRIES = 1 << 17  # masses looked at at a time for the modes


class Loan(NamedTuple):
    """What one push lent itself: int, or int64 arrays over `Lanes`. `rest`: growth by the second part in bits; `lent`: bits that z took; `overdrawn`: whether
    some of z had to do without, bool."""

    rest: Any
    lent: Any
    overdrawn: Any


class _Turned(IntegerCDF):
    """Of a distribution with a row per symbol: how far each symbol is above its row's mode, counted on from the lowest symbol after the highest. The intervals
    keep their lengths and their order on a circle, turned so that the mode's begins at 0."""

    def __init__(self, cdf):
        self._cdf, self.shape, self.size = cdf, cdf.shape, cdf.size
        number, step = math.prod(cdf.shape), max(1, _ENTRIES // cdf.size)
        self.modes = np.concatenate([cdf.masses(first, min(first + step, number)).argmax(-1) for first in range(0, number, step)])
        self._begin = cdf.intervals(self.modes.reshape(cdf.shape) + cdf.lower)[0]

    def intervals(self, symbols):
        start, freq = self._cdf.intervals(self.back(self.offsets(symbols)))
        return (start - self._begin) & TOTAL - 1, freq

    def masses(self, first, last):
        return np.take_along_axis(self._cdf.masses(first, last), (np.arange(self.size) + self.modes[first:last, None]) % self.size, -1)

    def away(self, symbols):
        """The distances of symbols from the modes, int32 of `shape`. Raises InvalidInput."""
        away = self._cdf.offsets(symbols) - self.modes
        return (away + self.size * (away < 0)).reshape(self.shape).astype(np.int32)

    def back(self, away):
        """The symbols, int32 of `shape`."""
        offsets = away.reshape(-1) + self.modes
        return ((offsets - self.size * (offsets >= self.size)).reshape(self.shape) + self._cdf.lower).astype(np.int32)


def mode_first(cdf):
    """Codec of the symbols of an IntegerCDF with a row per symbol, whose intervals are turned round so that the mode's begins at 0. Costs what `cdf` costs."""
    turned = _Turned(cdf)
    return Codec(lambda stack, x: stack.push(turned.away(x), turned), lambda stack: turned.back(stack.pop(turned)), lambda x: float(cdf.bits(x).sum()))


def _stacks(stack):
    """The BitStacks that a BitStack or Lanes consist of, however wrapped."""
    return _stacks(stack._stack) if isinstance(stack, _Metered) else getattr(stack, "stacks", [stack])


@contextmanager
def _overdraft(stack):
    """Within it the stack may be overdrawn."""
    before = [own.overdraft for own in _stacks(stack)]
    for own in _stacks(stack):
        own.overdraft = True
    try:
        yield
    finally:
        for own, old in zip(_stacks(stack), before):
            own.overdraft = old


def _settle(stack):
    """Make a regular stack of one that holds a number below 2^32 even now (after a few symbols, or under a model that is sure of everything)."""
    for own in _stacks(stack):
        short = own.bits < 0
        if short:
            own.push(_PADDING, _HALF_WORD)
        own.push(np.array([short], dtype=np.int32), _PADDED)


def _unsettle(stack):
    """The inverse of `_settle`. Raises CorruptFile."""
    for own in _stacks(stack):
        if own.pop(_PADDED, 1)[0] and not (np.array_equal(own.pop(_HALF_WORD, 2), _PADDING) and own.bits < 0):
            raise CorruptFile("the padding of the stack is not what it must be: the stream is damaged")


class Split(NamedTuple):
    """The parts of an ArIB code. prior: Codec of z, itself a bits-back code where there are more latents; likelihood(z), rest(first): Codecs of the first and
    of the second part; posterior(first): Codec of z, best made by `mode_first`."""

    prior: Any
    likelihood: Any
    posterior: Any
    rest: Any


def lend(split, stack, x):
    """Push x = (first, second) onto `stack`, a BitStack or Lanes, and return the Loan. Raises InvalidInput; the stack is then as it was."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise InvalidInput("an ArIB code takes a pair, (first, second)")
    metered, start = _Metered(stack), stack.bits
    with all_or_nothing(stack), _overdraft(stack):
        split.rest(x[0]).push(metered, x[1])
        full = stack.bits
        z = split.posterior(x[0]).pop(metered)
        left = stack.bits
        split.likelihood(z).push(metered, x[0])
        split.prior.push(metered, z)
        _settle(stack)
    return Loan(full - start, full - left, metered.lowest < 0)


def arib(prior, likelihood, posterior, rest):
    """Codec of x = (first, second): see `Split` for the arguments. Works on an empty stack.

    push raises InvalidInput; pop raises OutOfBits or CorruptFile when it finds what no push left. `bits(x)` is the net cost for one z, drawn by bits
    that are always the same; a stack that had to be overdrawn grows by more.
    """
    split = Split(prior, likelihood, posterior, rest)

    def push(stack, x):
        lend(split, stack, x)

    def pop(stack):
        begun = [own.overdraft for own in _stacks(stack)]  # within another ArIB code, which may have come here overdrawn
        with all_or_nothing(stack), _overdraft(stack):
            _unsettle(stack)
            z = prior.pop(stack)
            first = likelihood(z).pop(stack)
            try:
                posterior(first).push(stack, z)
            except InvalidInput as error:
                raise CorruptFile(f"this codec has not written what is on the stack, or other numbers came out of its model: {error}") from None
            second = rest(first).pop(stack)
            if any(own.bits < 0 and not before for own, before in zip(_stacks(stack), begun)):
                raise OutOfBits("the stack held too little for this code: the stream is damaged or not whole")
            return first, second

    def bits(x):
        encoder = posterior(x[0])
        z = _draw(encoder)
        return rest(x[0]).bits(x[1]) + likelihood(z).bits(x[0]) + prior.bits(z) - encoder.bits(z)

    return Codec(push, pop, bits)

"""Autoregressive initial bits (ArIB): bits-back coding that lends itself what it borrows, so that one image alone needs no bits to begin with.

The value is split in two, x = (first, second), such that the second part does not need z: p(x | z) = p(second | first) p(first | z) and
q(z | x) = q(z | first). Then the stack moves in four steps (SHVC, Ryder et al. 2022, section 4.2), and popping undoes them from the last to the first:

    push second under p(second | first)        the loan is made
    pop z under q(z | first)                   and taken,
    push first under p(first | z)
    push z under p(z)                          and what was taken has been put to use.

*When the loan is too small.* A flat image's second part may hold fewer bits than z takes. Nothing forbids such an image: zero words, the *filler*, are laid
under the loan, as few as suffice, and their number is the last thing pushed (0.02 bits when there are none). The receiver knows it first, finds the words
again when everything else is popped, and throws them away. A word of zeros that reaches the coder's head makes a pop come out at the left end of [0, 1). In the
order of the values that is the lowest bin of a window, far from anything likely, and most of the word is gone. `mode_first` puts the mode there. The symbols
between come as if drawn, each at its own price. Taught in chapter 6.
"""

from typing import Any, NamedTuple

import numpy as np

from ..errors import CorruptFile, InvalidInput, OutOfBits
from .bits_back import _draw, _Metered
from .cdf import Categorical, Uniform
from .codec import Codec, all_or_nothing
from .rans import PRECISION, TOTAL, WORD

_HALF_WORD = Uniform(1 << WORD // 2)
_LENGTHS = 20  # bit lengths of the number of filler words: 0 for none, up to 2^19 - 1 words
_NONE = TOTAL - (TOTAL >> 6)
_RARE = [TOTAL >> 6 + n for n in range(1, _LENGTHS - 1)]
_LENGTH = Categorical(np.array([_NONE, *_RARE, TOTAL - _NONE - sum(_RARE)]))
_FIRST_TRY = 256  # words


class Loan(NamedTuple):
    """What one push lent itself, in bits: int, or int64 arrays over `Lanes`. `rest`: growth by the second part; `lent`: what z took of it and of the filler;
    `filler`: bits of filler words."""

    rest: Any
    lent: Any
    filler: Any


def mode_first(cdf):
    """Codec of the symbols of an IntegerCDF with a row per symbol, whose intervals are turned round so that the mode's begins at 0. Costs what `cdf` costs."""
    table = cdf.frequencies()
    mode = table.argmax(-1)
    turned = Categorical(np.take_along_axis(table, (np.arange(cdf.size) + mode[..., None]) % cdf.size, -1))

    def offsets(x):
        return ((cdf.offsets(x).reshape(cdf.shape) - mode) % cdf.size).astype(np.int32)

    return Codec(lambda stack, x: stack.push(offsets(x), turned),
                 lambda stack: ((stack.pop(turned) + mode) % cdf.size + cdf.lower).astype(np.int32),
                 lambda x: float((PRECISION - np.log2(turned.intervals(offsets(x))[1])).sum()))


def _stacks(stack):
    """The BitStacks that a BitStack or Lanes consist of."""
    return getattr(stack, "stacks", [stack])


def _fill(stack, words):
    for own, number in zip(_stacks(stack), words):
        if number:
            own.push(np.zeros(2 * number, dtype=np.int32), _HALF_WORD)


def _pieces(number, length):
    """The bits of a number below its highest, at most 16 at a time, the lowest first: [(value, how many values it could have), ...]."""
    sizes = [1 << min(16, length - 1 - first) for first in range(0, length - 1, 16)]
    return [(number >> 16 * n & size - 1, size) for n, size in enumerate(sizes)]


def _push_count(stack, words):
    for own, number in zip(_stacks(stack), words):
        length = int(number).bit_length()
        for part, size in _pieces(int(number), length):
            own.push(np.array([part]), Uniform(size))
        own.push(np.array([length]), _LENGTH)


def _pop_count(stack):
    words = []
    for own in _stacks(stack):
        length = int(own.pop(_LENGTH, 1)[0])
        number = 1 if length else 0
        for _, size in reversed(_pieces(0, length)):
            number = number * size + int(own.pop(Uniform(size), 1)[0])
        words.append(number)
    return words


class Split(NamedTuple):
    """The parts of an ArIB code. prior: Codec of z, itself a bits-back code where there are more latents; likelihood(z), rest(first): Codecs of the first and
    of the second part; posterior(first): Codec of z, best made by `mode_first`."""

    prior: Any
    likelihood: Any
    posterior: Any
    rest: Any


def lend(split, stack, x):
    """Push x = (first, second) onto `stack`, a BitStack or Lanes, and return the Loan. Raises InvalidInput, and OutOfBits should half a million filler words
    not suffice; the stack is then as it was."""
    if not isinstance(x, (tuple, list)) or len(x) != 2:
        raise InvalidInput("an ArIB code takes a pair, (first, second)")
    rest, posterior = split.rest(x[0]), split.posterior(x[0])
    start = np.array([own.bits for own in _stacks(stack)])

    def attempt(words):
        """(bits above the start, on each stack: at the lowest, after the loan, after z was taken)."""
        metered = _Metered(stack)
        metered.lowest = np.full(len(start), np.iinfo(np.int64).max)
        _fill(stack, words)
        rest.push(metered, x[1])
        full = np.array([own.bits for own in _stacks(stack)])
        z = posterior.pop(metered)
        left = np.array([own.bits for own in _stacks(stack)])
        split.likelihood(z).push(metered, x[0])
        split.prior.push(metered, z)
        _push_count(stack, words)
        return metered.lowest - start, full - start, left - start

    def possible(words):
        before = stack.copy()
        try:
            return attempt(words)
        except OutOfBits:
            stack.restore(before)
            return None

    with all_or_nothing(stack):
        words = np.zeros(len(start), dtype=np.int64)
        found, generous = possible(words), _FIRST_TRY
        while found is None:  # how much is enough? Lay plenty underneath and see how much of it stays untouched
            before = stack.copy()
            plenty = possible(words + generous)
            if plenty is not None:
                stack.restore(before)
                words = np.maximum(generous - np.maximum(plenty[0], 0) // WORD, 0)
                while (found := possible(words)) is None:  # on a stack that was not empty, a bit more or less may be missing
                    words = words + 1
            elif (generous := 2 * generous).bit_length() >= _LENGTHS:
                raise OutOfBits("z takes more than half a million words beyond what the second part lends")
    _, full, left = found
    loan = Loan(full - WORD * words, full - left, WORD * words)
    return loan if hasattr(stack, "stacks") else Loan(*(int(v[0]) for v in loan))


def arib(prior, likelihood, posterior, rest):
    """Codec of x = (first, second): see `Split` for the arguments. Works on an empty stack.

    push raises InvalidInput; pop raises OutOfBits, or CorruptFile when it finds what no push left. `bits(x)` is the net cost for one z, drawn by bits
    that are always the same, with no filler: a stack that had to lay some under the loan grows by more.
    """
    split = Split(prior, likelihood, posterior, rest)

    def push(stack, x):
        lend(split, stack, x)

    def pop(stack):
        with all_or_nothing(stack):
            words = _pop_count(stack)
            z = prior.pop(stack)
            first = likelihood(z).pop(stack)
            try:
                posterior(first).push(stack, z)
            except InvalidInput as error:
                raise CorruptFile(f"this codec has not written what is on the stack, or other numbers came out of its model: {error}") from None
            second = rest(first).pop(stack)
            for own, number in zip(_stacks(stack), words):
                if number and own.pop(_HALF_WORD, 2 * number).any():
                    raise CorruptFile("the filler under the loan is not what it must be: the stream is damaged")
            return first, second

    def bits(x):
        encoder = posterior(x[0])
        z = _draw(encoder)
        return rest(x[0]).bits(x[1]) + likelihood(z).bits(x[0]) + prior.bits(z) - encoder.bits(z)

    return Codec(push, pop, bits)

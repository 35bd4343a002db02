"""Codes for the indices of coded sampling: what a number that is probably small, but may be large, costs in a file.

An index is worth no more bits than its distribution allows. Which distribution depends on what is known about it:

- nothing but its range: `block`, the same number of bits for each; right for importance sampling, whose index is uniform;
- its logarithm's mean: `zeta`, P(n) proportional to n^-s, the distribution of largest entropy for a given E log n (Li and El Gamal 2018); right for
  rejection sampling and the Poisson functional representation at a known KL;
- nothing at all: `elias_gamma` and `elias_delta` (Elias 1975), 2 log2 n + 1 and log2 n + 2 log2(log2 n + 1) + 1 bits, rounded down inside;
- many indices of the same kind, seen in training: `empirical`, their frequencies with Laplace's smoothing and an escape for 16-bit samples (Flamich
  2019, section 3.5.1, where the smoothing only reaches the escapes: an index of the budget that training never met has probability zero).

Each is a `Codec` (see `coding.codec`) of arrays of `count` indices 0, 1, 2, ... (int64); the positive integer n of the formulas is
index + 1. Everything goes through integers of 2^24, so that files are the same on every machine. Taught in chapter 3.
"""

from decimal import Decimal, localcontext
from functools import lru_cache

import numpy as np

from ..coding import TOTAL, Categorical, Codec, Uniform, weight_index
from ..coding.checks import integer, integers
from ..coding.codec import all_or_nothing
from ..errors import CorruptFile, InvalidInput

MOST = (1 << 62) - 2  # the largest index: n = index + 1 has at most 62 bits
ESCAPES = 1 << 16  # values of an escape of `empirical`
EXPONENT_STEPS = 256  # exponents of `zeta` are multiples of 1 / 256
_DIGIT = 8  # raw bits are coded eight at a time
_UNARY = 16  # and unary numbers sixteen at a time
_EXACT_OCTAVE, _PART_BITS = 8, 4  # zeta: masses of their own below 2^8, then 2^4 parts of every octave
_EXACT = 1 << _EXACT_OCTAVE
_BUCKETS = _EXACT - 1 + (62 - _EXACT_OCTAVE << _PART_BITS)


def block(bits, count):
    """`bits` bits for each index 0 ... 2^bits - 1; bits: one int, or one per index."""
    bits, count = integers("bits", bits, 0, 62), integer("count", count, 1)
    if bits.shape not in ((), (count,)):
        raise InvalidInput(f"bits of shape {bits.shape} were given for {count} indices")
    widths = np.broadcast_to(bits, count).astype(np.int64)
    return _codec(count, (1 << widths) - 1, lambda stack, x: _push_raw(stack, x, widths), lambda stack: _pop_raw(stack, widths), lambda x: widths)


def elias_gamma(count):
    """The length k = floor(log2 n) in unary, then k bits: 2 k + 1 bits for n = index + 1."""
    return _codec(count, MOST, lambda stack, x: _push_gamma(stack, x + 1), lambda stack: _pop_gamma(stack, count) - 1,
                  lambda x: 2 * _octave(x + 1) + 1)


def elias_delta(count):
    """The length k = floor(log2 n), coded by Elias gamma as k + 1, then k bits: k + 2 floor(log2(k + 1)) + 1 bits for n = index + 1."""

    def push(stack, x):
        octave = _octave(x + 1)
        _push_raw(stack, x + 1, octave)
        _push_gamma(stack, octave + 1)

    def pop(stack):
        octave = _pop_gamma(stack, count) - 1
        _within(octave)
        return (1 << octave) + _pop_raw(stack, octave) - 1

    def bits(x):
        octave = _octave(x + 1)
        return octave + 2 * _octave(octave + 1) + 1

    return _codec(count, MOST, push, pop, bits)


def zeta(exponent, count):
    """P(n) proportional to n^-exponent for n = index + 1 below 2^62 (Zipf's law). Raises InvalidInput unless 1 < exponent <= 16.

    The exponent is rounded to a multiple of 1/256 above 1. Up to n = 255 the masses are exact (in 24 bits); beyond, n is coded as a sixteenth of its octave
    and then by plain bits, since n^-s hardly changes there.
    """
    model = _zeta_model(_exponent_steps(exponent))

    def push(stack, x):
        bucket, width = _bucket(x + 1)
        _push_raw(stack, x + 1, width)
        stack.push(bucket, model)

    def pop(stack):
        first, width = _bucket_first(stack.pop(model, count).astype(np.int64))
        return first + _pop_raw(stack, width) - 1

    def bits(x):
        bucket, width = _bucket(x + 1)
        return model.bits(bucket) + width

    return _codec(count, MOST, push, pop, bits)


def zipf_exponent(mean_log2):
    """The exponent of `zeta` for indices n whose mean of log2 n is `mean_log2` bits: 1 + 1 / mean_log2, which costs at most
    mean_log2 + log2(mean_log2 + 1) + 1 bits (Li and El Gamal 2018, theorem 1: their index has mean_log2 = KL + log2(e) / e + 1)."""
    if not mean_log2 > 0:
        raise InvalidInput(f"the mean logarithm must be positive, got {mean_log2!r}")
    return 1 + min(max(1, round(EXPONENT_STEPS / float(mean_log2))), 15 * EXPONENT_STEPS) / EXPONENT_STEPS


def empirical(observed, bits, count):
    """Indices 0 ... 2^bits - 1 by their frequency among `observed` indices, each counted once more than seen (Laplace), and escapes
    2^bits ... 2^bits + 65535, which cost the frequency of escapes and 16 bits. bits: at most 15. The layout is that of `rejection.encode`."""
    bits = integer("bits", bits, 0, 15)
    first = 1 << bits  # the escape's symbol
    model, escapes = smoothed(np.minimum(integers("observed", observed, 0, first + ESCAPES - 1), first), first + 1), Uniform(ESCAPES)

    def push(stack, x):
        if (x >= first).any():
            stack.push(x[x >= first] - first, escapes)
        stack.push(np.minimum(x, first), model)

    def pop(stack):
        x = stack.pop(model, count).astype(np.int64)
        escaped = x == first
        if escaped.any():
            x[escaped] += stack.pop(escapes, int(escaped.sum()))
        return x

    return _codec(count, first + ESCAPES - 1, push, pop, lambda x: model.bits(np.minimum(x, first)) + 16 * (x >= first))


def smoothed(observed, size, lower=0):
    """The frequencies of `observed` integers among lower ... lower + size - 1, each counted once more than seen (Laplace): a Categorical."""
    observed, size = integers("observed", observed, lower, lower + size - 1), integer("size", size, 1, 1 << 16)
    counts = np.bincount(observed.reshape(-1).astype(np.int64) - lower, minlength=size)
    return Categorical(1 + weight_index(counts + 1, TOTAL - size), lower)


def _codec(count, most, push, pop, bits):
    """A codec of `count` indices up to `most`: validated, flat int64 arrays, and a stack that any error leaves as it was."""
    count = integer("count", count, 1)

    def check(x):
        x = integers("indices", x, 0, 1 << 62).reshape(-1).astype(np.int64)
        if x.size != count:
            raise InvalidInput(f"{x.size} indices were given to a codec of {count}")
        if (x > most).any():
            raise InvalidInput(f"this codec takes indices up to {np.max(most)}, got {x.max()}")
        return x

    def checked_push(stack, x):
        x = check(x)
        with all_or_nothing(stack):
            push(stack, x)

    def checked_pop(stack):
        with all_or_nothing(stack):
            return pop(stack)

    return Codec(checked_push, checked_pop, lambda x: float(np.sum(bits(check(x)))))


def _octave(n):
    """floor(log2 n) of positive int64, exactly: the exponent of a float is one too large where the float was rounded up to a power of two."""
    octave = np.frexp(n.astype(np.float64))[1].astype(np.int64) - 1
    return octave - (n >> octave == 0)


def _within(octave):
    if octave.max() > 61:
        raise CorruptFile("an index beyond 2^62 was read: these bits are no indices")


def _digits(widths):
    """The digits of numbers of `widths` bits: (position, width 1 ... 8, which numbers have such a one there)."""
    for shift in range(0, int(widths.max()), _DIGIT):
        here = np.clip(widths - shift, 0, _DIGIT)
        for width in np.unique(here[here > 0]).tolist():
            yield shift, width, np.flatnonzero(here == width)


def _push_raw(stack, values, widths):
    """Plain bits: the low `widths` bits of each value."""
    for shift, width, chosen in reversed(list(_digits(widths))):
        stack.push(values[chosen] >> shift & (1 << width) - 1, Uniform(1 << width))


def _pop_raw(stack, widths):
    values = np.zeros(widths.size, dtype=np.int64)
    for shift, width, chosen in _digits(widths):
        values[chosen] |= stack.pop(Uniform(1 << width), chosen.size).astype(np.int64) << shift
    return values


@lru_cache(maxsize=None)
def _unary():
    """k = 0 ... 15 at k + 1 bits each, and 'at least 16' at 16 bits."""
    return Categorical(np.array([TOTAL >> k + 1 for k in range(_UNARY)] + [TOTAL >> _UNARY]))


def _push_gamma(stack, n):
    octave = _octave(n)
    _push_raw(stack, n, octave)
    rounds = [octave]
    while rounds[-1].max() >= _UNARY:
        rounds.append(rounds[-1][rounds[-1] >= _UNARY] - _UNARY)
    for part in reversed(rounds):
        stack.push(np.minimum(part, _UNARY), _unary())


def _pop_gamma(stack, count):
    octave, active = np.zeros(count, dtype=np.int64), np.arange(count)
    while active.size:
        part = stack.pop(_unary(), active.size)
        octave[active] += part
        _within(octave)
        active = active[part == _UNARY]
    return (1 << octave) + _pop_raw(stack, octave)


def _exponent_steps(exponent):
    if not isinstance(exponent, (int, float)) or not 1 < exponent <= 16:
        raise InvalidInput(f"the exponent must be a number above 1 and at most 16, got {exponent!r}")
    return max(1, round((exponent - 1) * EXPONENT_STEPS))


@lru_cache(maxsize=64)
def _zeta_model(steps):
    """Masses of 1 ... 255 and of the sixteenths of the octaves 8 ... 61, in decimal arithmetic: `pow` of floats differs between machines."""
    with localcontext() as context:
        context.prec = 30
        power = Decimal(steps) / EXPONENT_STEPS  # exponent - 1
        masses = [Decimal(n) ** -(power + 1) for n in range(1, _EXACT)]
        edges = [Decimal(int(n)) - Decimal("0.5") for n in _bucket_first(np.arange(_EXACT - 1, _BUCKETS))[0]] + [Decimal(1 << 62)]
        tails = [edge**-power / power for edge in edges]  # integral of x^-exponent from the edge on
        masses += [high - low for high, low in zip(tails, tails[1:])]
        scale = (TOTAL - _BUCKETS) / sum(masses)
        table = np.array([1 + int(mass * scale) for mass in masses])
    table[0] += TOTAL - table.sum()
    return Categorical(table)


def _bucket(n):
    """Bucket of each n, and how many plain bits follow."""
    width = np.maximum(_octave(n), _EXACT_OCTAVE) - _PART_BITS
    part = (n >> width) - (1 << _PART_BITS)
    large = n >= _EXACT
    return np.where(large, _EXACT - 1 + ((width + _PART_BITS - _EXACT_OCTAVE) << _PART_BITS) + part, n - 1), np.where(large, width, 0)


def _bucket_first(bucket):
    """The smallest n of each bucket, and how many plain bits follow."""
    octave, part = np.divmod(np.maximum(bucket - (_EXACT - 1), 0), 1 << _PART_BITS)
    width = octave + _EXACT_OCTAVE - _PART_BITS
    large = bucket >= _EXACT - 1
    return np.where(large, ((1 << _PART_BITS) + part) << width, bucket + 1), np.where(large, width, 0)

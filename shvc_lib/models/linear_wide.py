"""What the model `linear` needs for 16-bit images: which levels a channel uses, and a code for symbols from supports of up to 65536 values.

*Levels.* Few 16-bit files hold 16 bits. Eight bits times 257, ten or twelve bits shifted left or filled up from their own top bits, an opaque alpha
channel: each uses some of the 65536 values and no others. So a channel's values are v = first + factor * u with the largest factor that there is, and
where u still leaves out so many values that a list of those in use pays, the pixels become ranks in that list. What is modelled are the numbers
0 ... top; a channel with one value costs nothing more.

*Symbols.* A row of 65536 masses per pixel would be decoded at a thousand pixels per second. But a wide distribution is flat over a few levels: where
the scale is 8 levels or more, the lowest bits of the value are as good as uniform, so they are sent as they are, and the logistic is over the rest.
`k` bits are
cut such that a scale is 4 to 8 of what is left (the loss is below 0.004 bits per symbol). Then a window of 256 places around the mean reaches 16 scales on
either side, and its outermost places say "further out": the value follows by itself. All arithmetic is on integers.
"""

from typing import Any, NamedTuple

import numpy as np

from ..coding import Codec, Uniform, independent, logistic
from ..coding.codec import all_or_nothing
from ..coding.tables import MEAN_STEPS, SCALES
from ..errors import InvalidInput

WINDOW = 256  # places of the logistic
OCTAVE = 11  # steps of the scale grid (of 1 / 16 in the logarithm) per halving of the scale: 16 ln 2 = 11.09
_FIRST = 82  # the first scale index above 8 levels: from here on, bits are cut
MOST_CUT = 8
WIDE_SCALES = SCALES + MOST_CUT * OCTAVE  # scale indices of `wide`


def scale_of(index):
    """Float scales in levels of scale indices of `wide`: exp((i - 48) / 16) up to 8 levels, then 2^k times such a number."""
    cut = np.clip((np.asarray(index) - _FIRST) // OCTAVE + 1, 0, MOST_CUT)
    return np.exp((index - OCTAVE * cut - 48) / 16) * 2.0**cut


def wide(means, scales, top):
    """Codec of symbols 0 ... top (top < 65536) under discretised logistics. Flat int arrays of equal length: `means` in 1/16 level, 0 ... 16 * top;
    `scales` indices below `WIDE_SCALES`. pop gives int32."""
    size, most = min(WINDOW, top + 1), max((top + 1).bit_length() - 9, 0)  # cutting must leave at least a window
    cut = np.clip((scales - _FIRST) // OCTAVE + 1, 0, most).astype(np.int32)
    last = top >> cut
    middle = (means - (MEAN_STEPS // 2) * ((1 << cut) - 1)) >> cut  # a place of 2^k levels is centred between its first and its last
    lower = np.clip((middle >> 4) - WINDOW // 2, 0, last - (size - 1)).astype(np.int32)
    cdf = logistic(middle.astype(np.int32), np.minimum(scales - OCTAVE * cut, SCALES - 1), size, lower)

    def rest(places):
        """What follows the places: pairs of which symbols, and the uniform distribution that they have."""
        outside = (places == lower) & (lower > 0) | (places == lower + size - 1) & (places < last)
        parts = [(np.flatnonzero(outside), Uniform(top + 1))]
        parts += [(np.flatnonzero((cut == k) & ~outside), Uniform(1 << k)) for k in range(1, most + 1)]
        return [(where, uniform) for where, uniform in parts if where.size]

    def checked(x):
        x = Uniform(top + 1).offsets(x).astype(np.int32)
        if x.size != means.size:
            raise InvalidInput(f"{x.size} symbols were given to a codec of {means.size}")
        return x

    def places_of(x):
        return np.clip(x >> cut, lower, lower + size - 1)

    def push(stack, x):
        x = checked(x)
        places = places_of(x)
        with all_or_nothing(stack):
            for where, uniform in reversed(rest(places)):
                stack.push(x[where] % uniform.size, uniform)
            stack.push(places, cdf)

    def pop(stack):
        with all_or_nothing(stack):
            places = stack.pop(cdf)
            x = places << cut
            for where, uniform in rest(places):
                values = stack.pop(uniform, where.size)
                x[where] = values if uniform.size == top + 1 else x[where] + values
        return np.minimum(x, top)  # only a damaged stream goes beyond

    def bits(x):
        places = places_of(checked(x))
        return float(cdf.bits(places).sum() + sum(where.size * np.log2(uniform.size) for where, uniform in rest(places)))

    return Codec(push, pop, bits)


class Levels(NamedTuple):
    """A channel's values are first + factor * u; u is the pixel, or, with a `table` (int64, increasing, from 0), table[pixel]. Pixels are 0 ... top."""

    first: int
    factor: int
    top: int
    table: Any = None

    def values(self, pixels):
        """uint16 values of pixels 0 ... top."""
        return (self.first + self.factor * (pixels if self.table is None else self.table[pixels])).astype(np.uint16)

    def pixels(self, values):
        """int32 pixels of uint16 values, the inverse."""
        numbers = (values.astype(np.int64) - self.first) // self.factor
        return (numbers if self.table is None else np.searchsorted(self.table, numbers)).astype(np.int32)


def levels():
    """The distribution of a channel's Levels, as a generator in decoding order; returns them. 2 bits for a channel that uses all values."""
    kind = (yield independent(Uniform(4), 1))[0]
    if kind == 0:
        return Levels(0, 1, 65535)
    if kind == 3:
        return _filled((yield independent(Uniform(16), 1))[0])
    first, factor, top = (int(number) for number in (yield independent(Uniform(1 << 16), 3)))
    if kind == 1:
        return Levels(first, factor + 1, top)
    count, mean, scale = (int(number) for number in (yield independent(Uniform(1 << 16), 3)))
    gaps = yield _gaps(count, mean, scale)
    return Levels(first, factor + 1, count, np.append(0, np.cumsum(gaps, dtype=np.int64)))


def _gaps(count, mean, scale):
    return wide(np.full(count, mean), np.full(count, scale % WIDE_SCALES), 65535)


def _filled(kind):
    """Levels of 8 ... 15 bits made 16: even kinds repeat the top bits below the last one, odd ones are round(u * 65535 / (2^n - 1))."""
    n = 8 + int(kind) // 2
    u = np.arange(1 << n)
    return Levels(0, 1, int(u[-1]), (131070 * u // u[-1] + 1) // 2 if kind % 2 else u << 16 - n | u >> 2 * n - 16)


def find_levels(values):
    """(Levels, the answers to `levels`) that suit a flat uint16 array. A table is sent only where the steps that pixels no longer need to be told
    apart by outweigh it twice: a histogram that has holes because there are few pixels never does."""
    used, counts = np.unique(values, return_counts=True)
    used = used.astype(np.int64)
    gaps = np.diff(used)
    factor = int(np.gcd.reduce(gaps)) if gaps.size else 1
    gaps //= factor
    top = int(gaps.sum())
    best = Levels(int(used[0]), factor, top)
    answers = [np.array([1]), np.array([best.first, factor - 1, top])]
    gain = values.size * (np.log2(factor) if gaps.size else 16) + 16 - np.log2(top + 1) - 48
    for kind in range(16):
        filled = _filled(kind)
        if np.isin(used, filled.table).all() and values.size * (16 - np.log2(filled.top + 1)) - 4 > gain:
            return filled, [np.array([3]), np.array([kind])]
    if top >= used.size:  # some are not used
        costs, mean = [], int(np.rint(16 * gaps.mean()))
        around = np.diff(np.concatenate([used[:1], (used[1:] + used[:-1]) / 2, used[-1:]])) / factor
        worth = counts @ np.log2(np.maximum(around, 1)) - 96
        shares = np.unique(gaps, return_counts=True)[1] / gaps.size
        if worth > -2 * gaps.size * (shares @ np.log2(shares)):  # else do not even try
            costs = [_gaps(gaps.size, min(mean, 65535), scale).bits(gaps) for scale in range(0, WIDE_SCALES, 8)]
        if worth > 2 * min(costs, default=np.inf):
            best = best._replace(top=gaps.size, table=np.append(0, np.cumsum(gaps)))
            return best, [np.array([2]), answers[1], np.array([gaps.size, min(mean, 65535), 8 * int(np.argmin(costs))]), gaps]
    return (best, answers) if gain > 0 else (Levels(0, 1, 65535), [np.array([0])])

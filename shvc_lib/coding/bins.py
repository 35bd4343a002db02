"""Bins for continuous latents: integer edges, shared or per channel, and the integer CDFs of what falls between them.

A stack codes integers, a latent z with density q(z | x) is real. Cut the line into 2^b bins, and the bin's index is z's symbol: its prior
mass is F_p(right edge) - F_p(left edge), its posterior mass the same of F_q, and the network sees the bin's centre. Finer bins make both
masses smaller by the same factor, so the net cost -log2 P + log2 Q does not change once a bin is narrower than q; the initial bits, -log2 Q, grow by
one for every halving. Two ways to cut:

    uniform_bins      edges at a fixed distance (Bit-Swap for all levels but the top; HiLLoC)
    equal_mass_bins   edges at the quantiles i / 2^b of the prior (BB-ANS, Townsend et al. 2019), which then is Uniform(2^b) by definition

Everything is an integer, so that two machines agree. Positions count 2^-24 of a level (the unit of means and scales, see `tables`), fine enough for 2^16
bins under the narrowest prior; CDFs come from the tables; quantiles are found by bisection in them, not by an inverse CDF in floats.

A prior has a floor: everything can be coded. A posterior must have none far away, or popping draws a wild latent now and then that costs a
hundred bits. So each symbol's posterior lives in its own window, a power of two of bins around its mean. In bins of equal mass the windows of one
image differ in size from 2 to thousands: symbols with windows of one size are popped together, and a window of more than 64 bins digit by digit,
so that no table has more than 64 columns. Taught in chapter 2.
"""

import numpy as np

from ..errors import InvalidInput
from . import tables
from .cdf import MAX_SIZE, IntegerCDF
from .checks import integer, integers
from .codec import Codec, autoregressive
from .rans import TOTAL

POSITION_BITS = 24  # positions are integers in 2^-24 of a level
_FINER = POSITION_BITS - 4  # bits below the 1/16 of a level in which means and centres are given
_FAR = 1 << 60  # in place of the infinite outer edges
_DIGIT = 6  # bits of a digit: rows of at most 64 masses
_LIMIT = 1 << 25  # largest mean or centre in levels


class Bins:
    """2^b neighbouring bins that cover the line, b >= 1; their indices 0 ... 2^b - 1 are the symbols.

    edges: int64 (..., 2^b - 1), the inner edges, strictly ascending, in 2^-24 of a level; the outermost bins reach to infinity. centres: int32 (..., 2^b), what
    stands for a bin, in 1/16 of a level. The leading axes are broadcast against the symbols' shape: () for one set of bins, (C, 1, 1)
    for one per channel. Raises InvalidInput.
    """

    def __init__(self, edges, centres):
        self.edges = integers("edges", edges, -_LIMIT << POSITION_BITS, _LIMIT << POSITION_BITS).astype(np.int64)
        self.centres = integers("centres", centres, -_LIMIT * 16, _LIMIT * 16).astype(np.int32)
        self.shape, self.size = self.centres.shape[:-1], self.centres.shape[-1]
        if self.size < 2 or self.size > MAX_SIZE or self.size & (self.size - 1) or self.edges.shape != (*self.shape, self.size - 1):
            raise InvalidInput(f"bins need 2^b centres and 2^b - 1 edges, b from 1 to 16, got {self.centres.shape} and {self.edges.shape}")
        if (np.diff(self.edges) <= 0).any():
            raise InvalidInput("edges must ascend: a bin has no width (choose fewer bits)")
        far = np.full((*self.shape, 1), _FAR)
        self._left = tables.constant(np.concatenate([-far, self.edges, far], axis=-1).reshape(-1))  # left edge of each bin, and the last right edge

    def _rows(self, shape):
        """Where each symbol's bins begin in `_left`: flat int64. Raises InvalidInput if symbols of `shape` do not fit."""
        rows = np.arange(np.prod(self.shape, dtype=np.int64)).reshape(self.shape) * (self.size + 1)
        try:
            return np.broadcast_to(rows, shape).reshape(-1)
        except ValueError:
            raise InvalidInput(f"bins of shape {self.shape} do not fit symbols of shape {shape}") from None

    def _find(self, rows, positions):
        """The bin that holds each position: int64."""
        found = np.zeros_like(positions)
        for bit in reversed(range(self.size.bit_length() - 1)):
            step = found + (1 << bit)
            found = np.where(self._left[rows + step] <= positions, step, found)
        return found

    def centre(self, symbols):
        """The centre of each symbol's bin in 1/16 of a level: int32, the shape of `symbols`."""
        symbols = integers("symbols", symbols, 0, self.size - 1)
        return self.centres.reshape(-1)[self._rows(symbols.shape) // (self.size + 1) * self.size + symbols.reshape(-1)].reshape(symbols.shape)


def uniform_bins(width, size):
    """`size` bins (a power of two), each `width` sixteenths of a level wide, around centres that are the multiples -size/2 ... size/2 - 1 of it."""
    width, size = integer("width", width, 1, 1 << 16), integer("size", size, 2, MAX_SIZE)
    centres = width * np.arange(-(size // 2), size - size // 2)
    return Bins((centres[1:] << _FINER) - (width << _FINER - 1), centres)


def equal_mass_bins(family, means, scales, bits):
    """2^bits bins of equal mass under a prior, one set for each of its means (1/16 of a level) and scale indices: arrays of one shape, usually (C, 1, 1).

    The prior of the symbols is `Uniform(2^bits)`. Edges are quantiles i / 2^bits, centres the medians of the bins. Raises InvalidInput.
    """
    means, scales = _parameters(family, means, scales)
    bits = integer("bits", bits, 1, MAX_SIZE.bit_length() - 1)
    mass = np.arange(1, 2 << bits, dtype=np.int64) * (TOTAL >> bits + 1)
    below = np.full((*means.shape, mass.size), -_FAR >> 1)  # the largest position known to hold less than `mass`
    for bit in reversed(range(_FAR.bit_length())):
        step = below + (1 << bit)
        below = np.where(_cdf(family, step - (means[..., None] << _FINER), scales[..., None]) < mass, step, below)
    quantiles = below + 1
    return Bins(quantiles[..., 1::2], quantiles[..., ::2] + (1 << _FINER - 1) >> _FINER)


def _parameters(family, means, scales):
    if family not in tuple(tables.FAMILIES):
        raise InvalidInput(f"unknown family {family!r}: choose from {', '.join(tables.FAMILIES)}")
    means = integers("means (see mean_index)", means, -_LIMIT * 16, _LIMIT * 16).astype(np.int64)
    scales = integers("scales (see scale_index)", scales, 0, tables.SCALES - 1)
    if means.shape != scales.shape:
        raise InvalidInput(f"means and scales must have one shape, got {means.shape} and {scales.shape}")
    return means, scales


def _cdf(family, offsets, scales):
    """2^24 * CDF(offset / scale) as int64, for offsets in 2^-24 of a level: `tables.cdf_values` on finer positions."""
    inverse, reach = tables.inverse_scales()[scales], tables.REACH * tables.POINTS << 16
    most = (reach << _FINER) // inverse + 1  # beyond, the table has ended; the product stays below 2^53
    u = np.clip((np.clip(offsets, -most, most) * inverse >> _FINER) + reach, 0, 2 * reach - 1)
    table, point = tables.cdf_table(family, TOTAL), u >> 16
    low = table[point]
    return low + ((table[point + 1] - low) * (u & 0xFFFF) >> 16)


class BinnedCDF(IntegerCDF):
    """A density per symbol, restricted to a run of `size` cells: cell i is the `step` bins from `first` + i step on; i is the symbol.

    The masses are the density's in that run, scaled to 2^24 - size, plus one each; equal where it has none. Flat arrays means, scales, first, and
    `rows` (see Bins._rows), an entry per symbol; `shape` is the symbols'.
    """

    def __init__(self, bins, rows, family, means, scales, first, step, size, shape):
        self.shape, self.size = shape, size
        self._left, self._family, self._step = bins._left, family, step
        self._first, self._means, self._scales = rows + first, means << _FINER, scales
        ends = np.stack([self._at(slice(None), np.int64(i)) for i in (0, size)])
        self._low, self._mass = ends[0], ends[1] - ends[0]

    def _at(self, part, cells):
        """The density's CDF at the left edge of cell cells[i] for symbol i of `part`, or at those of many cells per symbol: cells (symbols, n)."""
        wide = (...,) if np.ndim(cells) < 2 else (..., None)
        edges = self._left[self._first[part][wide] + self._step * cells]
        return _cdf(self._family, edges - self._means[part][wide], self._scales[part][wide])

    def _edges(self, part, cells):
        """Integer CDF at the same edges: 0 for cell 0, 2^24 for cell `size`."""
        wide = (...,) if np.ndim(cells) < 2 else (..., None)
        low, mass = self._low[part][wide], self._mass[part][wide]
        share = np.where(mass > 0, self._at(part, cells) - low, cells)
        return share * (TOTAL - self.size) // np.where(mass > 0, mass, self.size) + cells

    def intervals(self, symbols):
        cells = self.offsets(symbols)
        start, end = self._edges(slice(None), cells), self._edges(slice(None), cells + 1)
        return start.astype(np.int32), (end - start).astype(np.int32)

    def masses(self, first, last):
        return np.diff(self._edges(slice(first, last), np.arange(self.size + 1)[None])).astype(np.int32)


def binned_prior(bins, family, means, scales):
    """IntegerCDF of the bins' indices under a density per symbol, all bins with a floor of one count. means (1/16 of a level) and scale
    indices are integers of the symbols' shape. (Bins of equal mass under this very prior have `Uniform(bins.size)` instead.)"""
    means, scales = _parameters(family, means, scales)
    return BinnedCDF(bins, bins._rows(means.shape), family, means.reshape(-1), scales.reshape(-1), 0, 1, bins.size, means.shape)


def windows(bins, family, means, scales):
    """(first, bits) of each symbol's window: the 2^bits bins from `first` on hold all of the density that the table knows, more than 1 - 2^-22.
    int64 arrays of the symbols' shape, bits >= 1."""
    means, scales = _parameters(family, means, scales)
    rows, reach = bins._rows(means.shape).reshape(means.shape), tables.REACH * tables.POINTS
    points = reach - np.searchsorted(tables.cdf_table(family, TOTAL)[:reach], 1)  # from the mean to where the density begins
    reach = (int(points) << _FINER + 16) // tables.inverse_scales()[scales] + 1
    low, high = (bins._find(rows, (means << _FINER) + side) for side in (-reach, reach))
    bits = np.maximum(np.searchsorted(1 << np.arange(17), high - low + 1), 1)
    first = np.clip((low + high + 1 >> 1) - (1 << bits - 1), 0, bins.size - (1 << bits))
    return first, bits


def binned_posterior(bins, family, means, scales):
    """Codec of the bins' indices (int32 arrays of the symbols' shape) under a density per symbol, each in its own window: what lies outside cannot be drawn,
    and pushing it raises InvalidInput. Windows of one size are popped together, small ones first."""
    first, exponents = (value.reshape(-1) for value in windows(bins, family, means, scales))
    means, scales = _parameters(family, means, scales)
    shape, rows, means, scales = means.shape, bins._rows(means.shape), means.reshape(-1), scales.reshape(-1)
    groups = [(np.flatnonzero(exponents == bits), int(bits)) for bits in np.unique(exponents)]
    layers = [(members, shift, min(bits - shift, _DIGIT)) for members, bits in groups for shift in reversed(range(0, bits, _DIGIT))]

    def generate():
        cell = first.copy()
        for part, shift, digit in layers:
            digits = yield BinnedCDF(bins, rows[part], family, means[part], scales[part], cell[part], 1 << shift, 1 << digit, part.shape)
            cell[part] += digits.astype(np.int64) << shift

    def split(symbols):
        symbols = integers("symbols", symbols)
        if symbols.size != means.size or (symbols.ndim > 1 and symbols.shape != shape):
            raise InvalidInput(f"symbols of shape {symbols.shape} were given to a model of shape {shape}")
        rest, values = symbols.reshape(-1).astype(np.int64) - first, []
        for part, shift, _ in layers:
            values.append(rest[part] >> shift)  # outside the window: a digit that its IntegerCDF refuses
            rest[part] -= values[-1] << shift
        return values

    def join(values):
        cell = first.copy()
        for (part, shift, _), value in zip(layers, values):
            cell[part] += value.astype(np.int64) << shift
        return cell.reshape(shape).astype(np.int32)

    inner = autoregressive(generate)
    return Codec(lambda stack, x: inner.push(stack, split(x)), lambda stack: join(inner.pop(stack)), lambda x: inner.bits(split(x)))

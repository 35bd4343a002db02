"""Discretised logistic, Laplace and Gaussian distributions and their mixtures, as integer CDFs.

A continuous density with CDF F gives the integer x the mass F((x + 1/2 - mean) / scale) - F((x - 1/2 - mean) / scale); the first and the last
integer of the support take the tails (PixelCNN++, Salimans et al. 2017). A mixture averages K of them. All in integers:

    edge(e) = e + (sum_k weight_k * table[...] >> 6),      weights sum to 2^12, table entries reach (2^24 - size) / 2^6

so edge(e + 1) - edge(e) >= 1 whatever the parameters: the table is monotone, and `e` adds one count per level.
Encoding needs two edges per symbol, decoding all of them; for supports of up to 256 levels each component's CDF is a contiguous slice of one
precomputed table. Parameters are integers (see `tables`): means in 1/16 of a level, scale indices, weights. Taught in chapter 1, *Codes*;
SHVC's p(x | z) is `logistic_mixture` with K = 5.
"""

import numpy as np

from ..errors import InvalidInput
from . import tables
from .cdf import IntegerCDF, support
from .checks import array, integers
from .rans import TOTAL

WEIGHT_TOTAL = 4096  # what a mixture's integer weights sum to
_WEIGHT_SHIFT = 6  # 2^12 * 2^18 * 2^-6 = 2^24, and every intermediate fits into int32
_BLOCK = 1 << 15  # symbols per block when computing intervals: a block's arrays stay in the cache


class DiscretizedMixture(IntegerCDF):
    """K components of one family ("logistic", "laplace", "gaussian") over lower ... lower + size - 1.

    means: integers (..., K) in 1/16 of a level, on the symbols' own axis (clamped to 64 levels outside the support);
    scales: integers (..., K), indices of the grid exp((i - 48) / 16) levels, 0 <= i < 192; weights: integers (..., K) >= 0 that sum to 4096,
    or None for K = 1. The symbols' shape is `means.shape[:-1]`; with `lower` an array of that shape each symbol has a support of its own.
    Raises InvalidInput.
    """

    def __init__(self, family, means, scales, weights=None, size=256, lower=0):
        if family not in tuple(tables.FAMILIES):
            raise InvalidInput(f"unknown family {family!r}: choose from {', '.join(tables.FAMILIES)}")
        self.family, means = family, integers("means (see mean_index)", means, -(1 << 29), 1 << 29)
        scales = integers("scales (see scale_index)", scales, 0, tables.SCALES - 1)
        if means.ndim == 0 or scales.shape != means.shape:
            raise InvalidInput(f"means and scales must have one shape (..., K), got {means.shape} and {scales.shape}")
        self.shape, count = means.shape[:-1], means.shape[-1]
        self.size, self.lower = support(size, lower, self.shape)
        if weights is None:
            if count != 1:
                raise InvalidInput("weights is missing: a mixture of more than one component needs them")
            self._total, self._weights = TOTAL - self.size, None
        else:
            weights = integers("weights (see weight_index)", weights, 0, WEIGHT_TOTAL)
            if weights.shape != means.shape or (weights.sum(-1) != WEIGHT_TOTAL).any():
                raise InvalidInput(f"weights must have the shape of means and sum to {WEIGHT_TOTAL} along the last axis")
            self._total = (TOTAL - self.size) >> _WEIGHT_SHIFT
            self._weights = self._components(weights, count)
        low, high = -tables.MARGIN * tables.MEAN_STEPS, (self.size + tables.MARGIN) * tables.MEAN_STEPS
        relative = self._components(means, count) - tables.MEAN_STEPS * np.reshape(self.lower, -1).astype(np.int32)
        self._means = np.clip(relative, low, high - tables.MEAN_STEPS, out=relative)
        self._scales = self._components(scales, count)

    @staticmethod
    def _components(values, count):
        return np.array(values.reshape(-1, count).T, dtype=np.int32, order="C")  # (K, N), a copy: the caller's array may change

    def _cdf(self, part, offsets=None):
        """The mixture's CDF, without the count per level, for the symbols in the slice `part`: at edge offsets[i] for symbol i, shape
        (symbols,), or at every edge, shape (symbols, size + 1). int32."""
        spread = (lambda values: values[part]) if offsets is not None else (lambda values: values[part, None])
        edges = np.arange(self.size + 1) if offsets is None else offsets
        for k in range(len(self._means)):
            if self.size <= tables.ROW_SIZE:
                rows = tables.row_start(self._means[k, part], self._scales[k, part])
                if offsets is None:
                    values = tables.row_windows(self.family, self._total, edges.size)[rows]
                else:
                    values = tables.row_table(self.family, self._total).take(rows + edges)
            else:
                distance = tables.MEAN_STEPS * edges.astype(np.int64) - tables.MEAN_STEPS // 2 - spread(self._means[k])
                values = tables.cdf_values(self.family, self._total, distance, spread(self._scales[k]))
            if self._weights is None:
                return values
            values *= spread(self._weights[k])
            total = values if k == 0 else np.add(total, values, out=total)
        return np.right_shift(total, _WEIGHT_SHIFT, out=total)

    def intervals(self, symbols):
        offsets = self.offsets(symbols).astype(np.int32)
        start, freq = np.empty_like(offsets), np.empty_like(offsets)
        for first in range(0, offsets.size, _BLOCK):
            part = slice(first, first + _BLOCK)
            x = offsets[part]
            low, high = self._cdf(part, x) + x, self._cdf(part, x + 1) + (x + 1)
            low[x == 0] = 0
            high[x == self.size - 1] = TOTAL
            start[part], freq[part] = low, high - low
        return start, freq

    def masses(self, first, last):
        cdf = self._cdf(slice(first, last))
        cdf[:, 0], cdf[:, -1] = 0, TOTAL - self.size
        return np.subtract(cdf[:, 1:], cdf[:, :-1]) + 1

    def searched(self, first, last):
        """How to search for the flat symbols first ... last - 1 instead of tabulating their masses: (table, starts, weights, guesses, spreads), as
        `compiled.pop` takes them; or None for mixtures over more than 256 levels, and for those of one component."""
        means, scales, weights = self._means[:, first:last], self._scales[:, first:last], np.zeros((1, last - first), dtype=np.int32)
        guesses, spreads = means[0], scales[0]
        if self._weights is not None:
            if self.size > tables.ROW_SIZE or len(self._weights) == 1:
                return None
            weights = self._weights[:, first:last]
            guesses, spreads = (np.take_along_axis(values, weights.argmax(0)[None], 0)[0] for values in (means, scales))
        guesses, spreads = guesses.astype(np.float32) / tables.MEAN_STEPS + 0.5, tables.scale_levels()[spreads]
        if self.size > tables.ROW_SIZE:
            return tables.cdf_table(self.family, self._total), means.T, tables.inverse_scales()[scales].astype(np.int32).T, guesses, spreads
        return tables.row_table(self.family, self._total), tables.row_start(means, scales).astype(np.int32).T, weights.T, guesses, spreads


def _single(family, means, scales, size, lower):
    return DiscretizedMixture(family, array("means", means)[..., None], array("scales", scales)[..., None], None, size, lower)


def logistic(means, scales, size=256, lower=0):
    """Discretised logistic, one per symbol: integer means (1/16 level) and scale indices of the symbols' shape."""
    return _single("logistic", means, scales, size, lower)


def laplace(means, scales, size=256, lower=0):
    """Discretised Laplace; `scales` are indices of the grid for its scale b (standard deviation b * sqrt 2)."""
    return _single("laplace", means, scales, size, lower)


def gaussian(means, scales, size=256, lower=0):
    """Quantised Gaussian; `scales` are indices of the grid for its standard deviation."""
    return _single("gaussian", means, scales, size, lower)


def logistic_mixture(means, scales, weights, size=256, lower=0):
    """Mixture of K discretised logistics: means, scales, weights of shape (..., K), weights summing to 4096."""
    return DiscretizedMixture("logistic", means, scales, weights, size, lower)

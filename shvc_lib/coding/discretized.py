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
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import InvalidInput
from . import tables
from .cdf import IntegerCDF, support
from .checks import integers
from .rans import TOTAL

WEIGHT_TOTAL = 4096  # what a mixture's integer weights sum to
_WEIGHT_SHIFT = 6  # 2^12 * 2^18 * 2^-6 = 2^24, and every intermediate fits into int32
_BLOCK = 1 << 15  # symbols per block when computing intervals: a block's arrays stay in the cache


class DiscretizedMixture(IntegerCDF):
    """K components of one family ("logistic", "laplace", "gaussian") over lower ... lower + size - 1.

    means: integers (..., K) in 1/16 of a level, on the symbols' own axis (clamped to 64 levels outside the support);
    scales: integers (..., K), indices of the grid exp((i - 48) / 16) levels, 0 <= i < 192; weights: integers (..., K) >= 0 that sum to 4096,
    or None for K = 1. The symbols' shape is `means.shape[:-1]`. Raises InvalidInput.
    """

    def __init__(self, family, means, scales, weights=None, size=256, lower=0):
        if family not in tuple(tables.FAMILIES):
            raise InvalidInput(f"unknown family {family!r}: choose from {', '.join(tables.FAMILIES)}")
        self.family, (self.size, self.lower) = family, support(size, lower)
        means = integers("means (see mean_index)", means, -(1 << 29), 1 << 29)
        scales = integers("scales (see scale_index)", scales, 0, tables.SCALES - 1)
        if means.ndim == 0 or scales.shape != means.shape:
            raise InvalidInput(f"means and scales must have one shape (..., K), got {means.shape} and {scales.shape}")
        self.shape, count = means.shape[:-1], means.shape[-1]
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
        relative = self._components(means, count) - np.int32(tables.MEAN_STEPS * self.lower)
        self._means = np.clip(relative, low, high - tables.MEAN_STEPS, out=relative)
        self._scales = self._components(scales, count)

    @staticmethod
    def _components(values, count):
        return np.array(values.reshape(-1, count).T, dtype=np.int32, order="C")  # (K, N), a copy: the caller's array may change

    def _edges_at(self, offsets, part):
        """Edge `offsets` (one per symbol of the slice `part`), without the clamping of the outermost edges."""
        small, total = self.size <= tables.ROW_SIZE, 0
        table = tables.row_table(self.family, self._total) if small else None
        for k in range(len(self._means)):
            means, scales = self._means[k, part], self._scales[k, part]
            if small:
                values = table.take(tables.row_start(means, scales) + offsets)
            else:
                distance = tables.MEAN_STEPS * offsets.astype(np.int64) - tables.MEAN_STEPS // 2 - means
                values = tables.cdf_values(self.family, self._total, distance, scales)
            if self._weights is None:
                return values + offsets
            total = total + values * self._weights[k, part]
        return (total >> _WEIGHT_SHIFT) + offsets

    def intervals(self, symbols):
        offsets = self.offsets(symbols).astype(np.int32)
        start, freq = np.empty_like(offsets), np.empty_like(offsets)
        for first in range(0, offsets.size, _BLOCK):
            part = slice(first, first + _BLOCK)
            x = offsets[part]
            low, high = self._edges_at(x, part), self._edges_at(x + 1, part)
            low[x == 0] = 0
            high[x == self.size - 1] = TOTAL
            start[part], freq[part] = low, high - low
        return start, freq

    def masses(self, first, last):
        part, edges = slice(first, last), np.arange(self.size + 1, dtype=np.int32)
        if self.size <= tables.ROW_SIZE:
            windows = sliding_window_view(tables.row_table(self.family, self._total), self.size + 1)
            total = 0
            for k in range(len(self._means)):
                rows = windows[tables.row_start(self._means[k, part], self._scales[k, part])]
                if self._weights is not None:
                    rows *= self._weights[k, part, None]
                total = rows if k == 0 else np.add(total, rows, out=total)
            if self._weights is not None:
                total >>= _WEIGHT_SHIFT
        else:
            distance = tables.MEAN_STEPS * edges.astype(np.int64) - tables.MEAN_STEPS // 2
            total = 0
            for k in range(len(self._means)):
                values = tables.cdf_values(self.family, self._total, distance - self._means[k, part, None], self._scales[k, part, None])
                total = total + (values if self._weights is None else values * self._weights[k, part, None])
            if self._weights is not None:
                total >>= _WEIGHT_SHIFT
        total[:, 0], total[:, -1] = 0, TOTAL - self.size
        masses = np.subtract(total[:, 1:], total[:, :-1])
        masses += 1
        return masses


def _single(family, means, scales, size, lower):
    return DiscretizedMixture(family, integers("means (see mean_index)", means)[..., None],
                              integers("scales (see scale_index)", scales)[..., None], None, size, lower)


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

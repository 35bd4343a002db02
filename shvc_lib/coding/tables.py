"""Cumulative distribution functions as integer tables, the same on every machine.

A coder's two ends must agree on every probability to the last unit, and `exp` does not: numpy, torch and the C library differ in
the last digit, and so do two processors. Here the exponential is computed once, in exact integer fixed point (Python's
integers, 160 fractional bits), and tabulated; whatever follows is integer arithmetic. A table of a monotone function, looked up at a
monotone index and linear in between, is monotone by construction, so no symbol can end up with a negative mass.

Three standard CDFs (mean 0, scale 1) on a grid of 2048 points per unit, |u| <= 16: the logistic 1 / (1 + e^-u), the Laplace
and the Gaussian. Means of discretised distributions are multiples of 1/16 of a level, scales lie on the grid
exp((i - 48) / 16) levels, i = 0 ... 191. Taught in chapter 1, *Codes*, and needed by every codec of the book.
"""

from functools import lru_cache

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view

from ..errors import InvalidInput
from .checks import reals

MEAN_STEPS = 16  # mean grid: 1/16 of a level
SCALE_STEPS, SCALE_ZERO, SCALES = 16, 48, 192  # scale grid: exp((i - 48) / 16) levels
POINTS, REACH = 2048, 16  # table points per unit of u, and the largest |u|
MARGIN = 64  # means are clamped to this many levels outside the support
ROW_SIZE = 256  # supports up to this many levels have precomputed rows
_FRACTION = 160
_ONE = 1 << _FRACTION
_SHIFT = 16  # fractional bits of the inverse scales


def _exp(numerator, denominator):
    """e^(numerator / denominator) in fixed point, by its Taylor series (|argument| <= 4)."""
    term = total = _ONE
    for k in range(1, 200):
        term = term * numerator // (denominator * k)
        total += term
    return total


def _geometric(ratio, count):
    """1, ratio, ratio^2, ... in fixed point."""
    values = [_ONE]
    for _ in range(count):
        values.append(values[-1] * ratio >> _FRACTION)
    return values


def constant(table):
    """A shared table, protected against being written to by whoever looks at it."""
    table.setflags(write=False)
    return table


def _logistic_half():
    return [(1 << 2 * _FRACTION) // (_ONE + e) for e in _geometric(_exp(-1, POINTS), REACH * POINTS)]


def _laplace_half():
    return [_ONE - (e >> 1) for e in _geometric(_exp(-1, POINTS), REACH * POINTS)]


def _gaussian_half():
    # exp(-(i h)^2 / 2) at half steps h = 1 / (2 * POINTS) by two running products, then Simpson's rule per step
    # (error below 1e-20); dividing by the whole integral spares the constant.
    step = 2 * POINTS
    density, ratio, shrink = [_ONE], _exp(-1, 2 * step * step), _exp(-1, step * step)
    for _ in range(2 * REACH * POINTS):
        density.append(density[-1] * ratio >> _FRACTION)
        ratio = ratio * shrink >> _FRACTION
    areas = [0]
    for j in range(0, len(density) - 1, 2):
        areas.append(areas[-1] + density[j] + 4 * density[j + 1] + density[j + 2])
    return [(_ONE >> 1) + (_ONE >> 1) * a // areas[-1] for a in areas]


FAMILIES = {"logistic": _logistic_half, "laplace": _laplace_half, "gaussian": _gaussian_half}


@lru_cache(maxsize=None)
def _standard_cdf(family):
    """The standard CDF at u = -16 ... 16 with 36 fractional bits: int64, shape (65537,)."""
    upper = np.array([v >> (_FRACTION - 36) for v in FAMILIES[family]()], dtype=np.int64)
    return np.concatenate([(1 << 36) - upper[:0:-1], upper])


@lru_cache(maxsize=None)
def quantiles(family, bits):
    """Roughly where the standard CDF reaches the middles of 2^bits equal masses: float32. To begin a search with; no probability depends on it."""
    middles = (2 * np.arange(1 << bits, dtype=np.int64) + 1) << 35 - bits
    return constant((np.searchsorted(_standard_cdf(family), middles) / POINTS - REACH).astype(np.float32))


@lru_cache(maxsize=None)
def scale_levels():
    """The scale grid in levels, rounded: float32, shape (192,). To begin a search with; no probability depends on it."""
    return constant(np.exp((np.arange(SCALES) - SCALE_ZERO) / SCALE_STEPS).astype(np.float32))


@lru_cache(maxsize=None)
def inverse_scales():
    """2^16 * POINTS / (16 * scale) for each index of the scale grid: int64, shape (192,)."""
    shrink, value, out = _exp(-1, SCALE_STEPS), _exp(3, 1), []
    for _ in range(SCALES):
        out.append((value * (POINTS // MEAN_STEPS) << _SHIFT) + (_ONE >> 1) >> _FRACTION)
        value = value * shrink >> _FRACTION
    return constant(np.array(out, dtype=np.int64))


@lru_cache(maxsize=64)
def cdf_table(family, total):
    """round(total * CDF(u)) on the grid of u: int32, shape (65537,). `total` at most 2^24."""
    return constant(((_standard_cdf(family) * total + (1 << 35)) >> 36).astype(np.int32))


def cdf_values(family, total, offsets, scales):
    """total * CDF((edge - mean) / scale) as integers, linear between the points of the table (and so still monotone).

    `offsets`: edge - mean in 1/16 of a level (integers); `scales`: indices of the scale grid. They broadcast. int32.
    """
    u = np.asarray(offsets, dtype=np.int64) * inverse_scales()[scales] + (REACH * POINTS << _SHIFT)
    u = np.clip(u, 0, (2 * REACH * POINTS << _SHIFT) - 1)
    table, point = cdf_table(family, total), u >> _SHIFT
    low = table[point]
    # Levels may be finer than the table: without this, a wide distribution would give neighbours 0, 1 or 2 steps of mass.
    return low + ((table[point + 1] - low) * (u & (1 << _SHIFT) - 1) >> _SHIFT).astype(np.int32)


ROW = ROW_SIZE + 2 * (ROW_SIZE + MARGIN)  # one row: the CDF at every edge that a clamped mean can ask for
_ROW_ZERO = ROW_SIZE + MARGIN


@lru_cache(maxsize=4)
def row_table(family, total):
    """`cdf_values` for every scale (192), every phase of the mean (16) and every edge offset (ROW): int32, flat.

    A symbol's CDF over up to 256 levels is then one contiguous slice, found by `row_start`.
    """
    offsets = MEAN_STEPS * (np.arange(ROW) - _ROW_ZERO)[None, :] - np.arange(MEAN_STEPS)[:, None]
    rows = [cdf_values(family, total, offsets, i) for i in range(SCALES)]
    return constant(np.stack(rows).reshape(-1))


@lru_cache(maxsize=8)
def row_windows(family, total, edges):
    """`row_table` with every place as the start of a row of its own: a view, int32 of shape (places, edges)."""
    return sliding_window_view(row_table(family, total), edges)


def row_start(means, scales):
    """Index into `row_table` of the CDF at edge 0 (lower side of level 0), for means in 1/16 level relative to level 0."""
    shifted = means + MEAN_STEPS // 2  # edge e lies at e - 1/2
    return (scales * MEAN_STEPS + (shifted & 15)) * ROW + _ROW_ZERO - (shifted >> 4)  # = % 16 and // 16, much faster


def mean_index(means):
    """Float means in levels -> int32 means in 1/16 of a level (rounded). Raises InvalidInput on NaN or infinity."""
    means = reals("means", means)
    if np.abs(means).max() > 1 << 25:
        raise InvalidInput("means must be at most 2^25 in size")
    return np.rint(means * MEAN_STEPS).astype(np.int32)


def scale_index(scales):
    """Float scales in levels (> 0) -> int32 indices of the scale grid exp((i - 48) / 16), clamped to 0 ... 191."""
    scales = reals("scales", scales)
    if scales.min() <= 0:
        raise InvalidInput("scales must be positive")
    return np.clip(np.rint(SCALE_STEPS * np.log(scales)) + SCALE_ZERO, 0, SCALES - 1).astype(np.int32)


def normalize(name, weights):
    """Float weights (..., K) >= 0 -> float64 weights that sum to 1 along the last axis."""
    weights = reals(name, weights)
    if not weights.ndim or weights.min() < 0 or weights.max(-1).min() == 0:
        raise InvalidInput(f"{name} must not be negative and have a positive sum along the last axis")
    weights = weights / weights.max(-1, keepdims=True)  # first, so that the sum of huge or tiny numbers neither overflows nor vanishes
    return weights / weights.sum(-1, keepdims=True)


def weight_index(weights, total=4096):
    """Float weights (..., K) >= 0 with a positive sum -> int32 weights that sum to exactly `total` (largest remainders)."""
    exact = normalize("weights", weights) * total
    whole = np.floor(exact).astype(np.int32)
    rank = np.argsort(np.argsort(whole - exact, axis=-1, kind="stable"), axis=-1, kind="stable")
    return whole + (rank < (total - whole.sum(-1, keepdims=True)))

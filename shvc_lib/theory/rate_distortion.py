"""Rate and distortion: the fewest bits per symbol with which a source can be known to within an error D.

R(D) is the least mutual information I[X : Y] over all ways of making Y from X whose mean distortion is at most D
(Shannon 1948, 1959; Berger 1971; Cover and Thomas 2006, chapter 10). Two sources have a closed form, a Gaussian vector
has one after "reverse water-filling", and any finite source yields to the algorithm of Blahut (1972) and Arimoto
(1972). Taught in chapter 1, "Rate and distortion".

The functions of a closed form take `base` (2: bits, math.e: nats). Blahut-Arimoto speaks bits only.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import xlogy
from tqdm import tqdm

from ..errors import InvalidInput
from ._checks import distribution, log_base, number_or_array, real, scalar, whole
from .entropy import binary_entropy

LONG_RUN = 3.0  # seconds after which a run shows its progress bar unasked


def bernoulli_rd(D, p, base=2):
    """R(D) = h(p) - h(D) of a coin of probability p under Hamming distortion; zero from D = min(p, 1-p) on.

    D: error probabilities in [0, 1], any shape. p: a number in [0, 1]. Cover and Thomas, theorem 10.3.1. Raises InvalidInput.
    """
    D = real(D, "D", minimum=0.0)
    if D.max() > 1:
        raise InvalidInput(f"D is an error probability and must be at most 1, but contains {D.max():g}")
    p = scalar(p, "p", minimum=0.0)
    if p > 1:
        raise InvalidInput(f"p must be at most 1, not {p:g}")
    worst = min(p, 1 - p)
    return number_or_array(np.asarray(binary_entropy(p, base) - binary_entropy(np.minimum(D, worst), base)))


def gaussian_rd(D, variance=1.0, base=2):
    """R(D) = log(variance / D) / 2 of a Gaussian source under squared error; zero from D = variance on, infinite at D = 0.

    D: mean squared errors >= 0, any shape. variance: positive number. Cover and Thomas, theorem 10.3.2. Raises InvalidInput.
    """
    unit, D = log_base(base), real(D, "D", minimum=0.0)
    variance = scalar(variance, "variance", positive=True)
    with np.errstate(divide="ignore"):
        return number_or_array(np.maximum(np.log(variance) - np.log(D), 0.0) / 2 / unit)


def gaussian_dr(R, variance=1.0, base=2):
    """D(R) = variance * base^(-2R): the inverse of `gaussian_rd`, 6.02 dB per bit. R >= 0, any shape. Raises InvalidInput."""
    unit, R = log_base(base), real(R, "R", minimum=0.0)
    return number_or_array(scalar(variance, "variance", positive=True) * np.exp(-2 * unit * R))


@dataclass(frozen=True)
class WaterFilling:
    """Rates and distortions of independent Gaussian coordinates under one water level."""

    rate_bits: float  # of the whole vector
    distortions: np.ndarray  # (n,) mean squared error of each coordinate, min(level, variance)
    water_level: float
    rates: np.ndarray  # (n,) bits of each coordinate; zero for those under water


def reverse_water_filling(variances, D):
    """Split a total squared error D over independent Gaussian coordinates so that the total rate is least.

    Every coordinate gets the same distortion, the water level; one whose variance is below the level gets no bits. The
    level is found exactly, not by bisection. Cover and Thomas, theorem 10.3.3.

    variances: (n,), >= 0. D: total squared error (the sum over coordinates) >= 0. At D = 0 the rate is infinite, from the
    sum of the variances on it is zero. Returns WaterFilling, rates in bits. Raises InvalidInput.
    """
    variances = real(variances, "variances", minimum=0.0, ndim=1)
    D = scalar(D, "D", minimum=0.0)
    ascending = np.sort(variances)
    below = np.concatenate([[0.0], np.cumsum(ascending)[:-1]])  # distortion of the coordinates already under water
    candidates = (D - below) / np.arange(len(ascending), 0, -1)
    # The level is right for the first k at which it does not reach the k-th smallest variance.
    reached = np.flatnonzero(candidates <= ascending)
    level = float(max(candidates[reached[0]], 0.0) if len(reached) else ascending[-1])
    distortions = np.minimum(variances, level)
    with np.errstate(divide="ignore", invalid="ignore"):
        rates = np.where(variances > level, (np.log2(variances) - np.log2(level)) / 2, 0.0)
    return WaterFilling(float(rates.sum()), distortions, level, rates)


@dataclass(frozen=True)
class RDPoint:
    """One point of a rate-distortion curve, with the channel that reaches it."""

    rate: float  # bits per source symbol: the mutual information of p and `conditional`
    distortion: float
    slope: float  # bits per unit of distortion: minus the derivative of R(D) here
    conditional: np.ndarray  # (n, m) q(y | x)
    marginal: np.ndarray  # (m,) q(y) = sum_x p(x) q(y | x)
    gap: float  # bits: R(distortion) is certainly in [rate - gap, rate]
    iterations: int


def blahut_arimoto(p, distortion, slope, *, tolerance=1e-6, max_iterations=10_000, progress=None):
    """The point of R(D) at which the curve falls by `slope` bits per unit of distortion: `rd_curve` for one slope."""
    return rd_curve(p, distortion, [scalar(slope, "slope", minimum=0.0)], tolerance=tolerance, max_iterations=max_iterations,
                    progress=progress)[0]


def rd_curve(p, distortion, slopes, *, tolerance=1e-6, max_iterations=10_000, progress=None):
    """Blahut-Arimoto for many slopes at once: minimise rate + slope * distortion by alternating two exact steps.

    For a fixed marginal q(y) the best channel is q(y | x) ~ q(y) 2^(-slope d(x, y)); for a fixed channel the best q(y) is
    its marginal. With c(y) = sum_x p(x) q(y | x) / q(y), the rate of the channel exceeds R at its own distortion by at
    most  max_y log2 c(y) - sum_y q(y) c(y) log2 c(y)  bits (Blahut 1972, theorem 6). That bound is each point's `gap`, and
    a slope is done when its gap is at most `tolerance`.

    p: (n,) source probabilities. distortion: (n, m), >= 0. slopes: (s,), >= 0, bits per unit of distortion.
    progress: True or False, or None for a bar that appears once a run has taken three seconds. Returns a list of s
    RDPoints in the given order. A point that ran out of iterations keeps its honest `gap`. Cost per iteration: s n m
    operations and s n m * 8 bytes. Raises InvalidInput.
    """
    p = distribution(p, "p", ndim=1)
    distortion = real(distortion, "distortion", minimum=0.0, ndim=2)
    slopes = real(slopes, "slopes", minimum=0.0, ndim=1)
    tolerance = scalar(tolerance, "tolerance", positive=True)
    max_iterations = whole(max_iterations, "max_iterations", minimum=1)
    if len(distortion) != len(p):
        raise InvalidInput(f"distortion must have one row per symbol of p: {len(p)}, not {len(distortion)}")

    seen = p > 0  # rows of probability zero take no part; their channel is filled in at the end
    p_seen, d_seen = p[seen], distortion[seen]
    nearest = d_seen.min(1, keepdims=True)  # a common factor per row, taken out so that 2^(-slope d) cannot vanish everywhere
    kernels = np.exp2(-slopes[:, None, None] * (d_seen - nearest))  # (s, n, m)
    active = np.arange(len(slopes))
    marginals = np.full((len(slopes), distortion.shape[1]), 1 / distortion.shape[1])
    used, gaps, iterations = marginals.copy(), np.full(len(slopes), np.inf), np.zeros(len(slopes), int)

    with tqdm(total=max_iterations, desc="Blahut-Arimoto", leave=False, disable=progress is False,
              delay=0 if progress else LONG_RUN) as bar:
        for step in range(1, max_iterations + 1):
            q = marginals[active]
            normalisers = (kernels @ q[:, :, None])[:, :, 0]  # (s, n)
            growth = ((p_seen / normalisers)[:, None, :] @ kernels)[:, 0, :]  # c(y), (s, m)
            next_q = q * growth
            with np.errstate(divide="ignore"):
                gap = np.log2(growth.max(1)) - xlogy(next_q, growth).sum(1) / np.log(2)
            used[active], marginals[active], gaps[active], iterations[active] = q, next_q, gap, step
            bar.update()
            done = gap <= tolerance
            if done.any():
                active, kernels = active[~done], kernels[~done]
                if not len(active):
                    break

    return [_point(p, distortion, slope, q, gap, count) for slope, q, gap, count in zip(slopes, used, gaps, iterations)]


def _point(p, distortion, slope, q, gap, iterations):
    """The channel made from the marginal q, with its own rate and distortion (the ones that `gap` speaks of)."""
    with np.errstate(divide="ignore"):
        exponent = np.log2(q) - slope * distortion
    channel = np.exp2(exponent - exponent.max(1, keepdims=True))
    channel /= channel.sum(1, keepdims=True)
    marginal = p @ channel
    joint = p[:, None] * channel
    rate = (xlogy(joint, channel).sum() - xlogy(marginal, marginal).sum()) / np.log(2)
    return RDPoint(float(max(rate, 0.0)), float((joint * distortion).sum()), float(slope), channel, marginal,
                   float(max(gap, 0.0)), int(iterations))

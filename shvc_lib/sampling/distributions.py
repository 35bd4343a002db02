"""What can be sampled by a code: a target q and a proposal p, as arrays of independent one-dimensional distributions.

The target is what the sender alone knows (a posterior), the proposal what both ends know (a prior). Coded sampling needs four things of them:
log-densities, because candidates are judged by q(x) / p(x); the quantile function of p, because candidates are made from uniform numbers;
KL[q || p], the bits that a sample is worth; and the largest density ratio, which decides how long an exact sampler may have to
search. Densities are in nats, divergences in bits (Flamich 2019, chapter 1.7; Harsha et al. 2010). Taught in chapter 3.
"""

import math

import numpy as np
from scipy.special import ndtr, ndtri

from .. import theory
from ..coding.checks import integers, reals
from ..errors import InvalidInput
from .randomness import LARGEST

_STEP = 2.0**-12  # of asinh of a standardised value, in 16 bits
_HALF_LOG_2PI = 0.5 * math.log(2 * math.pi)


def _same_kind(q, p):
    if type(p) is not type(q):
        raise InvalidInput(f"a {type(q).__name__} is compared with its like, not with {type(p).__name__}")
    if isinstance(q, Discrete) and q.probabilities.shape[-1] != p.probabilities.shape[-1]:
        raise InvalidInput(f"distributions over {q.probabilities.shape[-1]} and over {p.probabilities.shape[-1]} values were mixed")


def common_shape(target, proposal, *arrays):
    """The shape to which a target, a proposal of the same kind and further arrays broadcast. Raises InvalidInput when they do not."""
    _same_kind(target, proposal)
    shapes = [target.shape, proposal.shape, *(np.shape(a) for a in arrays)]
    try:
        return np.broadcast_shapes(*shapes)
    except ValueError:
        raise InvalidInput(f"these shapes do not broadcast: {' and '.join(map(str, shapes))}") from None


def layout(target, proposal, stream, *arrays):
    """Which random stream each dimension reads: (streams, rows, shape), the first two flat.

    stream: None for 0, 1, 2, ... in raster order, or integers that broadcast with target, proposal and further arrays to `shape`, which may be
    larger than the targets' own; rows: which of the targets (in raster order) each stream samples. Raises InvalidInput.
    """
    own, shape = common_shape(target, proposal), common_shape(target, proposal, *arrays)
    stream = np.arange(math.prod(shape)).reshape(shape) if stream is None else integers("stream", stream, 0, LARGEST)
    shape = common_shape(target, proposal, stream, *arrays)
    rows = np.broadcast_to(np.arange(math.prod(own)).reshape(own), shape)
    return np.broadcast_to(stream, shape).reshape(-1), rows.reshape(-1), shape


class Gaussian:
    """Independent Gaussians N(mean, scale^2): float64 arrays `mean` and `scale` of one `shape` (() for a single one).

    `log_density`, `cdf` and `quantile` work element by element and broadcast; indexing picks dimensions. Raises InvalidInput for scales that
    are not positive, and for anything that is not finite.
    """

    def __init__(self, mean, scale):
        mean, scale = reals("mean", mean), reals("scale", scale)
        if scale.min() <= 0:
            raise InvalidInput(f"scale must be positive, but contains {scale.min():g}")
        try:
            self.mean, self.scale = np.broadcast_arrays(mean, scale)
        except ValueError:
            raise InvalidInput(f"mean {mean.shape} and scale {scale.shape} do not broadcast") from None
        self.shape = self.mean.shape

    def __getitem__(self, which):
        return Gaussian(self.mean[which], self.scale[which])

    def flat(self, shape):
        """The same, repeated to fill a larger shape and in raster order: shape (n,)."""
        return Gaussian(np.broadcast_to(self.mean, shape).reshape(-1), np.broadcast_to(self.scale, shape).reshape(-1))

    def log_density(self, x):
        """log density at x in nats."""
        return -0.5 * ((x - self.mean) / self.scale) ** 2 - np.log(self.scale) - _HALF_LOG_2PI

    def cdf(self, x):
        """Probability of values up to x."""
        return ndtr((x - self.mean) / self.scale)

    def quantile(self, u):
        """The value below which a share u of the probability lies: of uniform numbers in (0, 1) it makes samples."""
        return self.mean + self.scale * ndtri(u)

    def relative_to(self, other):
        """This Gaussian seen from `other`, in units where `other` is N(0, 1). Divergences and density ratios stay what they are."""
        _same_kind(self, other)
        return Gaussian((self.mean - other.mean) / other.scale, self.scale / other.scale)

    def kl(self, other):
        """KL[self || other] of each dimension, in bits."""
        seen = self.relative_to(other)
        nats = 0.5 * (seen.mean**2 + seen.scale**2 - 1) - np.log(seen.scale)
        return np.maximum(nats, 0) / math.log(2)  # rounding may leave -1e-17

    def max_log_ratio(self, other):
        """log of the largest self(x) / other(x) of each dimension, in nats; infinite unless `self` is narrower (or the same)."""
        seen = self.relative_to(other)
        narrower, same = seen.scale < 1, (seen.scale == 1) & (seen.mean == 0)
        room = np.where(narrower, 1 - seen.scale**2, 1)
        return np.where(narrower, seen.mean**2 / (2 * room) - np.log(seen.scale), np.where(same, 0.0, np.inf))[()]

    def hockey_stick(self, other):
        """A function of the level: the integral of max(self(x) - level * other(x), 0), the mass by which `self` sticks out, in each dimension.

        `self` = N(m, s^2) exceeds `level` times N(0, 1) where a x^2 - 2 m x + c < 0, with a = 1 - s^2: between two points when `self` is
        the narrower one, beyond one point when both are as wide, outside two points when it is the wider one. Where they do not
        cross, it is 1 - level or nothing. Level 0 is not asked for: it leaves everything.
        """
        seen = self.relative_to(other)
        m, s = np.abs(seen.mean), seen.scale  # mirrored, so that the upper tails are the ones that must be precise
        a = (1 - s) * (1 + s)
        side, two_points = np.sign(a), a != 0
        offset, slope, divisor = m**2 + 2 * s**2 * np.log(s), 2 * s**2, np.where(two_points, a, 1)

        def mass(level):
            c = offset + slope * np.log(level)
            discriminant = m**2 - a * c
            crossing = discriminant > 0
            reach = np.where(crossing, m + np.sqrt(np.maximum(discriminant, 0)), 1)
            near, far = c / reach, reach / divisor
            above_near = ndtr((m - near) / s) - level * ndtr(-near)
            past_far = ndtr(side * (m - far) / s) - level * ndtr(-side * far)  # above the far point, or below it when `self` is wider
            inside = above_near - np.where(two_points, side * past_far, 0)
            return np.clip(np.where(crossing, inside, np.where(a > 0, 0, 1 - level)), 0, 1)

        return mass

    def to_16_bits(self, x):
        """Values as integers 0 ... 65535. With z = (x - mean) / scale, steps of 2^-12 in asinh(z): sqrt(1 + z^2) / 4096 in z, up to |z| = 1490.

        Finer than half-precision floats wherever |z| > 0.5. Raises InvalidInput for values farther out."""
        code = np.rint(np.arcsinh((x - self.mean) / self.scale) / _STEP) + 32768
        if not ((code >= 0) & (code <= 65535)).all():
            raise InvalidInput("a value lies more than 1490 scales from the mean: 16 bits cannot hold it")
        return code.astype(np.int64)

    def from_16_bits(self, code):
        """The values that `to_16_bits` wrote. Raises InvalidInput for other codes."""
        return self.mean + self.scale * np.sinh((integers("code", code, 0, 65535).astype(np.int64) - 32768) * _STEP)


class Discrete:
    """Independent distributions over 0 ... n - 1: `probabilities` (..., n), rows that sum to one; `shape` is (...), and () for a single one.

    Values are integer arrays that broadcast with `shape`. Raises InvalidInput for what is no distribution.
    """

    def __init__(self, probabilities):
        p = reals("probabilities", probabilities)
        if not p.ndim or p.min() < 0 or np.abs(p.sum(-1) - 1).max() > 1e-6:
            raise InvalidInput("probabilities must not be negative and must sum to one along the last axis")
        self.probabilities = p / p.sum(-1, keepdims=True)
        self.shape = p.shape[:-1]

    def __getitem__(self, which):
        return Discrete(self.probabilities[which])

    def flat(self, shape):
        """The same, repeated to fill a larger shape and in raster order: shape (n,)."""
        size = self.probabilities.shape[-1]
        return Discrete(np.broadcast_to(self.probabilities, (*shape, size)).reshape(-1, size))

    def log_density(self, x):
        """log probability of x in nats: -inf where it is zero."""
        n = self.probabilities.shape[-1]
        x = integers("x", x, 0, n - 1)
        with np.errstate(divide="ignore"):
            table = np.log(self.probabilities)
        shape = np.broadcast_shapes(x.shape, self.shape)
        return np.take_along_axis(np.broadcast_to(table, (*shape, n)), np.broadcast_to(x, shape)[..., None], -1)[..., 0]

    def quantile(self, u):
        """The smallest x whose cumulative probability exceeds u, int64: of uniform numbers in (0, 1) it makes samples."""
        steps = np.cumsum(self.probabilities, -1)
        steps = steps[..., :-1] / steps[..., -1:]  # exactly 1 where only impossible values follow
        u = np.asarray(u)
        return np.searchsorted(steps, u, side="right") if not self.shape else (u[..., None] >= steps).sum(-1)

    def kl(self, other):
        """KL[self || other] of each distribution, in bits."""
        _same_kind(self, other)
        return theory.kl(self.probabilities, other.probabilities)

    def max_log_ratio(self, other):
        """log of the largest self(x) / other(x) of each distribution, in nats; infinite where `other` excludes what `self` has."""
        _same_kind(self, other)
        q, p = np.broadcast_arrays(self.probabilities, other.probabilities)
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.log(np.where(q > 0, q / p, 0).max(-1))

    def hockey_stick(self, other):
        """A function of the level: the sum of max(self(x) - level * other(x), 0), the mass by which `self` sticks out of each distribution."""
        _same_kind(self, other)
        return lambda level: np.maximum(self.probabilities - np.asarray(level)[..., None] * other.probabilities, 0).sum(-1)

    def to_16_bits(self, x):
        """Values as integers 0 ... 65535: the values themselves. Raises InvalidInput for distributions over more than 65536 values."""
        if self.probabilities.shape[-1] > 65536:
            raise InvalidInput(f"16 bits cannot hold one of {self.probabilities.shape[-1]} values")
        return integers("x", x, 0, self.probabilities.shape[-1] - 1).astype(np.int64)

    def from_16_bits(self, code):
        """The values that `to_16_bits` wrote. Raises InvalidInput for others."""
        return integers("code", code, 0, self.probabilities.shape[-1] - 1).astype(np.int64)

"""Groups of dimensions that share an index: importance sampling for a whole latent representation.

One index for all dimensions would need 2^KL candidates, one for each dimension wastes a bit or two every time. So dimensions are taken in raster order
into groups until the next one would bring the group's KL above a budget of B bits, or its size above G; each group is one block of
`importance` with 2^(B + t) candidates. A dimension that is worth more than K bits by itself, an outlier, is sampled from the target directly and sent
in 16 bits. The file holds which dimensions are outliers, their 16 bits, how large the groups are, and one index for each. The
receiver knows no KL and needs none. Flamich (2019), Algorithm 3 and section 3.5.3. Taught in chapter 3.

| in the paper | here |
| --- | --- |
| B, G, K | `budget`, `most`, `outlier` |
| OI, O hat | `Coded.outliers`, `Coded.escaped` |
| Gamma, I | `Coded.sizes`, `Coded.index` |
"""

from typing import NamedTuple

import numpy as np

from ..coding import TOTAL, Codec, Uniform, autoregressive, independent
from ..coding.cdf import Bernoulli
from ..coding.checks import integer, reals
from ..coding.codec import all_or_nothing
from ..errors import CorruptFile, InvalidInput
from . import importance
from .distributions import common_shape
from .index_codes import block, elias_gamma, smoothed
from .randomness import uniforms

_OUTLIER = 2  # purpose of the sender's random numbers for outliers
_NONE = np.zeros(0, dtype=np.int64)


class Coded(NamedTuple):
    """A coded sample. outliers: bool (dimensions,); escaped: 16-bit codes of the outliers; sizes, index: one per group (int64)."""

    outliers: np.ndarray
    escaped: np.ndarray
    sizes: np.ndarray
    index: np.ndarray


def partition(kl, budget, most, outlier=None):
    """(outliers, sizes): which dimensions have a KL above `outlier` bits (default: the budget), and the sizes of the groups of the others.

    kl: bits of each dimension, in raster order. A group's KL is at most `budget` bits and its size at most `most`; it ends where the next
    dimension would not fit. Raises InvalidInput, also when `outlier` exceeds `budget`: such a dimension would fit into no group.
    """
    kl, most = reals("kl", kl).reshape(-1), integer("most", most, 1)
    outlier = budget if outlier is None else outlier
    if not 0 <= outlier <= budget:
        raise InvalidInput(f"outliers begin at {outlier} bits, which must be from 0 to the budget of {budget} bits")
    outliers = kl > outlier
    ends, sizes, start = np.concatenate([[0.0], np.cumsum(kl[~outliers])]), [], 0
    while start < ends.size - 1:
        stop = int(np.searchsorted(ends, ends[start] + budget, side="right")) - 1
        stop = min(max(stop, start + 1), start + most)
        sizes.append(stop - start)
        start = stop
    return outliers, np.array(sizes, dtype=np.int64)


def encode(target, proposal, seed, budget=8, most=32, extra_bits=3, outlier=None):
    """A sample of the target as a `Coded`. Groups have at most `budget` bits of KL and `most` dimensions, and 2^(budget + extra_bits) candidates.

    target, proposal: Gaussian or Discrete, of shapes that broadcast. Raises InvalidInput.
    """
    shape = common_shape(target, proposal)
    target, proposal = target.flat(shape), proposal.flat(shape)
    outliers, sizes = partition(target.kl(proposal), budget, most, outlier)
    out, rest = np.flatnonzero(outliers), np.flatnonzero(~outliers)
    escaped = proposal[out].to_16_bits(target[out].quantile(uniforms(seed, out, 0, _OUTLIER))) if out.size else _NONE
    index = importance.encode(target[rest], proposal[rest], seed, budget + extra_bits, sizes, rest) if rest.size else _NONE
    return Coded(outliers, escaped, sizes, index)


def decode(coded, proposal, seed):
    """The sample that `encode` chose, in the shape of the proposal. Looks at one candidate per group. Raises InvalidInput."""
    shape, flat = proposal.shape, proposal.flat(proposal.shape)
    outliers = _checked(coded, flat.shape[0])
    out, rest = np.flatnonzero(outliers), np.flatnonzero(~outliers)
    x = flat.quantile(np.full(outliers.size, 0.5))
    if out.size:
        x[out] = flat[out].from_16_bits(coded.escaped)
    if rest.size:
        x[rest] = importance.decode(coded.index, flat[rest], seed, coded.sizes, rest)
    return x.reshape(shape)


def codec(dimensions, budget=8, most=32, extra_bits=3, observed=None):
    """The codec of a `Coded` of that many dimensions. An index costs budget + extra_bits bits, for importance sampling's indices are uniform.

    observed: group sizes seen in training, whose frequencies (with Laplace's smoothing) then code the sizes; without them a size costs
    log2(most) bits. Outliers cost the logarithm of their possible positions, and 16 bits each. Raises CorruptFile when what is popped is no sample.
    """
    dimensions, bits = integer("dimensions", dimensions, 1), integer("budget + extra_bits", budget + extra_bits, 0, importance.MOST_BITS)
    size_model = Uniform(most, 1) if observed is None else smoothed(observed, most, 1)

    def model():
        number = int((yield elias_gamma(1))[0])
        if number > dimensions:
            raise CorruptFile(f"{number} outliers among {dimensions} dimensions were read")
        if number:
            yield independent(Bernoulli(np.full(dimensions, np.clip(number * TOTAL // dimensions, 1, TOTAL - 1))))
            yield block(16, number)
        groups = int((yield elias_gamma(1))[0])
        if groups > dimensions:
            raise CorruptFile(f"{groups} groups of {dimensions} dimensions were read")
        if groups:
            yield independent(size_model, groups)
            yield block(bits, groups)

    parts = autoregressive(model)

    def listed(coded):
        outliers = _checked(coded, dimensions)
        escaped = [outliers.astype(np.int64), coded.escaped] if outliers.any() else []
        return [np.array([outliers.sum()]), *escaped, np.array([len(coded.sizes)])] + ([coded.sizes, coded.index] if len(coded.sizes) else [])

    def pop(stack):
        with all_or_nothing(stack):
            items = iter(parts.pop(stack))
            number = next(items)[0]
            outliers, escaped = (next(items).astype(bool), next(items)) if number else (np.zeros(dimensions, dtype=bool), _NONE)
            groups = next(items)[0]
            sizes, index = (next(items).astype(np.int64), next(items)) if groups else (_NONE, _NONE)
            if outliers.sum() != number or sizes.sum() + number != dimensions:
                raise CorruptFile("these bits are no groups: the sizes do not add up")
        return Coded(outliers, escaped, sizes, index)

    return Codec(lambda stack, coded: parts.push(stack, listed(coded)), pop, lambda coded: parts.bits(listed(coded)))


def _checked(coded, dimensions):
    """The outliers of a `Coded` that fits together."""
    outliers, escaped, sizes, index = (np.asarray(part) for part in coded)
    if (outliers.shape != (dimensions,) or outliers.dtype != bool or escaped.shape != (outliers.sum(),) or sizes.ndim != 1 or sizes.shape != index.shape
            or sizes.sum() + outliers.sum() != dimensions):
        raise InvalidInput(f"these outliers and groups do not describe {dimensions} dimensions")
    return outliers

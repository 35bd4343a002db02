"""Dithered quantisation: rounding with a shared random offset adds noise of a known shape, exactly, and searches nothing.

To send y with noise, both ends draw an offset u from (-1/2, 1/2). The sender rounds y / step - u to the nearest integer k, the receiver takes
step (k + u): that is y plus noise which is uniform over (-step / 2, step / 2) and independent of y (Roberts 1962; Ziv 1985; in learned compression
Agustsson and Theis 2020). The step is fixed in advance, so the receiver must know the target's scale; only its mean is the sender's secret.

Gaussian noise is uniform noise of a random width: if G has the chi-squared distribution with 3 degrees of freedom, uniform noise over a width of
2 scale sqrt(G) is N(0, scale^2), because a point uniform under a density has a uniform abscissa given its height. So the step is drawn from the
shared randomness, too, and the sample is exact (Hegazy and Li 2022).

Given u and the step, k is coded with the mass that the proposal has in k's cell. When the proposal is what targets average to and the scale is
small, this costs the mutual information plus 1/2 log2(2 pi e / 12) = 0.25 bits for uniform noise of the same variance, and plus 0.52 bits for
Gaussian noise. For one given target the cost depends on how likely its mean is, and not on its divergence alone. Taught in chapter 3.
"""

import math

import numpy as np
from scipy.special import ndtr, ndtri

from ..coding.checks import integers, reals
from ..errors import InvalidInput
from .distributions import Gaussian, layout
from .randomness import uniforms

_OFFSET, _WIDTH = 0, (1, 2)  # purposes of the random numbers


def encode(target, proposal, seed, noise="gaussian", stream=None):
    """Number of the cell of each dimension, int64, zero near the proposal's mean and of either sign.

    target, proposal: Gaussians, shapes that broadcast. noise: "gaussian", then the samples are the target's, or "uniform" with the target's mean and scale.
    stream: an integer per dimension, by default 0, 1, 2, ... in raster order; with more streams than dimensions, one sample is drawn
    per stream. Raises InvalidInput.
    """
    stream, rows, shape = layout(target, proposal, stream)
    own = np.broadcast_shapes(target.shape, proposal.shape)
    target, proposal = target.flat(own)[rows], proposal.flat(own)[rows]
    step, offset = _grid(seed, stream, target.scale, noise)
    cell = np.rint((target.mean - proposal.mean) / step - offset)
    if np.abs(cell).max() >= 1 << 53:
        raise InvalidInput("the target is so much narrower than its distance from the proposal that its cell has no number")
    return cell.astype(np.int64).reshape(shape)[()]


def decode(index, proposal, seed, scale, noise="gaussian", stream=None):
    """The samples, float64 in the shape of `index`. scale: of the targets, broadcasting with the index. Raises InvalidInput."""
    index, proposal, step, offset = _received(index, proposal, seed, scale, noise, stream)
    return proposal.mean + step * (index + offset)


def bits(index, proposal, seed, scale, noise="gaussian", stream=None):
    """Ideal codelength of each index in bits, -log2 of the proposal's mass in its cell, in the shape of `index`. Raises InvalidInput."""
    index, proposal, step, offset = _received(index, proposal, seed, scale, noise, stream)
    centre, half = np.abs(step * (index + offset)) / proposal.scale, step / proposal.scale / 2
    return -np.log2(np.maximum(ndtr(half - centre) - ndtr(-half - centre), np.finfo(float).tiny))


def _received(index, proposal, seed, scale, noise, stream):
    index, scale = integers("index", index, -(1 << 53), 1 << 53), reals("scale", scale)
    stream, _, shape = layout(proposal, proposal, stream, index)
    if shape != index.shape or np.broadcast_shapes(shape, scale.shape) != shape:
        raise InvalidInput(f"index has shape {index.shape}, proposal and streams have {shape}, scale {scale.shape}")
    return index, proposal, *_grid(seed, stream.reshape(shape), Gaussian(0.0, scale).scale, noise)


def _grid(seed, stream, scale, noise):
    """(step, offset) of each stream."""
    if noise == "gaussian":
        chi = -2 * np.log(uniforms(seed, stream, 0, _WIDTH[0])) + ndtri(uniforms(seed, stream, 0, _WIDTH[1])) ** 2  # two degrees of freedom and one
        step = 2 * scale * np.sqrt(chi)
    elif noise == "uniform":
        step = math.sqrt(12) * scale
    else:
        raise InvalidInput(f"noise must be gaussian or uniform, not {noise!r}")
    return step, uniforms(seed, stream, 0, _OFFSET) - 0.5

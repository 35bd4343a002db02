"""A trained `BitsBackVAE` of one level whose latent lies in other bins than those it was trained on: what the choice of bins costs.

The density q(z | x), its prior and the decoder stay as they are. Only the cut of the line changes: `coding.uniform_bins` of any width, or
`coding.equal_mass_bins` under the top prior. The decoder sees the centre of the bin, a multiple of 1/16 of a trained bin and so exact.

    codec(twin, image.shape, width=1 / 4)       # 1024 uniform bins, a quarter of those trained on; width=1 is `vae_codec.codec`'s grid
    codec(twin, image.shape, bits=10)           # 1024 bins of equal prior mass

`compare` codes images with many choices and tabulates net and initial bits; `floor_trap` shows why posteriors live in windows. Taught in chapter 2.
"""

from typing import NamedTuple

import numpy as np
import torch

from ..coding import BitStack, Codec, Uniform, binned_posterior, binned_prior, equal_mass_bins, independent, uniform_bins
from ..coding.bins import windows
from ..coding.bits_back import bits_back, push_chain
from ..coding.tables import MEAN_STEPS
from ..errors import InvalidInput
from ..nn.parameters import exact_means, exact_scales, to_integers
from . import vae_codec

WIDTHS, BITS = (4, 2, 1, 1 / 2, 1 / 4), range(6, 13)


def _integers(means, log_scales):
    return exact_means(to_integers(means)), exact_scales(to_integers(log_scales))


def make_bins(twin, width=None, bits=None):
    """The Bins of a choice: uniform ones of `width` trained bins (a power of two, 1/16 ... 128) or 2^bits of equal mass under the twin's top prior, a set per
    channel. Raises InvalidInput."""
    if (width is None) == (bits is None):
        raise InvalidInput("give the width of uniform bins, or the bits of bins of equal mass")
    if bits is not None:
        return equal_mass_bins("logistic", *_integers(*twin.top_prior()), bits)
    if width not in [2.0**k for k in range(-4, 8)]:
        raise InvalidInput(f"width must be a power of two from 1/16 to 128, got {width}")
    return uniform_bins(int(width * MEAN_STEPS), int(vae_codec.SIZE / width))


def _parts(twin, shape, width, bits):
    """(bins, Codec of z from the top prior, z -> Codec of x, x -> integer means and scale indices of q)."""
    if twin.levels != 1 or twin.deterministic:
        raise InvalidInput("only a stochastic model of one level has its latent cut into other bins")
    if len(shape) != 3:
        raise InvalidInput(f"the codec is for one image (H, W, 3), got {tuple(shape)}")
    _, (own_likelihood,), _ = vae_codec.codec(twin, shape, schedule=lambda *parts: parts)
    bins, latents = make_bins(twin, width, bits), (twin.latents, shape[0] // 2, shape[1] // 2)
    if bits is None:
        top = independent(binned_prior(bins, "logistic", *(np.broadcast_to(v, latents) for v in _integers(*twin.top_prior()))))
    else:
        uniform = independent(Uniform(bins.size), int(np.prod(latents)))
        top = Codec(uniform.push, lambda stack: uniform.pop(stack).reshape(latents), uniform.bits)

    def infer(image):
        image = torch.from_numpy(np.ascontiguousarray(image)).permute(2, 0, 1)[None]
        with torch.no_grad():
            return _integers(*(value[0] for value in twin.posterior(0, twin.pixels(image))))

    def likelihood(z):  # the codec's own, which wants trained bins
        return own_likelihood(bins.centre(z) / MEAN_STEPS)

    return bins, top, likelihood, infer


def codec(twin, shape, width=None, bits=None):
    """Codec of one uint8 image of `shape` (H, W, 3), even, for a stochastic twin of one level; width, bits: see `make_bins`. Raises InvalidInput."""
    bins, top, likelihood, infer = _parts(twin, shape, width, bits)
    return bits_back(top, likelihood, lambda image: binned_posterior(bins, "logistic", *infer(image)))


class Row(NamedTuple):
    """One choice of bins. `count`: bins per latent; net, initial: bits per image, arrays with an entry per image (`initial` as if it came first)."""

    name: str
    count: int
    net: np.ndarray
    initial: np.ndarray


def compare(twin, images, widths=WIDTHS, bits=BITS, seed=0):
    """A Row for every choice of bins: `images`, uint8 (N, H, W, 3), chained on random bits."""
    rows = []
    for choice in [{"width": width} for width in widths] + [{"bits": b} for b in bits]:
        ledgers = push_chain(codec(twin, images[0].shape, **choice), images, BitStack.random(32 * images[0].size, seed))
        name = f"width {choice['width']:g}" if "width" in choice else f"2^{choice['bits']} equal"
        rows.append(Row(name, make_bins(twin, **choice).size, *(np.array(column) for column in zip(*ledgers))))
    return rows


def floor_trap(twin, images, width=None, bits=None, seed=0):
    """What windows are good for. z of each image is popped under posteriors that have one count of 2^24 in every bin, however far away.

    Returns (wild, extra), arrays with an entry per image: how many latents were drawn from outside their windows, and how many bits more the image
    then costs, net, than with those latents drawn again under windows. The tables are whole: 0.1 s per image for 2^10 bins.
    """
    bins, top, likelihood, infer = _parts(twin, images[0].shape, width, bits)
    stack, wild, extra = BitStack.random(64 * images.size, seed), [], []
    for image in images:
        parameters = bins, "logistic", *infer(image)
        floored, windowed, (first, size) = independent(binned_prior(*parameters)), binned_posterior(*parameters), windows(*parameters)
        z = floored.pop(stack)
        outside = (z < first) | (z >= first + (1 << size))
        again = np.where(outside, windowed.pop(stack), z)
        costs = [likelihood(x).bits(image) + top.bits(x) - q.bits(x) for x, q in ((z, floored), (again, windowed))]
        wild.append(int(outside.sum()))
        extra.append(costs[0] - costs[1])
    return np.array(wild), np.array(extra)

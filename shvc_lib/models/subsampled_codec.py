"""Images through a `SubsampledSHVC`: from its exact twin to a Codec.

Encoder and decoder do the same: level by level, pass by pass, one network call that looks at what is known, and then the three colours in turn.

    codec(twin, (32, 32, 3)).push(stack, image)
    codec(twin, (64, 32, 32, 3)).push(lanes, images)  # a batch, each image on a stack of its own, the same bytes

Taught in chapter 7.
"""

import copy

import numpy as np
import torch

from ..coding import Codec, Uniform, autoregressive, independent, logistic_mixture
from ..errors import InvalidInput
from ..nn.autoregression import pairs
from ..nn.exact import to_exact
from ..nn.parameters import OUTPUT_BITS, relative_mixture, to_integers
from .subsampled import INPUT_BITS, ORDER, PASSES, surroundings

_MEAN_BITS = 4  # means and residuals come in 1/16 of a level
MOST = 128.0  # half of what an exact layer can return
SATURATE = 1e-4  # of the activations: a mean that is hundreds of scales away, from a flat neighbourhood to one other pixel, may as well be 256 away
_BAND = 1 << 14  # pixels that a network sees at a time


def exact_twin(model, images):
    """The exact twin of a trained SubsampledSHVC; `images`: uint8 (N, H, W, 3), typical ones to calibrate on."""
    lattice = torch.from_numpy(np.ascontiguousarray(images)).int()
    seen = [(number, surroundings(lattice[:, ::1 << level, ::1 << level], number, level)[0]) for level in range(3) for number in range(len(PASSES))]
    model = copy.deepcopy(model).eval()
    for number, network in enumerate(model.passes):
        _calm(network, torch.cat([inputs for own, inputs in seen if own == number]).float() / (1 << INPUT_BITS))
    return to_exact(model, lambda m: [part for number, inputs in seen for part in m(number, inputs)], saturate=SATURATE)


@torch.no_grad()
def _calm(network, x):
    """Divide channels of a pass by powers of two until none of its layers returns more than `MOST` for the inputs x. What the network computes does not change:
    ReLU passes factors on, and the layers that read a channel are multiplied."""
    found = network.first(x)
    most, hidden = found.abs().amax(0), found.relu()
    for layer in network.layers:
        found = layer(hidden)
        most, hidden = torch.maximum(most, found.abs().amax(0)), hidden + found.relu()
    factors = torch.exp2(torch.ceil(torch.log2(most / MOST))).clamp_min(1)
    for layer in (network.first, *network.layers):
        layer.weight /= factors[:, None]
        layer.bias /= factors
    for layer in (*network.layers, network.last):
        layer.weight *= factors


def _places(height, width):
    """(level, number) of all passes that have pixels, in coding order."""
    for level in reversed(range(max(height - 1, width - 1).bit_length())):
        for number, (row, column) in enumerate(PASSES):
            if row << level < height and column << level < width:
                yield level, number


def _sub_block(canvas, level, number):
    """The pixels of a pass on a canvas (B, H, W, 3): a view."""
    row, column = PASSES[number]
    return canvas[:, row << level::2 << level, column << level::2 << level]


def _bands(batch, height, width):
    """(rows, columns) slices of a sub-block, each of some `_BAND` pixels: several rows, or a part of one."""
    across = max(1, min(width, _BAND // batch))
    down = max(1, _BAND // (batch * across))
    for top in range(0, height, down):
        for left in range(0, width, across):
            yield slice(top, top + down), slice(left, left + across)


def _answers(twin, canvas, level, number, shape):
    """Of the pixels of a sub-block of `shape` (B, h, w): means (1/16 level) and indices of scales, int64 (B, h, w, 3) and (B, h, w, 1), and what the network
    says, multiples of 2^-12, int64 (B, h, w, 3, K) each: offsets, log scales, logits, factors."""
    own, found = slice(None, None, 1 << level), None
    for rows, columns in _bands(*shape):
        inputs, means, scales = surroundings(canvas[:, own, own], number, level, rows, columns)
        with torch.no_grad():
            parts = [means.numpy(), scales.numpy(), *(to_integers(values) for values in twin(number, inputs))]
        found = found or [np.empty((*shape, *part.shape[1:]), dtype=np.int64) for part in parts]
        for whole, part in zip(found, parts):
            place = whole[:, rows, columns]
            place[...] = part.reshape(place.shape)
    return found


def _model(twin, shape):
    """The images' distribution as a generator in decoding order (see `coding.autoregressive`); shape: (H, W, 3), or (B, H, W, 3) over `Lanes`."""
    batch = shape[:-3]
    canvas = torch.zeros((1, *shape)[-4:], dtype=torch.int32)
    canvas[:, 0, 0] = torch.from_numpy((yield independent(Uniform(256), len(canvas) * 3)).reshape(-1, 3))
    for level, number in _places(*shape[-3:-1]):
        block, residuals = _sub_block(canvas, level, number), []
        means, scales, offsets, log_scales, logits, factors = _answers(twin, canvas, level, number, block.shape[:-1])
        for c, colour in enumerate(ORDER):
            centre = means[..., colour, None] << OUTPUT_BITS - _MEAN_BITS
            for j, (target, i) in enumerate(pairs(len(ORDER))):
                if target == c:
                    centre = centre + (factors[..., j, :] * residuals[i] >> _MEAN_BITS)
            mixture = relative_mixture(centre, scales, offsets[..., c, :], log_scales[..., c, :], logits[..., c, :])
            symbols = yield logistic_mixture(*(values.reshape(*batch, -1, values.shape[-1]) for values in mixture))
            block[..., colour] = torch.from_numpy(symbols).reshape(block.shape[:-1])
            residuals.append((symbols.reshape(*block.shape[:-1], 1).astype(np.int64) << _MEAN_BITS) - means[..., colour, None])


def codec(twin, shape):
    """Codec of uint8 images of `shape`, (H, W, 3), or a batch (B, H, W, 3) over `coding.lanes.Lanes`. No initial bits. Raises InvalidInput."""
    if len(shape) not in (3, 4) or shape[-1] != 3 or min(shape) < 1:
        raise InvalidInput(f"the codec is for one image (H, W, 3) or a batch (B, H, W, 3), got {tuple(shape)}")
    inner, batch, places = autoregressive(lambda: _model(twin, shape)), shape[:-3], [*_places(*shape[-3:-1])]

    def check(stack):
        if len(shape) == 4 and shape[0] > 1 and not hasattr(stack, "stacks"):  # a BitStack would take them colour by colour, not image by image
            raise InvalidInput("a batch of images needs a stack for each: use coding.lanes.Lanes")

    def parts(images):
        """The values that the generator will ask for."""
        images = np.asarray(images)
        if images.dtype != np.uint8 or images.shape != tuple(shape):
            raise InvalidInput(f"this codec takes uint8 of shape {tuple(shape)}, got {images.dtype} of shape {images.shape}")
        images = images.reshape((1, *shape)[-4:])
        blocks = [_sub_block(images, *place) for place in places]
        return [images[:, 0, 0].reshape(*batch, 3), *(block[..., colour].reshape(*batch, -1) for block in blocks for colour in ORDER)]

    def push(stack, images):
        check(stack)
        inner.push(stack, parts(images))

    def pop(stack):
        check(stack)
        values = inner.pop(stack)
        images = np.empty((1, *shape)[-4:], dtype=np.uint8)
        images[:, 0, 0] = values.pop(0).reshape(-1, 3)
        for place in places:
            block = _sub_block(images, *place)
            for colour in ORDER:
                block[..., colour] = values.pop(0).reshape(block.shape[:-1])
        return images.reshape(shape)

    return Codec(push, pop, lambda images: inner.bits(parts(images)))

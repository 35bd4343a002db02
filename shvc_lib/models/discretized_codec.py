"""A lossy image codec whose latents are integers: round, code, and read them off the stack again, layer by layer.

    sender:    image -> y, z1, z2 -> k = [latent - mean], layer by layer -> each k under its prior's integer masses -> a stack of bits
    receiver:  bits -> k of the top layer -> mean and scale of the next -> its k ... -> all latents, mean + k -> synthesis -> the picture

Both ends must agree on every mean and every scale to the last bit. The network between the layers is an exact twin (`nn.exact`), and the
factors between its standardised numbers and integers are integers themselves (`discretized_calibration.ready`): means come out as multiples of
1/16, scales as indices of the coder's grid. There are only 192 scales, so all latents of one layer that share one are coded together, by one row of masses. The
synthesis runs in float64 and its result is rounded to pixels: another machine may differ in the thirteenth digit.

Images of any size are padded at the right and at the bottom, by repeating the last pixels, to multiples of 16 pixels (one layer) or 64 (a hierarchy): both ends
know the size, the file holds it in its header, and the picture is cropped. The payload: a byte for the operating point, then the stack. Taught in chapter 4.
"""

import copy
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ..coding import BitStack, Categorical, gaussian
from ..coding.discretized import DiscretizedMixture
from ..coding.tables import MEAN_STEPS, SCALE_STEPS, SCALE_ZERO
from ..errors import CorruptFile, InvalidInput, OutOfBits, UnsupportedImage
from ..nn import exact_kernels, exact_means, exact_scales, to_integers
from ..nn.parameters import OUTPUT_BITS, round_shift
from ..nn.transforms import DOWN
from .hierarchy import proceed

UPPER_DOWN = 64  # pixels per position of z1, along each axis
UNIT_BITS, INVERSE_BITS, INPUT_BITS = 8, 12, 8  # fractional bits of units, of their inverses, and of what the prior's network sees
_MOST_SCALE = 112  # exp((112 - 48) / 16) = 55 integers
_REACH = 128  # every row holds at least the integers -128 ... 127: what the prior did not expect costs 24 bits, and is not lost
_MOST = 1 << 14  # a latent's largest size


@lru_cache(maxsize=256)
def _row(scale):
    """The masses of round(N(0, s^2)), s the scale of this index: a Categorical with one row, wide enough for ten s."""
    half = _REACH
    while half < 10 * np.exp((scale - SCALE_ZERO) / SCALE_STEPS):
        half *= 2
    return Categorical(gaussian(np.zeros(1, np.int32), np.full(1, scale, np.int32), 2 * half, -half).frequencies()[0], -half)


def _mixture_row(means, scales, weights):
    """The masses of one channel's mixture, of integer parameters (components,), over a power of two of integers around 0."""
    reach = float((np.abs(means) / MEAN_STEPS + 10 * np.exp((scales - SCALE_ZERO) / SCALE_STEPS)).max())
    half = _REACH
    while half < min(reach, 1 << 11):
        half *= 2
    masses = DiscretizedMixture("gaussian", means[None], scales[None], weights[None], 2 * half, -half).frequencies()[0]
    return Categorical(masses, -half)


class Rows(NamedTuple):
    """How the integers of one layer are coded. groups: pairs (Categorical, flat positions), in the order in which they are popped."""

    groups: list

    def clipped(self, k):
        """k, flat, within what its rows hold: what is farther away is sent as the last integer."""
        k = k.copy()
        for row, where in self.groups:
            k[where] = np.clip(k[where], row.lower, row.lower + row.size - 1)
        return k

    def push(self, stack, k):
        for row, where in reversed(self.groups):
            stack.push(k[where], row)

    def pop(self, stack):
        k = np.zeros(sum(len(where) for _, where in self.groups), np.int64)
        for row, where in self.groups:
            k[where] = stack.pop(row, len(where))
        return k

    def bits(self, k):
        """Ideal bits of each integer: float64, flat."""
        bits = np.zeros(k.size)
        for row, where in self.groups:
            bits[where] = row.bits(k[where])
        return bits


def _by_scale(scales):
    """Rows of Normals around 0 with these indices of the scale grid, flat."""
    order = np.argsort(scales, kind="stable")
    found, first = np.unique(scales[order], return_index=True)
    return Rows([(_row(int(scale)), where) for scale, where in zip(found, np.split(order, first[1:]))])


class Step(NamedTuple):
    """One layer: source "z1", "z2" or "y"; channels: slice of its channels; where: bool (h, w), its positions; mean: int64 (channels, positions) in
    1/16; rows: how k is coded; agreed: bytes that both ends must have in common."""

    source: str
    channels: slice
    where: np.ndarray
    mean: np.ndarray
    rows: Rows
    agreed: bytes


def padded(side, model):
    """The side of the image that is coded, a multiple of 16 or 64."""
    down = UPPER_DOWN if model.groups else DOWN
    return -(-side // down) * down


@torch.no_grad()
def steps(model, point, height, width):
    """A generator of the Steps of an image of this size, top layer first, which wants each one's k sent, int64 (channels, positions). It returns y: float64
    (latents, h, w), integers and sixteenths. model: a DiscretizedVAE made `ready`."""
    if not 0 <= point < len(model.lambdas):
        raise InvalidInput(f"operating points are 0 ... {len(model.lambdas) - 1}, not {point}")
    high, wide = (padded(side, model) // DOWN for side in (height, width))
    factorised = model.top if model.groups else model.prior
    parameters = [table[point].long().numpy() for table in (factorised.means, factorised.scales, factorised.weights)]
    if not model.groups:
        k = yield _factorised("y", parameters, high, wide)
        return k.reshape(-1, high, wide).astype(np.float64)
    tables = [table[point].long().numpy() for table in (model.unit_table, model.inverse_table, model.log_table)]
    k = yield _factorised("z1", parameters, high // 4, wide // 4)
    count, upper = len(model.spread), model.upper
    slots = {"z1": slice(count, count + upper), "z2": slice(count + upper, None), "y": slice(0, count)}
    sent = _standardised(k.reshape(1, upper, high // 4, wide // 4) * MEAN_STEPS, tables[1][slots["z1"]])
    y, points = np.zeros((count, high, wide), np.int64), torch.tensor([point])
    walk = model.hierarchy.walk(sent, points)
    with exact_kernels():
        layer = proceed(walk, None)
    while layer is not None:
        where = np.ones(layer.mean.shape[2:], bool) if layer.fields is None else layer.fields[0, 0].numpy()
        unit, inverse, log = (table[slots[layer.source]][layer.channels] for table in tables)
        mean, scale = (to_integers(value)[0][:, where] for value in (layer.mean, layer.log_scale))
        mean = exact_means(mean * unit[:, None], OUTPUT_BITS + UNIT_BITS).astype(np.int64)
        scale = np.minimum(exact_scales(scale + log[:, None]), _MOST_SCALE)
        k = yield Step(layer.source, layer.channels, where, mean, _by_scale(scale.reshape(-1)), mean.astype("<i4").tobytes() + scale.astype("<i4").tobytes())
        values = np.zeros((1, len(mean), *where.shape), np.int64)
        values[0][:, where] = np.clip(mean + MEAN_STEPS * k, -_MOST * MEAN_STEPS, _MOST * MEAN_STEPS)
        if layer.source == "y":
            y[layer.channels] += values[0]
        with exact_kernels():
            layer = proceed(walk, _standardised(values, inverse))
    return y / MEAN_STEPS


def _standardised(values, inverse):
    """Integers (1, C, h, w) in 1/16 times their units' inverses, as the prior's network takes them: float32, multiples of 2^-8 below 128."""
    scaled = round_shift(values * inverse[:, None, None], INVERSE_BITS + 4 - INPUT_BITS)
    return torch.from_numpy(np.clip(scaled, -127 << INPUT_BITS, 127 << INPUT_BITS)).float() / 2**INPUT_BITS


def _factorised(source, parameters, high, wide):
    count, size = len(parameters[0]), high * wide
    rows = Rows([(_mixture_row(*values), np.arange(c * size, (c + 1) * size)) for c, values in enumerate(zip(*parameters))])
    return Step(source, slice(0, count), np.ones((high, wide), bool), np.zeros((count, size), np.int64), rows, b"")


class Coded(NamedTuple):
    """What `encode` returns. payload: bytes; picture: what they decode to, uint8 (H, W, 3); agreed: bytes that sender and receiver must have in common, for
    a checksum; bits: ideal bits of each layer, a list of float64 arrays (channels, h, w), the top one first, with zeros where a layer has no latents."""

    payload: bytes
    picture: np.ndarray
    agreed: bytes
    bits: list


@torch.no_grad()
def encode(model, image, point):
    """One image as a `Coded`. model: a DiscretizedVAE made `ready`; image: uint8 (H, W, 3); point: operating point, 0 the coarsest. Raises InvalidInput,
    UnsupportedImage."""
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UnsupportedImage(f"this model codes uint8 images of shape (H, W, 3), not {image.dtype} {image.shape}")
    size = image.shape[:2]
    walk = steps(model, point, *size)
    step, found, bits = next(walk), [], []
    pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float()
    pixels = F.pad(pixels, (0, padded(size[1], model) - size[1], 0, padded(size[0], model) - size[0]), mode="replicate")
    points = torch.tensor([point])
    y = model.latents(pixels, points)
    latents = {"y": y} | dict(zip(("z1", "z2"), model.upper_latents(y, points) if model.groups else ()))
    latents = {name: values[0].double().numpy() for name, values in latents.items()}
    while step is not None:
        offset = latents[step.source][step.channels][:, step.where] - step.mean / MEAN_STEPS
        k = step.rows.clipped(np.rint(offset).astype(np.int64).reshape(-1))
        found.append((step, k))
        costs = np.zeros((len(step.mean), *step.where.shape))
        costs[:, step.where] = step.rows.bits(k).reshape(len(step.mean), -1)
        bits.append(costs)
        step, quantised = _send(walk, k.reshape(step.mean.shape))
    stack = BitStack()
    for step, k in reversed(found):
        step.rows.push(stack, k)
    agreed = b"".join(step.agreed + k.astype("<i4").tobytes() for step, k in found)
    return Coded(bytes([point]) + stack.to_bytes(), picture(model, quantised, point, size), agreed, bits)


def decode(model, payload, height, width):
    """(picture, agreed): the uint8 (H, W, 3) in a payload, and the bytes that its sender's must equal. Raises CorruptFile."""
    if not payload or payload[0] >= len(model.lambdas):
        raise CorruptFile("the payload does not begin as one of this model")
    walk, agreed = steps(model, payload[0], height, width), []
    step = next(walk)
    try:
        stack = BitStack.from_bytes(payload[1:])
        while step is not None:
            k = step.rows.pop(stack)
            agreed += [step.agreed, k.astype("<i4").tobytes()]
            step, quantised = _send(walk, k.reshape(step.mean.shape))
    except (OutOfBits, InvalidInput) as error:
        raise CorruptFile(f"the stream cannot be decoded ({error})") from None
    if stack.bits:
        raise CorruptFile(f"{stack.bits} bits are left over after the last latent")
    return picture(model, quantised, payload[0], (height, width)), b"".join(agreed)


def _send(walk, k):
    """(the next Step, None), or (None, y) at the end."""
    try:
        return walk.send(k), None
    except StopIteration as end:
        return None, end.value


@torch.no_grad()
def picture(model, y, point, size):
    """The reconstruction of latents, float64 (latents, h, w): uint8 (H, W, 3), computed in float64."""
    gain = model.log_gain[point].double().exp()[:, None, None]
    pixels = copy.deepcopy(model.synthesis).double()(torch.from_numpy(y)[None] / gain)[0]
    levels = torch.round(((pixels + 0.5) * 255).clamp(0, 255)).to(torch.uint8)
    return levels[:, :size[0], :size[1]].permute(1, 2, 0).contiguous().numpy()


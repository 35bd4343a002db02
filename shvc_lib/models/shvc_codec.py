"""Images through an `SHVC`: from its exact twin to a Codec.

To push, every conditional is evaluated in one pass, since everything is known; to pop, sub-block by sub-block, k^2 network calls per variable whatever the
image's size, and within a sub-block channel by channel, which takes no further call. The twin (`nn.exact`) makes both see the same integers. Conditionals
are pushed in reverse (the paper's local reverse encoding, section 4.3): a stack returns last what was pushed first.

    codec(twin, (32, 32, 3)).push(stack, image)       # SHVC: bits-back, needs initial bits. SHVC-ArIB: none. Deterministic: none
    codec(twin, (64, 32, 32, 3)).push(lanes, images)  # a batch, each image on a stack of its own, the same bytes

Taught in chapters 5 and 6.
"""

import copy

import numpy as np
import torch

from ..coding import Codec, autoregressive, logistic, logistic_mixture
from ..coding.arib import Split, arib, mode_first
from ..coding.bits_back import bit_swap, bits_back
from ..errors import InvalidInput
from ..nn.autoregression import pairs
from ..nn.exact import to_exact
from ..nn.parameters import OUTPUT_BITS, exact_means, exact_scales, exact_weights, logistic_window, round_shift, to_integers
from . import subsampled_codec
from .shvc import BINS_PER_UNIT, FINE, LEAST, LEVELS_PER_UNIT, LOW, LOWEST, MOST, PRIOR_HIGH, SIZE
from .subsampled import SubsampledSHVC

WINDOW = 96  # bins of a posterior around its mean
_GRID = 1 << OUTPUT_BITS


def exact_twin(model, images):
    """The exact twin of a trained SHVC; `images`: uint8 (N, H, W, 3), a few dozen typical ones to calibrate on."""
    batch = torch.from_numpy(np.ascontiguousarray(images)).permute(0, 3, 1, 2)
    return to_exact(model, lambda m: m.everything(batch))


def float_twin(model):
    """What `codec` also accepts and nobody should write files with: the float network itself, its outputs rounded to multiples of 2^-12.

    Everything else of the codec is the same. It is there to be measured: one pass and step by step differ in the last digit, some value then rounds
    to the other side, and from there on the decoder reads noise."""
    twin = copy.deepcopy(model).eval().requires_grad_(False)

    def rounding(method):
        def rounded(*arguments):
            return tuple((values * _GRID).round() / _GRID for values in method(*arguments))
        return rounded

    twin.posterior = rounding(twin.posterior)
    for conditional in twin.conditionals:
        conditional.forward, conditional.step = rounding(conditional.forward), rounding(conditional.step)
    return twin


class _Conditional:
    """Sub-blocks lo ... hi - 1 of level `level`, given those before and what is above: a Codec of integers (B, hi - lo, C, h, w), without the B for one image.

    known: integers (B, lo, C, h, w); above: z_(level + 1), integers (B, C', h', w'), None at the top or where nothing of it is seen."""

    def __init__(self, twin, level, shape, known=None, above=None, lo=0, hi=None, single=False):
        self.twin, self.level, self.net, self.single = twin, level, twin.conditionals[level], single
        self.lo, self.hi, self.middle = lo, self.net.count if hi is None else hi, 128 if level == 0 else 0
        self.unit = LEVELS_PER_UNIT if level == 0 else BINS_PER_UNIT
        self.steps = _GRID * FINE // self.unit  # integers per level or bin in which means are added up
        self.blocks = np.full((shape[0], self.net.count, self.net.channels, *shape[1:]), self.middle, dtype=np.int32)
        if known is not None:
            self.blocks[:, :lo] = known
        with torch.no_grad():
            if above is None and level < twin.levels:
                k = twin.ks[level]
                above = np.zeros((shape[0], twin.latents, *(side * k // 2 for side in shape[1:])), dtype=np.int32)
            context = None if above is None else torch.from_numpy(above).float() / BINS_PER_UNIT
            self.seen = twin.context(level, context, self._tensor(self.blocks))

    def codec(self):
        return Codec(self.push, self.pop, self.bits)

    def _tensor(self, blocks):
        return torch.from_numpy(blocks - self.middle).float().flatten(1, 2) / self.unit

    def _parameters(self, centres, outputs):
        """Integers of n sub-blocks (B, n, C, h, w) from the twin's tensors: (linear predictions, these corrected, log scales, logits, weak factors)."""
        corrections, log_scales, logits, factors = self.twin.split_outputs(self.level, outputs)
        centres, factors = FINE * to_integers(centres), to_integers(factors)
        corrections, log_scales = to_integers(corrections), to_integers(log_scales)
        if self.level == 0:
            last = lambda v: np.moveaxis(v, 3, -1)  # noqa: E731
            low, high = round(LEAST * _GRID), round(MOST * _GRID)
            return centres, centres[..., None] + last(corrections), np.clip(last(log_scales), low, high), last(to_integers(logits)), factors
        return centres, centres + corrections, np.clip(log_scales, round(LOW * _GRID), round(PRIOR_HIGH * _GRID)), None, factors

    def _shift(self, residuals, factors, c):
        """The weak autoregressive shift of channel c (..., h, w), from residuals (..., C, h, w) of the channels before it and factors (..., pairs, h, w)."""
        shift = 0
        for j, (target, i) in enumerate(pairs(self.net.channels)):
            if target == c:
                shift = shift + round_shift(factors[..., j, :, :] * residuals[..., i, :, :], OUTPUT_BITS)
        return shift

    def _distribution(self, means, log_scales, logits):
        bits = self.steps.bit_length() - 1
        means, scales = exact_means(means + self.middle * self.steps, bits), exact_scales(log_scales)
        if self.single:
            means, scales = means[0], scales[0]
        if logits is None:
            return logistic(means, scales, SIZE, LOWEST)
        return logistic_mixture(means, scales, exact_weights(logits[0] if self.single else logits))

    def _whole(self, y):
        """The IntegerCDF of known sub-blocks y (B, hi - lo, C, h, w): one pass."""
        blocks = self.blocks.copy()
        blocks[:, self.lo:self.hi] = y
        with torch.no_grad():
            centres, outputs = self.net(self._tensor(blocks), self.seen)
        part = slice(self.lo, self.hi)
        centres, means, log_scales, logits, factors = self._parameters(centres[:, part], outputs[:, part])
        residuals = (blocks[:, part].astype(np.int64) - self.middle) * self.steps - centres
        shift = np.stack([self._shift(residuals, factors, c) + np.zeros_like(residuals[..., 0, :, :]) for c in range(self.net.channels)], -3)
        return self._distribution(means + (shift if logits is None else shift[..., None]), log_scales, logits)

    def _batched(self, y):
        y = np.asarray(y)
        expected = (len(self.blocks), self.hi - self.lo, *self.blocks.shape[2:])[self.single:]
        if y.shape != expected:
            raise InvalidInput(f"sub-blocks of shape {y.shape} were given to a codec of {expected}")
        return y[None] if self.single else y

    def _check(self, stack):
        if len(self.blocks) > 1 and not hasattr(stack, "stacks"):  # pushed image by image, popped sub-block by sub-block
            raise InvalidInput("a batch of images needs a stack for each: use coding.lanes.Lanes")

    def push(self, stack, y):
        self._check(stack)
        stack.push(np.ascontiguousarray(y), self._whole(self._batched(y)))

    def bits(self, y):
        return float(self._whole(self._batched(y)).bits(np.ascontiguousarray(y)).sum())

    def pop(self, stack):
        self._check(stack)
        blocks = self.blocks.copy()
        for i in range(self.lo, self.hi):
            with torch.no_grad():
                centres, outputs = self.net.step(self._tensor(blocks), self.seen, i)
            centres, means, log_scales, logits, factors = self._parameters(centres[:, None], outputs[:, None])
            residuals = np.zeros_like(centres)
            for c in range(self.net.channels):
                shift = self._shift(residuals, factors, c) + np.zeros_like(centres[:, :, c])
                cdf = self._distribution(means[:, :, c] + (shift if logits is None else shift[..., None]), log_scales[:, :, c],
                                         None if logits is None else logits[:, :, c])
                blocks[:, i, c] = stack.pop(cdf).reshape(blocks[:, i, c].shape)
                residuals[:, :, c] = (blocks[:, i:i + 1, c].astype(np.int64) - self.middle) * self.steps - centres[:, :, c]
        y = blocks[:, self.lo:self.hi]
        return y[0] if self.single else y


class Images:
    """The codecs of uint8 images of `shape`, (H, W, 3) or (B, H, W, 3), under an exact (or float) twin. H, W: multiples of the model's unit.

    `codec()` is what to use; `split()`, for a model with a split, returns the parts of its ArIB code, whose values are pairs of sub-blocks (see `parts`)."""

    def __init__(self, twin, shape):
        if len(shape) not in (3, 4) or shape[-1] != 3 or min(shape) < 1:
            raise InvalidInput(f"the codec is for one image (H, W, 3) or a batch (B, H, W, 3), got {tuple(shape)}")
        if any(side % twin.unit for side in shape[-3:-1]):
            raise InvalidInput(f"this model takes images whose height and width are multiples of {twin.unit}, got {tuple(shape)}")
        self.twin, self.shape, self.single = twin, tuple(shape), len(shape) == 3
        self.batch, self.height, self.width = (1, *shape[:2]) if self.single else shape[:3]

    def _side(self, level):
        """Batch, height and width of the sub-blocks of a level."""
        scale = 2**level * self.twin.ks[level]
        return self.batch, self.height // scale, self.width // scale

    def _lift(self, values):
        return values[None] if self.single else values

    def _drop(self, values):
        return values[0] if self.single else values

    def parts(self, image):
        """uint8 image(s) -> (first, second), the sub-blocks 0 ... s - 1 and the others: int32 (s, 3, h, w), with the batch before it where there is one."""
        image = np.ascontiguousarray(image)
        if image.shape != self.shape or image.dtype != np.uint8:
            raise InvalidInput(f"this codec takes uint8 of shape {self.shape}, got {image.dtype} of shape {image.shape}")
        planes = torch.from_numpy(self._lift(image)).permute(0, 3, 1, 2).to(torch.int32)
        blocks = self.twin.blocks(0, planes).unflatten(1, (-1, 3)).numpy()
        return tuple(self._drop(part) for part in (blocks[:, :self.twin.split], blocks[:, self.twin.split:]))

    def image(self, first, second=None):
        """The inverse of `parts`."""
        blocks = self._lift(first) if second is None else np.concatenate([self._lift(first), self._lift(second)], 1)
        planes = self.twin.values(0, torch.from_numpy(blocks).flatten(1, 2))
        return self._drop(planes.permute(0, 2, 3, 1).numpy().astype(np.uint8))

    def latent(self, level, above):
        """Codec of z_level given z_(level + 1), or None at the top: int32 (latents, h, w), with the batch before it where there is one."""
        inner = _Conditional(self.twin, level, self._side(level), None, None if above is None else self._lift(above), single=self.single).codec()

        def blocks(z):
            return self._drop(self.twin.blocks(level, torch.from_numpy(self._lift(np.ascontiguousarray(z)))).unflatten(1, (-1, self.twin.latents)).numpy())

        def values(y):
            return self._drop(self.twin.values(level, torch.from_numpy(self._lift(np.ascontiguousarray(y))).flatten(1, 2)).numpy())

        return Codec(lambda stack, z: inner.push(stack, blocks(z)), lambda stack: values(inner.pop(stack)), lambda z: inner.bits(blocks(z)))

    def _below(self, level, value):
        """What q(z_level | .) looks at, as a tensor: the first part of an image for level 1, z_(level - 1) for the others."""
        if level > 1:
            return torch.from_numpy(np.ascontiguousarray(self._lift(value))).float() / BINS_PER_UNIT
        blocks = np.full((self.batch, self.twin.ks[0]**2, 3, *self._side(0)[1:]), 128, dtype=np.int32)
        blocks[:, :self.twin.split] = self._lift(value)
        return self.twin.values(0, torch.from_numpy(blocks - 128).float().flatten(1, 2) / LEVELS_PER_UNIT)

    def posterior(self, level, below):
        """Codec of z_level under q(z_level | below); below: the first part of an image (level 1) or z_(level - 1)."""
        with torch.no_grad():
            means, log_scales = (self._drop(v) for v in self.twin.posterior(level, self._below(level, below)))
        return mode_first(logistic_window(exact_means(to_integers(means)), exact_scales(to_integers(log_scales)), WINDOW, LOWEST, SIZE))

    def best(self, level, below):
        """The rounded means of q(z_level | below): what a deterministic posterior says."""
        with torch.no_grad():
            means, _ = self.twin.posterior(level, self._below(level, below))
        return self._drop(means.round().to(torch.int32).numpy())

    def likelihood(self, z):
        """Codec of the first part of an image given z_1."""
        return _Conditional(self.twin, 0, self._side(0), None, self._lift(z), 0, self.twin.split, self.single).codec()

    def rest(self, first):
        """Codec of the second part given the first."""
        return _Conditional(self.twin, 0, self._side(0), self._lift(first), None, self.twin.split, None, self.single).codec()

    def prior(self):
        """Codec of z_1: by Bit-Swap from all latents above."""
        levels = range(1, self.twin.levels)
        top, likelihoods = self.latent(self.twin.levels, None), [lambda z, level=level: self.latent(level, z) for level in levels]
        posteriors = [lambda z, level=level: self.posterior(level + 1, z) for level in levels]
        return bit_swap(top, likelihoods, posteriors) if likelihoods else top

    def split(self):
        """The ArIB code's parts; its values are `parts` of images."""
        return Split(self.prior(), self.likelihood, lambda first: self.posterior(1, first), self.rest)

    def _inner(self):
        """Codec of (first, second)."""
        if self.twin.split < self.twin.ks[0]**2:
            return arib(*self.split())
        if self.twin.deterministic:
            return self._deterministic()
        return bits_back(self.prior(), self.likelihood, lambda first: self.posterior(1, first))

    def _deterministic(self):
        levels = self.twin.levels

        def generate():
            z = yield self.latent(levels, None)
            for level in range(levels - 1, 0, -1):
                z = yield self.latent(level, z)
            yield self.likelihood(z)

        def infer(first):
            values = [first]
            for level in range(1, levels + 1):
                values.append(self.best(level, values[-1]))
            return values[::-1]

        inner = autoregressive(generate)
        return Codec(lambda stack, first: inner.push(stack, infer(first)), lambda stack: inner.pop(stack)[-1], lambda first: inner.bits(infer(first)))

    def codec(self):
        """Codec of the images."""
        inner, halved = self._inner(), self.twin.split < self.twin.ks[0]**2

        def parts(image):
            return self.parts(image) if halved else self.parts(image)[0]

        return Codec(lambda stack, image: inner.push(stack, parts(image)),
                     lambda stack: self.image(*inner.pop(stack)) if halved else self.image(inner.pop(stack)), lambda image: inner.bits(parts(image)))


def codec(twin, shape):
    """Codec of uint8 images of `shape`, (H, W, 3), or a batch (B, H, W, 3) over `coding.lanes.Lanes`. Raises InvalidInput.

    SHVC: bits-back by Bit-Swap, push raises OutOfBits on a stack that holds too little. A model with a `split`: ArIB, from no initial bits.
    Deterministic: neither, and a `SubsampledSHVC` likewise."""
    return subsampled_codec.codec(twin, shape) if isinstance(twin, SubsampledSHVC) else Images(twin, shape).codec()

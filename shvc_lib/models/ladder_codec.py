"""A lossy image codec on a ladder of latents: samples of z2 and of z1 are sent, and nothing is ever rounded to a grid of levels.

    sender:    x -> q(z2 | x), tree-coded against N(0, 1) -> z2 -> p(z1 | z2) and q(z1 | x, z2), tree-coded -> a stack of bits
    receiver:  the bits -> z2 -> p(z1 | z2) -> z1 -> the picture

Both ends must agree on p(z1 | z2) and on the worth of every latent to the last bit, because these decide where the chains of `sampling.tree` go and when they split.
So the network `prior` is an exact twin (`nn.exact`), z2 a multiple of 2^-12, and worths are looked up by integers. What follows, the synthesis, is
computed in float64 and rounded to pixels: another machine may differ in the thirteenth digit, which is a pixel in a hundred thousand million.

The payload: a byte each for the operating point and the two rates (bits spent on a bit of expected divergence, in 64ths: the sender knows the
divergence that this image really has), then a stack with, from the top, z2's branches, the outliers, z1's branches. Outliers are latents farther than
`OUTLIER` prior scales from the prior's mean, where a few hundred survivors find no candidate; as in Flamich (2019, Algorithm 3) they are sent by themselves: how
many, which, and the cell of each in a dithered grid of the posterior's scale (`sampling.dither`), whose step both ends know. Taught in chapter 3.
"""

import math
from typing import NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from ..coding import BitStack, Codec, autoregressive, independent
from ..coding.cdf import TOTAL, Bernoulli
from ..errors import CorruptFile, InvalidInput, OutOfBits, UnsupportedImage
from ..nn import exact_kernels
from ..sampling import Gaussian, dither, tree
from ..sampling.index_codes import elias_gamma
from . import ladder

SEED = 20190512  # of the shared randomness: any number does
GRID = 1 << 12  # log scales are multiples of 2^-12, as the exact twin returns them
RATE_1, RATE_2 = 1.0625, 1.125  # bits spent on a bit of divergence: z2 gets more, for its bias would make all of z1 dearer
OUTLIER = 3.25
STEP, _FAR = 64, 1024  # worths are tabulated by (log sigma - log s) in 64ths, from -16 to 16, and corrected by factors in 64ths
_WORTHS = np.rint(0.5 * np.log2(1 + np.exp(2 * np.arange(-_FAR, _FAR + 1) / STEP)) * 2**tree.WORTH_BITS).astype(np.int64)


class Level(NamedTuple):
    """What one level of latents is coded with. proposal: Gaussian (n,); noise_scale: s of the evidence, (n,); worth: int64 (n,), expected bits in units of 2^-16."""

    proposal: Gaussian
    noise_scale: np.ndarray
    worth: np.ndarray


def _level(mean, log_scale, log_noise):
    """The Level of a prior N(mean, exp(log_scale)^2) and evidence of scale exp(log_noise): flat arrays, the logarithms as integers in units of 1 / GRID."""
    apart = np.clip((log_scale - log_noise + GRID // STEP // 2) // (GRID // STEP), -_FAR, _FAR)
    return Level(Gaussian(mean, np.exp(log_scale / GRID)), np.exp(log_noise / GRID), _WORTHS[apart + _FAR])


def target(level, evidence):
    """The posterior: Gaussian (n,), from a Level and the evidence's means (n,)."""
    q = ladder.posterior(ladder.Normal(*map(torch.from_numpy, (level.proposal.mean, level.proposal.scale))),
                         ladder.Normal(torch.from_numpy(np.ascontiguousarray(evidence)), torch.from_numpy(level.noise_scale)))
    return Gaussian(q.mean.numpy(), q.scale.numpy())


class Latents:
    """The latents of one image under a Ladder whose `prior` is an exact twin: the steps that sender and receiver share. point: operating point, 0 the
    coarsest; height, width: of the image. Everything is flat, channel by channel."""

    def __init__(self, model, point, height, width):
        if not 0 <= point < len(model.betas):
            raise InvalidInput(f"operating points are 0 ... {len(model.betas) - 1}, not {point}")
        self.model, self.point = model, torch.tensor([point])
        self.size = height, width
        self.down = [-(-side // ladder.UPPER_DOWN) for side in (height, width)]
        self.upper_shape = (model.upper, *self.down)
        self.lower_shape = (model.latents, *(4 * side for side in self.down))

    def _flat(self, per_channel, shape):
        logs = torch.round(per_channel[self.point[0]].double() * GRID).long().numpy()
        return np.repeat(logs, shape[1] * shape[2])

    def upper(self):
        """The Level of z2."""
        count = math.prod(self.upper_shape)
        level = _level(np.zeros(count), np.zeros(count, np.int64), self._flat(self.model.upper_log_scale, self.upper_shape))
        return self._measured(level, self.model.upper_worth, self.upper_shape)

    def _measured(self, level, factors, shape):
        return level._replace(worth=level.worth * factors[self.point[0]].long().numpy().repeat(shape[1] * shape[2]) // STEP)

    @torch.no_grad()
    def lower(self, z2):
        """The Level of z1, given a sample of z2: multiples of 2^-12, (n,), or None for a VAE."""
        if z2 is None:
            count = math.prod(self.lower_shape)
            return _level(np.zeros(count), np.zeros(count, np.int64), self._flat(self.model.log_scale, self.lower_shape))
        with exact_kernels():
            mean, log_scale = self.model.prior(torch.from_numpy(z2.reshape(1, *self.upper_shape)).float(), self.point)
        log_scale = torch.round(log_scale.clamp(ladder.LEAST_SCALE, ladder.MOST_SCALE).double() * GRID).long()
        level = _level(mean.double().reshape(-1).numpy(), log_scale.reshape(-1).numpy(), self._flat(self.model.log_scale, self.lower_shape))
        return self._measured(level, self.model.worth, self.lower_shape)

    @torch.no_grad()
    def evidence(self, image):
        """(means of the evidence about z1, about z2), float64 (n,) each (None for a VAE's z2), of an image uint8 (H, W, 3)."""
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None]
        bottom, right = (ladder.UPPER_DOWN * down - side for down, side in zip(self.down, self.size))
        pixels = F.pad(pixels.float(), (0, right, 0, bottom), mode="replicate")
        found = self.model.evidence(pixels, self.point)
        upper = self.model.upper_analysis(found.mean).double().reshape(-1).numpy() if self.model.levels == 2 else None
        return found.mean.double().reshape(-1).numpy(), upper

    @torch.no_grad()
    def picture(self, z1):
        """The reconstruction, uint8 (H, W, 3), computed in float64."""
        pixels = self.model.synthesis_in_float64()(torch.from_numpy(z1.reshape(1, *self.lower_shape)), self.point)[0]
        levels = torch.round((pixels * 255).clamp(0, 255)).to(torch.uint8)
        return levels[:, :self.size[0], :self.size[1]].permute(1, 2, 0).contiguous().numpy()


def rate(wanted, divergence, worth):
    """Bits per bit of worth, in 64ths, 1 ... 255, that spend `wanted` bits on each bit of the divergence that there is."""
    expected = worth.sum() / 2**tree.WORTH_BITS
    return int(np.clip(math.ceil(wanted * tree.RATE_STEPS * divergence / max(expected, 1)), 1, 255))


def outliers(level, q):
    """Positions of the outliers: int64, increasing."""
    return np.flatnonzero(np.abs(q.mean - level.proposal.mean) > OUTLIER * level.proposal.scale)


def outlier_codec(count):
    """The codec of (positions, cells) of outliers among `count` latents: how many, which of them, and a signed cell number each."""

    def model():
        number = int((yield elias_gamma(1))[0])
        if number > count:
            raise CorruptFile(f"{number} outliers among {count} latents were read")
        if number:
            yield independent(Bernoulli(np.full(count, np.clip(number * TOTAL // count, 1, TOTAL - 1))))
            yield elias_gamma(number)

    parts = autoregressive(model)

    def listed(found):
        where, cells = found
        marks = np.zeros(count, np.int64)
        marks[where] = 1
        return [np.array([where.size])] + ([marks, np.where(cells < 0, -2 * cells - 1, 2 * cells)] if where.size else [])

    def pop(stack):
        number, *rest = parts.pop(stack)
        if not rest:
            return np.zeros(0, np.int64), np.zeros(0, np.int64)
        where, folded = np.flatnonzero(rest[0]), rest[1]
        if where.size != number[0]:
            raise CorruptFile("the outliers do not add up")
        return where, np.where(folded % 2, -(folded + 1) // 2, folded // 2)

    return Codec(lambda stack, found: parts.push(stack, listed(found)), pop, lambda found: parts.bits(listed(found)))


def _posterior_scale(level):
    return (level.proposal.scale**-2 + level.noise_scale**-2) ** -0.5


class Coded(NamedTuple):
    """What `encode` returns. payload: bytes; picture: what they decode to, uint8 (H, W, 3); agreed: bytes that sender and receiver must have in common, for
    a checksum; kl: divergences of z2 and of z1 in bits (z1's under the z2 that was sent); bits: what z2, the outliers and z1 take in the
    payload; outliers: how many."""

    payload: bytes
    picture: np.ndarray
    agreed: bytes
    kl: tuple
    bits: tuple
    outliers: int


def encode(model, image, point, survivors=128):
    """One image as a `Coded`.

    model: a Ladder with two levels whose `prior` is an exact twin; image: uint8 (H, W, 3); point: operating point, 0 the coarsest; survivors: of `sampling.tree`.
    Raises InvalidInput, UnsupportedImage.
    """
    if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8 or not image.size:
        raise UnsupportedImage(f"this model codes uint8 images of shape (H, W, 3), not {image.dtype} {image.shape}")
    latents = Latents(model, point, *image.shape[:2])
    lower_evidence, upper_evidence = latents.evidence(image)
    upper = latents.upper()
    q2 = target(upper, upper_evidence)
    kl2 = float(q2.kl(upper.proposal).sum())
    rate_2 = rate(RATE_2, kl2, upper.worth)
    plan_2 = tree.plan(upper.worth, SEED, rate_2 / tree.RATE_STEPS)
    index_2 = tree.encode(q2, upper.proposal, SEED, plan_2, survivors)
    lower = latents.lower(tree.standard(index_2, SEED, plan_2))
    q1 = target(lower, lower_evidence)
    kl1 = q1.kl(lower.proposal)
    where = outliers(lower, q1)
    cells = dither.encode(q1[where], lower.proposal[where], SEED, "uniform", where) if where.size else np.zeros(0, np.int64)
    worth = lower.worth.copy()
    worth[where] = 0
    rate_1 = rate(RATE_1, float(kl1.sum() - kl1[where].sum()), worth)
    plan_1 = tree.plan(worth, SEED + 1, rate_1 / tree.RATE_STEPS)
    index_1 = tree.encode(q1, lower.proposal, SEED + 1, plan_1, survivors)
    stack, sizes = BitStack(), []
    for codec, value in ((tree.codec(plan_1), index_1), (outlier_codec(worth.size), (where, cells)), (tree.codec(plan_2), index_2)):
        before = stack.bits
        codec.push(stack, value)
        sizes.append(stack.bits - before)
    payload = bytes([point, rate_2, rate_1]) + stack.to_bytes()
    z1, agreed = _lower_sample(lower, plan_1, index_1, where, cells)
    return Coded(payload, latents.picture(z1), agreed, (kl2, float(kl1.sum())), (sizes[2], sizes[1], sizes[0]), int(where.size))


class Theory(NamedTuple):
    """picture: uint8 (H, W, 3), made of exact samples of the posteriors; kl: (of z2, of z1) in bits, (0, KL) for a VAE."""

    picture: np.ndarray
    kl: tuple

    @property
    def bits(self):
        """KL of all latents together."""
        return sum(self.kl)

    @property
    def bound(self):
        """KL + 2 log2(KL + 1) bits, the thesis' "theoretically optimal" size: Harsha et al.'s bound without its constant."""
        return self.bits + 2 * math.log2(self.bits + 1)


def theoretical(model, image, point, seed=0):
    """What a perfect sampler would send and make of one image: a `Theory`. model: a Ladder of one or two levels."""
    latents, rng = Latents(model, point, *image.shape[:2]), np.random.default_rng(seed)
    lower_evidence, upper_evidence = latents.evidence(image)

    def drawn(q):
        return q.mean + q.scale * rng.standard_normal(q.shape)

    z2, kl2 = None, 0.0
    if model.levels == 2:
        q2 = target(latents.upper(), upper_evidence)
        z2, kl2 = np.rint(drawn(q2) * tree.GRID) / tree.GRID, float(q2.kl(latents.upper().proposal).sum())
    lower = latents.lower(z2)
    q1 = target(lower, lower_evidence)
    return Theory(latents.picture(drawn(q1)), (kl2, float(q1.kl(lower.proposal).sum())))


def decode(model, payload, height, width):
    """(picture, agreed): the uint8 (H, W, 3) in a payload, and the bytes that its sender's must equal. Raises CorruptFile."""
    if len(payload) < 3 or payload[0] >= len(model.betas) or not payload[1] or not payload[2]:
        raise CorruptFile("the payload does not begin as one of this model")
    latents = Latents(model, payload[0], height, width)
    try:
        stack = BitStack.from_bytes(payload[3:])
        upper = latents.upper()
        plan_2 = tree.plan(upper.worth, SEED, payload[1] / tree.RATE_STEPS)
        lower = latents.lower(tree.standard(tree.codec(plan_2).pop(stack), SEED, plan_2))
        where, cells = outlier_codec(lower.worth.size).pop(stack)
        worth = lower.worth.copy()
        worth[where] = 0
        plan_1 = tree.plan(worth, SEED + 1, payload[2] / tree.RATE_STEPS)
        z1, agreed = _lower_sample(lower, plan_1, tree.codec(plan_1).pop(stack), where, cells)
    except (OutOfBits, InvalidInput) as error:
        raise CorruptFile(f"the stream cannot be decoded ({error})") from None
    if stack.bits:
        raise CorruptFile(f"{stack.bits} bits are left over after the last latent")
    return latents.picture(z1), agreed


def _lower_sample(lower, plan, index, where, cells):
    """(z1, and in bytes all that must be the same at both ends: the prior's means and worths, the standardised samples and the outliers)."""
    standard = tree.standard(index, SEED + 1, plan)
    z1 = lower.proposal.mean + lower.proposal.scale * standard
    agreed = b"".join(np.ascontiguousarray(part).astype("<i8").tobytes()
                      for part in (np.rint(lower.proposal.mean * GRID), lower.worth, np.rint(standard * tree.GRID), where, cells))
    if where.size:
        z1[where] = dither.decode(cells, lower.proposal[where], SEED, _posterior_scale(lower)[where], "uniform", where)
    return z1, agreed

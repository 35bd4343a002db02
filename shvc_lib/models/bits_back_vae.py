"""A family of small hierarchical VAEs for bits-back coding: x <- z_1 <- ... <- z_L, all latents discretised logistics.

    p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_L),        q(z | x) = q(z_1 | x) q(z_2 | z_1) ...          (eqs 11-12 of SHVC without autoregression)

Latents are integers: the grid has width 1, and every log-mass is that of a bin, so the ELBO is the code length that bits-back coding
realises, and no scale can shrink below the grid to save bits that the coder cannot. z_1 lives at half the image's resolution; the others there too, or
halve it again each (`downsample`, the paper's RDS). With `deterministic` the posterior is its mean, rounded: uniform noise while training, no
bits to get back. x is a mixture of K logistics per sub-pixel. Every mean starts as a linear guess from its surroundings (a skip from pixels
to q's mean, from z to p's mean), which short training runs live on. Taught in chapter 2; Figure 2 of the paper needs all of it.
"""

import math

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.distributions import logistic_log_mass, mixture_log_mass, round_to_grid

COMPONENTS = 5  # logistics per sub-pixel of x
GRID = 16.0  # a latent's integers are divided by this before a network sees them
MAX_LATENT_SCALE, MIN_LATENT_SCALE = 4.0, -1.5  # of log scales, in grid steps


class Block(nn.Module):
    """Residual block that starts as the identity."""

    def __init__(self, width):
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight), nn.init.zeros_(self.second.bias)

    def forward(self, x):
        return x + self.second(F.relu(self.first(F.relu(x))))


def _network(inputs, width, blocks, outputs):
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *[Block(width) for _ in range(blocks)], nn.ReLU(), last)


class BitsBackVAE(nn.Module):
    """levels: L, 1 ... 5; width: channels inside; blocks: residual blocks per network; latents: channels of each z; downsample, deterministic: see above.
    Images are uint8 (B, 3, H, W) with H and W multiples of 2, or of 2^L with `downsample`."""

    def __init__(self, levels=1, width=64, blocks=2, latents=8, downsample=False, deterministic=False):
        super().__init__()
        self.levels, self.latents, self.deterministic = levels, latents, deterministic
        self.factors = [2] + [2 if downsample else 1] * (levels - 1)  # resolution of each level's input over its own
        inputs = [3 * 4] + [latents * factor**2 for factor in self.factors[1:]]
        self.encoders = nn.ModuleList(_network(n, width, blocks, 2 * latents) for n in inputs)
        self.encoder_skips = nn.ModuleList(nn.Conv2d(n, latents, 1) for n in inputs)
        outputs = [3 * 4 * 3 * COMPONENTS] + [2 * n for n in inputs[1:]]
        self.decoders = nn.ModuleList(_network(latents, width, blocks, n) for n in outputs)
        self.decoder_skips = nn.ModuleList(nn.Conv2d(latents, n, 1) for n in inputs)
        self.top = nn.Parameter(torch.stack([torch.zeros(latents), torch.full((latents,), 1.5)]))  # mean and log scale of p(z_L)
        self.spread = nn.Parameter(torch.linspace(-0.5, 0.5, COMPONENTS))

    def noise(self, batch, generator, side=32):
        """Uniform numbers for one step: a list of L tensors (batch, latents, h, w)."""
        shapes, size = [], side
        for factor in self.factors:
            size //= factor
            shapes.append((batch, self.latents, size, size))
        return [torch.rand(shape, generator=generator) for shape in shapes]

    def posterior(self, level, below):
        """(means, log scales) of q(z_level | below), level from 0; `below` is x in [-1, 1] or the integers z / GRID."""
        below = F.pixel_unshuffle(below, self.factors[level]) if self.factors[level] > 1 else below
        means, log_scales = self.encoders[level](below).float().chunk(2, 1)
        means = GRID * (means + self.encoder_skips[level](below).float())
        return means, log_scales.clamp(MIN_LATENT_SCALE, MAX_LATENT_SCALE)

    def prior(self, level, above):
        """(means, log scales) of p(z_level | z above), level from 0."""
        means, log_scales = self.decoders[level + 1](above / GRID).float().chunk(2, 1)
        means = GRID * (means + self.decoder_skips[level + 1](above / GRID).float())
        factor = self.factors[level + 1]
        return tuple(F.pixel_shuffle(v, factor) if factor > 1 else v for v in (means, (1.0 + log_scales).clamp(MIN_LATENT_SCALE, MAX_LATENT_SCALE)))

    def likelihood(self, z):
        """(means, log scales, logits) of p(x | z_1): tensors (B, 3, H, W, K), in levels."""
        out = F.pixel_shuffle(self.decoders[0](z / GRID).float(), 2).unflatten(1, (3, 3 * COMPONENTS)).movedim(2, -1)
        guess = F.pixel_shuffle(self.decoder_skips[0](z / GRID).float(), 2)[..., None]
        means, log_scales, logits = out.chunk(3, -1)
        return 127.5 + 127.5 * (guess + means) + 16 * self.spread, 2.0 + log_scales, logits

    def loss(self, images, noise):
        """(bits per dimension, the negative ELBO; dict with the same of x and of each latent's KL) for uint8 images and `self.noise`."""
        below, z, bits = images.float() / 127.5 - 1, [], {}
        nats_per_bit = math.log(2) * images.numel()
        posteriors = []
        for level, uniform in enumerate(noise):
            means, log_scales = self.posterior(level, below)
            if self.deterministic:
                z.append(means + uniform - 0.5 if self.training else round_to_grid(means))
            else:
                u = uniform.clamp(1e-6, 1 - 1e-6)
                z.append(round_to_grid(means + log_scales.exp() * torch.logit(u)))
            posteriors.append((means, log_scales))
            below = z[-1] / GRID
        bits["x"] = -mixture_log_mass(images.float(), *self.likelihood(z[0])).sum() / nats_per_bit
        for level in range(self.levels):
            if level + 1 < self.levels:
                means, log_scales = self.prior(level, z[level + 1])
            else:
                means, log_scales = (v[:, None, None] for v in self.top)
            nats = -logistic_log_mass(z[level], means, log_scales)
            if not self.deterministic:
                nats = nats + logistic_log_mass(z[level], *posteriors[level])
            bits[f"z{level + 1}"] = nats.sum() / nats_per_bit
        return sum(bits.values()), bits

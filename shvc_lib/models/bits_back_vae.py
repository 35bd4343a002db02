"""A family of small hierarchical VAEs for bits-back coding: x <- z_1 <- ... <- z_L, all latents discretised logistics.

    p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_L),        q(z | x) = q(z_1 | x) q(z_2 | z_1) ...          (eqs 11-12 of SHVC without autoregression)

Latents are integers: the grid has width 1, and every log-mass is that of a bin, so the ELBO is the code length that bits-back coding
realises, and no scale can shrink below the grid to save bits that the coder cannot. z_1 lives at half the image's resolution; the others there too, or
halve it again each (`downsample`, the paper's RDS). With `deterministic` the posterior is its mean, rounded: uniform noise while training, no
bits to get back. x is a mixture of K logistics per sub-pixel. Every mean starts as a linear guess from its surroundings (a skip from pixels
to q's mean, from z to p's mean), which short training runs live on. Taught in chapter 2; Figure 2 of the paper needs all of it.
"""

import copy
import math

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.blocks import Block
from ..nn.distributions import logistic_log_mass, mixture_log_mass, round_to_grid

COMPONENTS = 5  # logistics per sub-pixel of x
LEVELS_PER_UNIT, BINS_PER_UNIT = 128.0, 16.0  # what 1 means to a network, for pixels and for latents
LOW, HIGH, PRIOR_HIGH = -1.5, 1.0, 4.0  # log scales in bins: of posteriors LOW ... HIGH, of priors LOW ... PRIOR_HIGH
REACH = 96.0  # posterior means stay within this many bins of 0


def _network(inputs, width, blocks, outputs):
    last = nn.Conv2d(width, outputs, 3, padding=1)
    nn.init.zeros_(last.weight), nn.init.zeros_(last.bias)
    return nn.Sequential(nn.Conv2d(inputs, width, 3, padding=1), *[Block(width) for _ in range(blocks)], nn.ReLU(), last)


def balanced(model, images, limit=128.0):
    """A copy of a BitsBackVAE that computes the same function with no layer's output beyond `limit` on uint8 images (B, 3, H, W).

    ReLU passes a factor on, so the unit in which a network's residual stream counts is free, and so is that inside each block. A large learning rate
    lets them grow beyond what an exact twin can hold; powers of two bring them back without changing a bit of the result.
    """
    model, reaches = copy.deepcopy(model).eval(), {}

    def observe(layer, _, output):
        reaches[layer] = max(reaches.get(layer, 0.0), float(output.abs().max()))

    hooks = [layer.register_forward_hook(observe) for layer in model.modules() if isinstance(layer, (nn.Conv2d, Block))]
    with torch.no_grad():
        model.everything(images)
        for network in (*model.encoders, *model.decoders):
            stem, *blocks, _, last = network
            writers, readers = [stem, *(block.second for block in blocks)], [*(block.first for block in blocks), last]
            reach = max(reaches[part] for part in (stem, *blocks, *writers))
            for reach, writers, readers in [(reach, writers, readers), *((reaches[block.first], [block.first], [block.second]) for block in blocks)]:
                unit = 2.0 ** max(0, math.ceil(math.log2(max(reach, limit) / limit)))
                for layer in writers:
                    layer.weight /= unit
                    layer.bias /= unit
                for layer in readers:
                    layer.weight *= unit
    for hook in hooks:
        hook.remove()
    return model


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
        with torch.no_grad():  # the components of x's mixture start side by side, a sixteenth of the range between the outermost
            bias = self.decoders[0][-1].bias.view(3, 3, COMPONENTS, 4)
            bias[:, 0] = torch.linspace(-1 / 16, 1 / 16, COMPONENTS)[:, None]

    def noise(self, batch, generator, side=32):
        """Uniform numbers for one step: a list of L tensors (batch, latents, h, w)."""
        shapes, size = [], side
        for factor in self.factors:
            size //= factor
            shapes.append((batch, self.latents, size, size))
        return [torch.rand(shape, generator=generator) for shape in shapes]

    def pixels(self, images):
        """uint8 (B, 3, H, W) -> the units of the first network."""
        return (images.float() - 128) / LEVELS_PER_UNIT

    def posterior(self, level, below):
        """(means, log scales) in bins of q(z_level | below), level from 0; `below` is `pixels(x)` or the latents z in bins / 16."""
        below = F.pixel_unshuffle(below, self.factors[level]) if self.factors[level] > 1 else below
        means, log_scales = self.encoders[level](below).chunk(2, 1)
        means = BINS_PER_UNIT * (means + self.encoder_skips[level](below)).float()
        return means.clamp(-REACH, REACH), log_scales.float().clamp(LOW, HIGH)

    def prior(self, level, above):
        """(means, log scales) in bins of p(z_level | z_(level + 1)), level from 0; `above` in bins / 16."""
        means, log_scales = self.decoders[level + 1](above).chunk(2, 1)
        means = BINS_PER_UNIT * (means + self.decoder_skips[level + 1](above)).float()
        factor = self.factors[level + 1]
        return tuple(F.pixel_shuffle(v, factor) if factor > 1 else v for v in (means, (1.0 + log_scales.float()).clamp(LOW, PRIOR_HIGH)))

    def top_prior(self):
        """(means, log scales) in bins of p(z_L), one per channel: (latents, 1, 1) each, multiples of 2^-12."""
        rounded = self.top + ((self.top * 4096).round() / 4096 - self.top).detach()
        return rounded[0, :, None, None], rounded[1, :, None, None].clamp(LOW, PRIOR_HIGH)

    def likelihood(self, z):
        """(means, log scales, logits) of p(x | z_1), z_1 in bins / 16: tensors (B, 3, H, W, K), means in levels."""
        out = F.pixel_shuffle(self.decoders[0](z), 2).float().unflatten(1, (3, 3 * COMPONENTS)).movedim(2, -1)
        guess = F.pixel_shuffle(self.decoder_skips[0](z), 2).float()[..., None]
        means, log_scales, logits = out.chunk(3, -1)
        return 128 + LEVELS_PER_UNIT * (guess + means), (2.0 + log_scales).clamp(-3.0, 8.0), logits

    def everything(self, images):
        """Every network once, with latents at their posterior means: what calibration of the exact twin runs on."""
        below, outputs = self.pixels(images), []
        for level in range(self.levels):
            outputs += self.posterior(level, below)
            below = outputs[-2].round() / BINS_PER_UNIT
            outputs += self.likelihood(below) if level == 0 else self.prior(level - 1, below)
        return outputs

    def loss(self, images, noise):
        """(bits per dimension, the negative ELBO; dict with the same of x and of each latent's KL) for uint8 images and `self.noise`."""
        below, z, bits = self.pixels(images), [], {}
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
            below = z[-1] / BINS_PER_UNIT
        bits["x"] = -mixture_log_mass(images.float(), *self.likelihood(z[0] / BINS_PER_UNIT)).sum() / nats_per_bit
        for level in range(self.levels):
            if level + 1 < self.levels:
                means, log_scales = self.prior(level, z[level + 1] / BINS_PER_UNIT)
            else:
                means, log_scales = self.top_prior()
            nats = -logistic_log_mass(z[level], means, log_scales)
            if not self.deterministic:
                nats = nats + logistic_log_mass(z[level], *posteriors[level])
            bits[f"z{level + 1}"] = nats.sum() / nats_per_bit
        return sum(bits.values()), bits

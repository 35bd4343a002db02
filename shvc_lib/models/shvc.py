"""Split hierarchical variational compression: a hierarchy of latents, each of whose conditionals is autoregressive over k^2 sub-blocks.

    p(x, z) = p(x | z_1) p(z_1 | z_2) ... p(z_L)          every factor by eq 9        (eq 11 of SHVC, Ryder et al. 2022)
    q(z | x) = q(z_1 | x) q(z_2 | z_1) ... q(z_L | z_(L-1))                            (eq 12)

z_l has half the resolution of what lies below it (the paper's repeated downsampling), so that at k = 2 it is just as large as the sub-blocks that it
informs. x is a mixture of five discretised logistics per sub-pixel, a latent one discretised logistic on a grid of width 1: every log-mass is that of a
bin, the ELBO is the code length that bits-back coding realises, and no scale can shrink below the grid to save bits that the coder cannot.

| in the paper | here |
| --- | --- |
| SHVC | the defaults |
| SHVC-ArIB: p(x_{s+1:k^2} given x_{1:s}), q(z_1 given x_{1:s}) | `split` = s: only the first s sub-blocks of x see z_1 and are seen by its posterior |
| Deterministic SHVC | `deterministic`: the posterior's mean, rounded; uniform noise while training |
| the space-to-depth of eq 5 instead of eq 8 (Figure 5) | `order` = "channel" |
| lambda max(0, H_q - H_p), eq 10 | `penalty` = lambda, for every image of a batch by itself; printed with the sign of something to be maximised |

Taught in chapters 5, 6 and 7.
"""

import math

import torch
from torch import nn

from ..errors import InvalidInput
from ..nn.autoregression import SKIPS, SubpixelAutoregression, pairs, weak_shift
from ..nn.blocks import Block
from ..nn.distributions import logistic_log_mass, mixture_log_mass, round_to_grid, with_floor
from ..nn.subpixel import depth_to_space, space_to_depth

COMPONENTS = 5  # logistics per sub-pixel of x
LEVELS_PER_UNIT, BINS_PER_UNIT = 128, 16  # what 1 means to a network, for pixels and for latents
FINE = 8  # the networks' corrections to the linear predictions count in eighths of that
LOWEST, SIZE = -128, 256  # the latents' support
LOW, HIGH, PRIOR_HIGH = -1.5, 1.0, 4.0  # log scales in bins: of posteriors LOW ... HIGH, of priors LOW ... PRIOR_HIGH
LEAST, MOST = -3.0, 6.0  # log scales of x, in levels
REACH = 96.0  # posterior means stay within this many bins of 0


class Posterior(nn.Module):
    """q(z | below): a linear guess from 2 x 2 cells and a network that corrects it; (B, C, H, W) -> means and log scales (B, latents, H/2, W/2)."""

    def __init__(self, channels, latents, width, blocks, bfloat):
        super().__init__()
        self.latents, self.bfloat = latents, bfloat
        self.body = nn.Sequential(nn.Conv2d(4 * channels, width, 3, padding=1), *[Block(width) for _ in range(blocks)], nn.ReLU())
        self.last, self.skip = nn.Conv2d(width, 2 * latents, 1), nn.Conv2d(4 * channels, latents, 1)
        nn.init.zeros_(self.last.weight), nn.init.zeros_(self.last.bias)
        nn.init.zeros_(self.skip.weight), nn.init.zeros_(self.skip.bias)
        for c in range(min(channels, latents)):
            self.skip.weight.data[c, c::channels] = 0.5

    def forward(self, below):
        cells = space_to_depth(below, 2)
        with torch.autocast(cells.device.type, torch.bfloat16, enabled=self.bfloat and self.training):
            hidden = self.body(cells)
        means, log_scales = self.last(hidden.float()).chunk(2, 1)
        return BINS_PER_UNIT * self.skip(cells) + BINS_PER_UNIT // FINE * means, log_scales


class SHVC(nn.Module):
    """levels: L; latents: channels of each z; width: channels inside; blocks: residual blocks of a conditional; k: of x and of all latents, or a tuple
    (x, z_1, ..., z_L); split, penalty, deterministic, order: see above; weak: weak autoregression over channels; skips: "fitted" (least squares, needs
    `prepare`), "means" or "none"; bfloat: large convolutions in bfloat16 while training. Images are uint8 (B, 3, H, W), H and W multiples of `unit`."""

    def __init__(self, levels=3, latents=4, width=32, blocks=2, k=2, split=None, penalty=0.0, deterministic=False, order="subpixel", weak=True,
                 skips="fitted", bfloat=False):
        super().__init__()
        self.levels, self.latents, self.deterministic, self.penalty, self.weak, self.fitted = levels, latents, deterministic, penalty, weak, skips == "fitted"
        self.ks = (k,) * (levels + 1) if isinstance(k, int) else tuple(k)
        self.split, self.order = self.ks[0]**2 if split is None else split, order
        if skips not in ("fitted", *SKIPS):
            raise InvalidInput(f"skips are fitted, {' or '.join(SKIPS)}, not {skips!r}")
        if any(own > 1 and own % 2 for own in self.ks) or len(self.ks) != levels + 1:
            raise InvalidInput(f"k must be 1 or even, one for x and for each of the {levels} latents, got {k}")
        if not 0 < self.split <= self.ks[0]**2 or self.split < self.ks[0]**2 and (order != "subpixel" or deterministic):
            raise InvalidInput(f"split must be 1 to k^2 = {self.ks[0]**2}, got {split}; with less than k^2, sub-blocks must be those of eq 8 and the "
                               "posterior stochastic")
        self.unit = math.lcm(2**levels, *(2**level * own for level, own in enumerate(self.ks)))
        self.posteriors = nn.ModuleList(Posterior(3 if level == 0 else latents, latents, width, 1, bfloat) for level in range(levels))
        outputs = [3 * 3 * COMPONENTS + 3] + [2 * latents + len(pairs(latents))] * levels
        self.conditionals, self.lifts = nn.ModuleList(), nn.ModuleList()
        for level, own in enumerate(self.ks):
            context = 0 if level == levels else latents * own**2 // 4 if own > 1 else latents
            self.conditionals.append(SubpixelAutoregression(
                3 if level == 0 else latents, own, outputs[level], context, width, blocks, self.split if level == 0 else None, order,
                "means" if skips == "fitted" else skips, bfloat))
            # z_(l+1) must be as large as sub-blocks: at k = 1 it is too small, and a convolution makes four of one
            lift = nn.Conv2d(latents, 4 * latents, 3, padding=1) if own == 1 and level < levels else None
            if lift is not None:
                nn.init.zeros_(lift.weight), nn.init.zeros_(lift.bias)
                lift.weight.data[range(4 * latents), [n // 4 for n in range(4 * latents)], 1, 1] = 1
            self.lifts.append(lift or nn.Identity())
        with torch.no_grad():
            shift = self.conditionals[0].shift[:, :9 * COMPONENTS].view(-1, 3, 3, COMPONENTS)  # sub-block; means, log scales, logits; colour; component
            shift[:, 0] = torch.linspace(-0.1, 0.1, COMPONENTS)
            shift[:, 1] = 2.3 + torch.linspace(-1.5, 1.0, COMPONENTS)
            for level in range(levels):
                self.conditionals[level + 1].shift[:, latents:2 * latents] = 1.5
        # which pixels of a cell q(z_1 | .) may see: 0 and 1
        self.register_buffer("visible", (torch.arange(self.ks[0]**2) < self.split).float().view(self.ks[0], -1), persistent=False)

    # what the networks compute -------------------------------------------------------------------------------------------------

    def noise(self, batch, generator, side=32):
        """Uniform numbers for one step: a list of L tensors (batch, latents, h, w). side: of the images, or (height, width)."""
        height, width = (side, side) if isinstance(side, int) else side
        return [torch.rand(batch, self.latents, height >> level, width >> level, generator=generator) for level in range(1, self.levels + 1)]

    def pixels(self, images):
        """uint8 (B, 3, H, W) -> the unit of the networks."""
        return (images.float() - 128) / LEVELS_PER_UNIT

    def shown(self, level, below):
        """What q(z_level | below) sees of `below`: with a `split`, pixels of the sub-blocks after it are 0."""
        if level > 1 or self.split == self.ks[0]**2:
            return below
        return below * self.visible.repeat(*(side // len(self.visible) for side in below.shape[-2:]))

    def posterior(self, level, below):
        """(means, log scales) in bins of q(z_level | below), level from 1; `below` is `pixels(x)` or the latents z in bins / 16."""
        means, log_scales = self.posteriors[level - 1](self.shown(level, below))
        return means.clamp(-REACH, REACH), log_scales.clamp(LOW, HIGH)

    def blocks(self, level, values):
        """x (level 0, unit of the networks) or z_level (bins / 16) as sub-blocks: (B, C k^2, h, w)."""
        return space_to_depth(values, self.ks[level], self.order)

    def values(self, level, blocks):
        """The inverse of `blocks`."""
        return depth_to_space(blocks, self.ks[level], self.order)

    def context(self, level, above, like):
        """What `conditionals[level]` takes of z_(level + 1) (bins / 16), or of None at the top: see `SubpixelAutoregression.seen`."""
        if level < self.levels:
            k = self.ks[level]
            above = depth_to_space(self.lifts[level](above), 2, "channel") if k == 1 else space_to_depth(above, k // 2) if k > 2 else above
        return self.conditionals[level].seen(above, like)

    # what their outputs mean ----------------------------------------------------------------------------------------------------

    def log_mass(self, level, values, seen):
        """log p(x | z_1) or log p(z_level | z_(level + 1)) in nats, of every value: (B, k^2, C, h, w), and `seen` from `context`. One pass."""
        conditional = self.conditionals[level]
        blocks = self.blocks(level, values)
        centres, outputs = conditional(blocks, seen)
        inside = blocks.unflatten(1, (conditional.count, conditional.channels))
        unit, size, lower, middle = (LEVELS_PER_UNIT, 256, 0, 128) if level == 0 else (BINS_PER_UNIT, SIZE, LOWEST, 0)
        corrections, log_scales, logits, factors = self.split_outputs(level, outputs)
        means = unit * (centres + weak_shift(inside, centres, factors)) + middle
        values = unit * inside + middle
        if level == 0:
            components = lambda v: v.movedim(3, -1)  # noqa: E731
            means = means[..., None] + components(unit // FINE * corrections)
            log_scales = components(log_scales).clamp(LEAST, MOST)
            return with_floor(mixture_log_mass(values, means, log_scales, components(logits), size, lower), size)
        return with_floor(logistic_log_mass(values, means + unit // FINE * corrections, log_scales.clamp(LOW, PRIOR_HIGH), size, lower), size)

    def split_outputs(self, level, outputs):
        """(corrections of the means, log scales, logits or None, weak factors) of outputs (B, n, P, h, w) or (B, P, h, w). Per value: (..., C, h, w) for
        latents, (..., C, K, h, w) for x."""
        axis, factors = outputs.ndim - 3, len(pairs(self.conditionals[level].channels))
        main, weak = outputs.split([outputs.shape[axis] - factors, factors], axis)
        weak = weak if self.weak else torch.zeros_like(weak)
        if level:
            return (*main.chunk(2, axis), None, weak)
        return (*main.unflatten(axis, (3, 3, COMPONENTS)).unbind(axis), weak)

    # training ---------------------------------------------------------------------------------------------------------------------

    def sample(self, means, log_scales, uniform):
        """z on its grid, differentiable: a draw of q, or with `deterministic` the rounded mean (mean and uniform noise while training)."""
        if self.deterministic:
            return means + uniform - 0.5 if self.training else round_to_grid(means)
        return round_to_grid(means + log_scales.exp() * torch.logit(uniform.clamp(1e-6, 1 - 1e-6)))

    def loss(self, images, noise):
        """(bits per dimension, the negative ELBO; a dict of its parts) for uint8 images and `self.noise`; while training with a `penalty`, eq 10 is added.

        Parts: `x` and `z1` ... (each latent's prior less its posterior) sum to the ELBO; `lent`, H of q(z_1 | x), is what must be borrowed and `rest`, H of
        the sub-blocks after `split`, is what ArIB lends; `short`: mean over images of max(0, lent - rest); all in bits per dimension; `lambda`, while it
        weighs on anything.
        """
        nats_per_bit = math.log(2) * images.numel()
        below, latents, lent = self.pixels(images), [], []
        for level, uniform in enumerate(noise, 1):
            means, log_scales = self.posterior(level, below)
            z = self.sample(means, log_scales, uniform)
            if not self.deterministic:
                z = z.clamp(LOWEST, LOWEST + SIZE - 1)
                lent.append(-logistic_log_mass(z, means, log_scales))
            below = z / BINS_PER_UNIT
            latents.append(below)
        nats = []
        for level, values in enumerate([self.pixels(images), *latents]):
            above = latents[level] if level < self.levels else None
            nats.append(-self.log_mass(level, values, self.context(level, above, self.blocks(level, values))))
        parts = {"x": nats[0].sum() / nats_per_bit}
        for level in range(1, self.levels + 1):
            parts[f"z{level}"] = (nats[level].sum() - (0 if self.deterministic else lent[level - 1].sum())) / nats_per_bit
        total = sum(parts.values())
        if not self.deterministic:
            borrowed, rest = lent[0].flatten(1).sum(1), nats[0][:, self.split:].flatten(1).sum(1)
            short = (borrowed - rest).clamp_min(0).sum() / nats_per_bit
            parts |= {"lent": borrowed.sum() / nats_per_bit, "rest": rest.sum() / nats_per_bit, "short": short}
            if self.training and self.penalty:
                parts["lambda"] = self.penalty
                total = total + self.penalty * short
        return total, parts

    def everything(self, images):
        """Every network once, latents at their posterior means: what calibration of the exact twin runs on."""
        below, outputs = self.pixels(images), []
        values = [below]
        for level in range(1, self.levels + 1):
            outputs += self.posterior(level, values[-1])
            values.append(outputs[-2].round() / BINS_PER_UNIT)
        for level, own in enumerate(values):
            blocks = self.blocks(level, own)
            outputs += self.conditionals[level](blocks, self.context(level, values[level + 1] if level < self.levels else None, blocks))
        return outputs

    def prepare(self, images):
        """Begin where least squares ends (see `shvc_start`): uint8 images (N, H, W, 3)."""
        if self.fitted:
            from .shvc_start import begin
            begin(self, images)

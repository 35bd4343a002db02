"""Where an `SHVC` begins: with everything that is linear already in its place.

Posterior means start as the principal components of 2 x 2 cells, and every conditional's linear skip, weak factors and scales as those of least squares
(`nn.least_squares`), level by level, on a few hundred images. The networks beside them begin at zero. Taught in chapter 5.
"""

import math

import torch

from ..nn.least_squares import fit
from ..nn.subpixel import space_to_depth
from .shvc import BINS_PER_UNIT, COMPONENTS, LEVELS_PER_UNIT

IMAGES, SPREAD = 512, 24.0  # images looked at; standard deviation of a level's first component in bins
_LOGISTIC = math.log(math.sqrt(3) / math.pi)  # scale of a logistic of standard deviation 1


@torch.no_grad()
def begin(model, images):
    """Set the linear parts of `model` from uint8 images (N, H, W, 3), cropped to multiples of its unit. Deterministic."""
    images = torch.as_tensor(images)
    height, width = (side // model.unit * model.unit for side in images.shape[1:3])
    chosen = images[:: max(1, len(images) // IMAGES)][:IMAGES, :height, :width].permute(0, 3, 1, 2)
    values, generator = [model.pixels(chosen)], torch.Generator().manual_seed(0)
    for level, posterior in enumerate(model.posteriors, 1):
        cells = space_to_depth(model.shown(level, values[-1]), 2)
        rows = cells.transpose(0, 1).flatten(1).double()
        centred = rows - rows.mean(1, keepdim=True)
        power, vectors = torch.linalg.eigh(centred @ centred.T / rows.shape[1])
        vectors = vectors.flip(1)[:, :model.latents].T
        vectors = vectors * torch.sign(vectors.sum(1, keepdim=True)) * SPREAD / BINS_PER_UNIT / power[-1].sqrt()
        posterior.skip.weight.copy_(vectors[..., None, None])
        posterior.skip.bias.copy_(-(vectors @ rows.mean(1)))
        means, log_scales = model.posterior(level, values[-1])  # drawn as in training: a predictor of clean latents would trust them too much
        values.append(model.sample(means, log_scales, torch.rand(means.shape, generator=generator)) / BINS_PER_UNIT)
    for level, conditional in enumerate(model.conditionals):
        above = values[level + 1] if level < model.levels else None
        blocks = model.blocks(level, values[level])
        context, _ = model.context(level, above, blocks)
        spread, factors = fit(conditional, blocks, context)
        if level == 0:
            shift = conditional.shift[:, :9 * COMPONENTS].view(-1, 3, 3, COMPONENTS)
            base = (LEVELS_PER_UNIT * spread).log() + _LOGISTIC
            shift[:, 1] = base[..., None] + torch.linspace(-1.5, 0.7, COMPONENTS)
        else:
            base = (BINS_PER_UNIT * spread).log() + _LOGISTIC
            conditional.shift[:, model.latents:2 * model.latents] = base.clamp_min(0)
        if factors.numel():
            conditional.shift[:, -factors.shape[1]:] = factors

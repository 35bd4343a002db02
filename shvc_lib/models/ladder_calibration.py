"""From a trained ladder to one that can code: the exact twin of its prior, its scales on the grid, and what a bit of expected divergence really is.

`ladder_codec` plans by `worth`, the divergence 1/2 log2(1 + sigma^2 / s^2) that both ends expect of a latent if its mean is distributed as the prior says. In photographs
means have heavier tails in some channels, brightness above all, and lighter ones in others; a factor for each channel, measured once, sets that right.
"""

import copy

import numpy as np
import torch

from ..nn import to_exact
from ..sampling import tree
from .ladder_codec import GRID, STEP, Latents, outliers, target


def ready(model, images):
    """A copy of a trained Ladder, ready to code with: `prior` becomes an exact twin, scales go to the grid, and it is measured what a bit of expected
    divergence really is in each channel (`worth`, in 64ths: more than one where the means have heavier tails than the prior).

    images: uint8 (B, 3, H, W) for calibration, multiples of 64 a side."""
    model = copy.deepcopy(model).eval()
    points = torch.arange(len(model.betas))

    def run(prior):
        return [prior(z2, point.expand(len(z2))) for point, z2 in zip(points, samples)]

    with torch.no_grad():
        generator, samples = torch.Generator().manual_seed(0), []
        for point in points:
            q, _ = model.upper_posterior(model.evidence(images, point.expand(len(images))), point.expand(len(images)))
            samples.append(torch.round((q.mean + q.scale * torch.randn(q.mean.shape, generator=generator)) * tree.GRID) / tree.GRID)
        model.prior = to_exact(model.prior, run)
        for scales in (model.log_scale, model.upper_log_scale):
            scales.copy_(torch.round(scales * GRID) / GRID)
    for point in range(len(points)):
        found = [[np.zeros((2, channels)), factors] for channels, factors in ((model.upper, model.upper_worth[point]), (model.latents, model.worth[point]))]
        for image in images:
            latents = Latents(model, point, *image.shape[1:])
            lower_evidence, upper_evidence = latents.evidence(image.permute(1, 2, 0).numpy())
            upper = latents.upper()
            q2 = target(upper, upper_evidence)
            lower = latents.lower(np.rint(q2.mean * tree.GRID) / tree.GRID)
            for (sums, _), level, q in zip(found, (upper, lower), (q2, target(lower, lower_evidence))):
                searched = np.ones(level.worth.shape)
                searched[outliers(level, q)] = 0
                sums += [(x * searched).reshape(sums.shape[1], -1).sum(1) for x in (q.kl(level.proposal), level.worth / 2**tree.WORTH_BITS)]
        for (divergence, worth), factors in found:
            factors.copy_(torch.from_numpy(np.rint(STEP * np.clip(divergence / np.maximum(worth, 1e-9), 0.25, 16))))
    return model

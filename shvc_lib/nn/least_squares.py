"""Linear predictions by least squares: where the skips of `nn.autoregression` begin, when there are images to begin with.

The best linear predictor of a channel from what is known of its surroundings solves the normal equations of a few thousand patches; that takes
seconds, and a network that begins there need not spend its first thousand steps finding it. Taught in chapter 5.
"""

import torch
from torch.nn import functional as F

from .autoregression import pairs

_CHUNK = 32  # images whose patches are held at once


@torch.no_grad()
def fit(module, blocks, context=None, ridge=1e-3):
    """Set the linear skip of a `SubpixelAutoregression` to the least-squares predictors of `blocks` (B, C k^2, h, w) from themselves and
    `context` (B, K, h, w), within the skip's mask.

    ridge: variance of the noise imagined on every input, in squares of its unit. Returns (spread, factors): the standard deviations of what remains when
    the earlier channels of the sub-block are known, too, (k^2, C), and the weak factors that do this, (k^2, C (C - 1) / 2) in the order of `pairs`. float64
    tensors, in the unit of `blocks`.
    """
    inputs = blocks if context is None else torch.cat([context, blocks], 1)
    size, outputs, mask = inputs.shape[1] * 9 + 1, blocks.shape[1], module.skip.parametrizations.weight[0].mask
    gram, moment = torch.zeros(size, size, dtype=torch.float64), torch.zeros(size, outputs, dtype=torch.float64)
    rows = 0
    for x, y in zip(inputs.split(_CHUNK), blocks.split(_CHUNK)):
        patches = F.unfold(x, 3, padding=1).transpose(1, 2).flatten(0, 1).double()
        patches = torch.cat([patches, torch.ones(len(patches), 1, dtype=torch.float64)], 1)
        gram += patches.T @ patches
        moment += patches.T @ y.flatten(2).transpose(1, 2).flatten(0, 1).double()
        rows += len(patches)
    gram[range(size - 1), range(size - 1)] += ridge * rows
    weight, bias = torch.zeros(outputs, size - 1, dtype=torch.float64), torch.zeros(outputs)
    for n in range(outputs):
        used = torch.cat([mask[n].flatten().nonzero()[:, 0], torch.tensor([size - 1])])
        solution = torch.linalg.solve(gram[used][:, used], moment[used, n])
        weight[n, used[:-1]], bias[n] = solution[:-1], solution[-1]
    module.skip.weight = weight.reshape(mask.shape).float()
    module.skip.bias.copy_(bias)
    residual = (blocks.unflatten(1, (module.count, module.channels)) - module.predict(blocks, context)).double().transpose(0, 2).flatten(2)  # (C, k^2, rows)
    factors = torch.zeros(module.count, len(pairs(module.channels)), dtype=torch.float64)
    for c in range(1, module.channels):
        chosen = [j for j, (target, _) in enumerate(pairs(module.channels)) if target == c]
        for i in range(module.count):
            known = residual[:c, i]
            noise = torch.diag(torch.full((c,), ridge * known.shape[1], dtype=torch.float64))
            factors[i, chosen] = torch.linalg.solve(known @ known.T + noise, known @ residual[c, i])
    shift = torch.zeros_like(residual)
    for j, (c, i) in enumerate(pairs(module.channels)):
        shift[c] += factors[:, j, None] * residual[i]
    return (residual - shift).square().mean(-1).sqrt().T, factors

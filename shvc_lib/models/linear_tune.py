"""The encoder's half of the tunings of `linear-net`: maximum likelihood on some of a step's pixels, and the cheapest of the three ways to code the step.

Floats are harmless here: only the rounded numbers enter the codec.
"""

import numpy as np
import torch

from ..coding import independent, logistic
from ..nn.parameters import OUTPUT_BITS
from .linear_net import NETWORK, PLAIN, TUNED, TUNING_BITS, TUNING_LIMIT, TUNING_SCALE, _mixture, _outputs, nats, tuning_codec

LEAST = 256  # pixels: fewer can never pay for a tuning
SAMPLE = 1 << 14  # pixels that a tuning is fitted to
_STEPS = 12


def tune(outputs, means, scales, symbols):
    """The tuning of least codelength, int32 (6 * components,), of a step's pixels; arguments as of `_mixture`, symbols flat.

    L-BFGS on the codelength of at most `SAMPLE` pixels (standing for all of them) and of the numbers themselves, under the Laplace that they are coded with."""
    some = slice(None, None, -(-symbols.size // SAMPLE))
    outputs = torch.stack([torch.from_numpy(np.concatenate(values)[some]) for values in zip(*(own for _, own in outputs))]).float() / (1 << OUTPUT_BITS)
    means, scales, symbols, count = means[some], scales[some], symbols[some], symbols.size
    heights = torch.from_numpy((scales[:, None] - 48) / 64).float()
    with torch.enable_grad():
        values = torch.zeros(2, 3, outputs.shape[-1], requires_grad=True)
        search = torch.optim.LBFGS([values], max_iter=_STEPS)

        def codelength():
            search.zero_grad()
            own = nats(outputs + values[0][:, None] + values[1][:, None] * heights, means, scales, symbols).mean()
            total = own + (values ** 2 + 1e-3).sqrt().sum() * (1 << TUNING_BITS) / TUNING_SCALE / count
            total.backward()
            return total

        search.step(codelength)
    found = np.nan_to_num(values.detach().numpy().astype(np.float64)) * (1 << TUNING_BITS)
    return np.clip(np.rint(found), -TUNING_LIMIT, TUNING_LIMIT - 1).astype(np.int32).reshape(-1)


def ways(net, canvas, step, means, scales, symbols):
    """The cheapest way to code the step's symbols: (PLAIN, NETWORK or TUNED, [(codec, its values), ...]), what follows the choice in the stream."""
    outputs = list(_outputs(net, canvas, step, means, scales))
    tried = {PLAIN: [(independent(logistic(means, scales)), symbols)], NETWORK: [(independent(_mixture(outputs, means, scales)), symbols)]}
    if symbols.size >= LEAST:
        tuning = tune(outputs, means, scales, symbols)
        tried[TUNED] = [(tuning_codec(net), tuning), (independent(_mixture(outputs, means, scales, tuning)), symbols)]
    best = min(tried, key=lambda way: sum(codec.bits(values) for codec, values in tried[way]))
    return best, tried[best]

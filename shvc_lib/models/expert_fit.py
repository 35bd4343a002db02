"""The encoder's half of `shvc-photo`: fit the experts of an image and the prior of its latents, by expectation maximisation on some of its blocks.

In turn: which expert has how much to do with which block (the posterior of z), and for each expert a step of Fisher scoring on the codelength of the pixels
that it has to do with, each weighted by how much. Floats are harmless here: only the rounded numbers enter the codec.
"""

import numpy as np
from scipy.linalg import solve
from scipy.special import expit

from ..errors import CorruptFile
from ..nn.parameters import OUTPUT_BITS
from .expert_shvc import BLOCK, CONTEXTS, FIRST, NUMBERS, SCALE_CHOICES, SHARE_LIMIT, blocks_of, contexts, weight_codec
from .experts import WEIGHT_BITS, WEIGHT_LIMIT, expert_layers, hidden_units
from .linear_net import _outputs, head_of
from .linear_net_inputs import pass_of

LEAST = {1: 1 << 13, 2: 1 << 15, 4: 1 << 17, 8: 1 << 20}  # pixels of an image from which on so many experts are tried
SAMPLE = 1 << 17  # pixels of an image that experts are fitted to
ROUNDS, HALVINGS = 8, 4  # of expectation maximisation; of a step that makes matters worse
RIDGE = 10.0  # how strongly experts are held to the trained layer: as if so many pixels had spoken for it
_FLOOR = 2.0**-24  # of a mass


class _Sample:
    """Some rows of blocks of one step: what its experts see, and what they should have said."""

    def __init__(self, net, canvas, choice, chosen, across):
        step, _, parameters, (means, classes), symbols = choice
        rows = np.flatnonzero(chosen[blocks_of(step)[0]])
        pick = (rows[:, None] * step.columns.size + np.arange(step.columns.size)).reshape(-1)
        self.step = step._replace(rows=step.rows[rows])
        means, scales = means[pick], parameters.scales[classes][pick]
        hidden = np.concatenate([own for _, own in hidden_units(net, canvas, self.step, means, scales)])
        outputs = np.concatenate([np.stack(own[:2], 1)[:, :, 0] for _, own in _outputs(net, canvas, self.step, means, scales)]) / (1 << OUTPUT_BITS)
        self.unit = 1 / float(head_of(net, step)[4].prepared()[3])
        self.base = (scales - 48) / 16
        self.features = np.concatenate([hidden * self.unit, np.ones((len(hidden), 1)), self.base[:, None] / 4], axis=1).astype(np.float32)
        self.spreads = np.maximum(self.features.std(0), 0.1)
        self.spreads[-2:] = 1
        self.features /= self.spreads
        self.means, self.log_scales = means / 16 + outputs[:, 0] * np.exp(self.base), self.base + outputs[:, 1]
        self.symbols = symbols[pick]
        rows, columns = blocks_of(self.step)
        self.blocks = ((np.cumsum(chosen) - 1)[rows][:, None] * across + columns).reshape(-1)
        self.first = pass_of(step) < FIRST

    def says(self, expert, pick=slice(None)):
        """(log mass in nats, its derivatives by mean / scale of `linear` and by log scale, curvatures of both) of the picked pixels under an expert (2, width + 2)."""
        offsets, more = expert.astype(np.float32) @ self.features[pick].T
        base, symbols = self.base[pick], self.symbols[pick]
        means, log_scales = self.means[pick] + offsets * np.exp(base), np.clip(self.log_scales[pick] + more, -3, 6)
        inverse = np.exp(-log_scales)
        upper, lower = (symbols + 0.5 - means) * inverse, (symbols - 0.5 - means) * inverse
        turned = np.where(lower + upper > 0, -1.0, 1.0)  # in the left half, where a difference of two numbers near to one does not happen
        high, low = expit(turned * upper), expit(turned * lower)
        high, low = np.where(symbols == 255, turned > 0, high), np.where(symbols == 0, turned < 0, low)
        mass = np.maximum(turned * (high - low), _FLOOR)
        at_high, at_low = high * (1 - high), low * (1 - low)
        by_mean, by_scale = -(at_high - at_low) / mass, -(at_high * upper - at_low * lower) / mass
        square = np.exp(2 * log_scales)
        ratio = np.exp(base - log_scales)
        return np.log(mass), (by_mean * ratio, by_scale), (ratio**2 / (3 + 0.3 / square), 1.43 * square / (square + 0.1))

    def improved(self, expert, weights, ridge):
        """The expert after one step of Fisher scoring on the pixels, weighted."""
        pick = np.flatnonzero(weights > 0.02)
        weights, found = weights[pick], expert.copy()
        logs, slopes, curvatures = self.says(expert, pick)
        before = weights @ logs - ridge / 2 * (expert**2).sum()
        features, step = self.features[pick], np.zeros_like(expert)
        for own, slope, curvature, old in zip(step, slopes, curvatures, expert):
            gram = (features * (weights * curvature).astype(np.float32)[:, None]).T @ features + ridge * np.eye(len(own), dtype=np.float32)
            own[:] = solve(gram, features.T @ (weights * slope).astype(np.float32) - ridge * old, assume_a="pos")
        for half in range(HALVINGS + 1):
            found = expert + step / (1 << half)
            if weights @ self.says(found, pick)[0] - ridge / 2 * (found**2).sum() > before:
                return found
        return expert


def _posterior(samples, experts, log_prior):
    """(responsibilities (blocks, M), log evidence (blocks,)) of the blocks."""
    nats = log_prior.copy()
    for sample, own in zip(samples, experts):
        if sample.first:
            for k, expert in enumerate(own):
                nats[:, k] += np.bincount(sample.blocks, sample.says(expert)[0], len(nats))
    most = nats.max(1, keepdims=True)
    evidence = most + np.log(np.exp(nats - most).sum(1, keepdims=True))
    return np.exp(nats - evidence), evidence[:, 0]


def _shares(posterior, context):
    """Shares of the experts for each context: int32 (CONTEXTS, M), 1 ... 256, the largest 256."""
    counts = np.stack([posterior[context == own].sum(0) for own in range(CONTEXTS)]) + 0.5
    return np.clip(np.rint(SHARE_LIMIT * counts / counts.max(1, keepdims=True)), 1, SHARE_LIMIT).astype(np.int32)


def most(pixels):
    """How many experts to try for a level, uint8 (H, W, C): 0 where it is too small, or narrower than a block, whose neighbours may not be what they seem."""
    height, width, _ = pixels.shape
    return max((own for own in NUMBERS[1:] if height * width >= LEAST[own] and min(height, width) >= BLOCK), default=0)


def fit(net, canvas, fine, number):
    """(shares (CONTEXTS, M), experts of each step, int32 (M, 2, width + 2), the choice of the Laplace for each) of M = `number` experts for a level; or None where
    they do not pay. fine: what `linear_fit.choices` yields for its steps; canvas: holds the level."""
    stride = fine[0][0].stride
    pixels = canvas.pixels[::stride, ::stride]
    height, width, _ = pixels.shape
    blocks = -(-height // BLOCK), -(-width // BLOCK)
    chosen = np.zeros(blocks[0], dtype=bool)
    chosen[:: -(-height * width // SAMPLE)] = True
    context = contexts(pixels)[chosen].reshape(-1)
    samples = [_Sample(net, canvas, choice, chosen, blocks[1]) for choice in fine]
    share = chosen.sum() / blocks[0]
    plain = [np.zeros((2, sample.features.shape[1])) for sample in samples]
    costs = sum(np.bincount(sample.blocks, -sample.says(own)[0], len(context)) for sample, own in zip(samples, plain))
    group = np.searchsorted(np.quantile(costs, np.arange(1, number) / number), costs)
    posterior, experts = np.eye(number)[group], [np.stack([own] * number) for own in plain]
    for turn in range(ROUNDS):
        experts = [np.stack([sample.improved(one, posterior[sample.blocks, k], RIDGE * share) for k, one in enumerate(own)]) for sample, own in zip(samples, experts)]
        if turn < ROUNDS - 1:
            posterior, _ = _posterior(samples, experts, _log_prior(_shares(posterior, context), context))
    return _rounded(net, samples, experts, posterior, context, costs.sum(), share)


def _log_prior(shares, context):
    return np.log(shares / shares.sum(1, keepdims=True))[context]


def _rounded(net, samples, experts, posterior, context, before, share):
    """What `fit` returns, from floats. before: nats of the sample without experts; share: of the image that the sample is."""
    shares, whole, choices, price = _shares(posterior, context), [], [], 8 * CONTEXTS * posterior.shape[1]
    for sample, own in zip(samples, experts):
        rounded = np.clip(np.rint(own / sample.spreads * (1 << WEIGHT_BITS)), -WEIGHT_LIMIT, WEIGHT_LIMIT - 1).astype(np.int32)
        while True:  # until all sums are exact
            try:
                expert_layers(net, sample.step, rounded)
                break
            except CorruptFile:
                halves = rounded[..., :-2] // 2
                rounded[..., :-2] = halves * (halves != rounded[..., :-2]).any()  # where they come to rest at -1, to nought
        bits = [weight_codec(rounded.shape, choice).bits(rounded) for choice in range(SCALE_CHOICES)]
        whole.append(rounded)
        choices.append(int(np.argmin(bits)))
        price += min(bits)
    floats = [own * sample.spreads / (1 << WEIGHT_BITS) for sample, own in zip(samples, whole)]
    posterior, evidence = _posterior(samples, floats, _log_prior(shares, context))
    after = -evidence.sum()
    for sample, own in zip(samples, floats):
        if not sample.first:
            best = posterior.argmax(1)[sample.blocks]
            for k, expert in enumerate(own):
                pick = np.flatnonzero(best == k)
                after -= sample.says(expert, pick)[0].sum()
    return (shares, whole, choices) if (before - after) / share / np.log(2) > price else None

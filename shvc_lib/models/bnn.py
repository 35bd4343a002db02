"""MIRACLE for the weights of a network: a Bayesian network is trained to a budget of bits, and one sample of its weights is coded in that many.

Every weight has a posterior q = N(mean, sigma^2) and a prior p = N(0, s^2), s shared by a layer. A file that holds a sample of q can be as small as
KL[q || p], so training maximises what fits and sets the price of a bit by the budget C:

    E_q[log p(labels | images, weights)] - beta KL[q || p],     beta such that KL = C      (Flamich 2019, eqs 1.3 and 1.4)

A permutation that sender and receiver share splits the weights into blocks of equal size, each with a beta of its own that rises while the block's
KL is above its share and falls while it is below: then every block is one index, drawn from the same number of candidates. A sample drawn from finitely many
candidates is biased. What a block lost the others can make up for: some blocks are coded, the rest trains on around them, and so on, in rounds.
Havasi, Peharz and Hernandez-Lobato (2019). The prior widths follow the weights, as the root mean square of each layer, in steps of an eighth of
an octave, which is what the file holds. Dense layers draw their outputs, not their weights (local reparametrisation: Kingma, Salimans and Welling 2015).

| in the papers | here |
| --- | --- |
| C, the budget of eq 1.3; the share of a block | `budget`; `block`, both in bits |
| beta of a block | exp(`log_beta`) |
| t; K, the number of candidates of a block | `extra_bits`; 2^(block + extra_bits) |
| w hat, the weights of a coded block | `value`, where `fixed` |

The file's own fields (see `weights`): seed (2 bytes), number of blocks (2), bits of an index (1), rule (1), mean and width of the index
lengths (1 + 1), and per layer the prior's width k (1), s = 2^(k / 8). Taught in chapter 3.
"""

import copy
import math
import struct

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from ..coding import BitStack, autoregressive, gaussian, independent, scale_index
from ..coding.checks import integer
from ..errors import CorruptFile, InvalidInput
from ..sampling import Gaussian, importance, ordered, uniforms
from ..sampling.index_codes import block as plain_bits
from . import weights as files

KIND = b"BNN\1"
RULES = ("importance", "ordered")
SCALE_STEPS = 8  # prior widths per octave
MOST_BITS = 24  # of an index
_FIRST_SIGMA = 0.3  # of a first weight's own scale
_FIRST_BETA, _BETA_RATE, _BETA_LIMITS = -2.0, 0.03, (-10.0, 5.0)  # log beta: where it starts, how fast it moves, and how far
_PERMUTATION = 3  # purpose of the random numbers that shuffle the weights


def layout(sizes, blocks, seed):
    """Which weights each block holds: int64 (blocks, weights of a block), the same on every machine. Numbers beyond the last weight fill up."""
    weights = sum(math.prod(shape) for shape in files.shapes(sizes))
    slots = np.arange(-(-weights // blocks) * blocks)
    return np.argsort(uniforms(seed, slots, 0, _PERMUTATION), kind="stable").reshape(blocks, -1)


class BayesianMLP(nn.Module):
    """A fully connected network with Gaussian weights and ReLU, split into round(budget / block) blocks of `block` bits of KL each.

    sizes: units per layer, inputs first, such as (64, 32, 10); budget: bits of KL for all weights; block: bits of KL of one block; extra_bits: t, so that
    an index has block + extra_bits bits, at most 24; seed: 0 ... 65535, of the shuffle, the candidates and the first weights. Raises InvalidInput.
    """

    def __init__(self, sizes, budget, block=10, extra_bits=2, seed=0):
        super().__init__()
        self.sizes, self.seed = files.check_sizes(sizes), integer("seed", seed, 0, 65535)
        self.bits = integer("block", block, 1, MOST_BITS) + integer("extra_bits", extra_bits, 0, MOST_BITS)
        if self.bits > MOST_BITS:
            raise InvalidInput(f"an index of {block} + {extra_bits} bits would need more than 2^{MOST_BITS} candidates: make the blocks smaller")
        counts = [math.prod(shape) for shape in files.shapes(self.sizes)]
        blocks = integer("budget / block", round(budget / block), 1, min(sum(counts), 65535))
        self.block, self.extra_bits, self.counts = block, extra_bits, counts
        self.slots = layout(self.sizes, blocks, seed)
        block_of, layer = np.empty(self.slots.size, dtype=np.int64), np.repeat(np.arange(len(counts)), counts)
        block_of[self.slots.reshape(-1)] = np.repeat(np.arange(blocks), self.slots.shape[1])
        generator = torch.Generator().manual_seed(seed)
        scale = torch.cat([torch.full((math.prod(shape),), shape[0] ** -0.5) for shape in files.shapes(self.sizes)])
        self.mean = nn.Parameter(scale * torch.randn(scale.shape, generator=generator))
        self.log_sigma = nn.Parameter((_FIRST_SIGMA * scale).log())
        self.register_buffer("block_of", torch.from_numpy(block_of[:sum(counts)]))
        self.register_buffer("layer", torch.from_numpy(layer))
        self.register_buffer("log_beta", torch.full((blocks,), _FIRST_BETA))
        self.register_buffer("fixed", torch.zeros(sum(counts), dtype=torch.bool))
        self.register_buffer("value", torch.zeros(sum(counts)))
        self.widths = None  # prior widths k once they are settled: the first coded block settles them

    def posterior(self):
        """(means, standard deviations) of all weights, flat: a coded weight is its value, and certain."""
        return torch.where(self.fixed, self.value, self.mean), torch.where(self.fixed, 0.0, self.log_sigma.exp())

    @torch.no_grad()
    def prior_widths(self):
        """k of each layer, s = 2^(k / 8): int64 array. The s that minimises KL[q || p] is the root of the layer's mean of mean^2 + sigma^2."""
        if self.widths is not None:
            return self.widths
        squares = torch.stack([part.mean() for part in (self.mean**2 + (2 * self.log_sigma).exp()).split(self.counts)])
        return np.clip(np.rint(0.5 * SCALE_STEPS * np.log2(squares.double().numpy() + 1e-30)), -128, 127).astype(np.int64)

    def block_kl(self):
        """KL[q || p] of each block in bits: float32 tensor (blocks,), zero for those that are coded."""
        scale = torch.from_numpy(2.0 ** (self.prior_widths() / SCALE_STEPS)).float()[self.layer]
        nats = 0.5 * ((self.mean / scale) ** 2 + (self.log_sigma.exp() / scale) ** 2 - 1) - self.log_sigma + scale.log()
        return torch.zeros_like(self.log_beta).index_add(0, self.block_of, torch.where(self.fixed, 0.0, nats)) / math.log(2)

    def forward(self, images, generator=None):
        """Logits (N, classes) of images, float32 (N, inputs), each image under weights of its own draw."""
        x = images
        for i, (mean, sigma) in enumerate(zip(*(part.split(self.counts) for part in self.posterior()))):
            mean, variance = mean.view(-1, self.sizes[i + 1]), sigma.view(-1, self.sizes[i + 1]) ** 2
            spread = (x**2 @ variance[:-1] + variance[-1] + 1e-12).sqrt()
            x = x @ mean[:-1] + mean[-1] + spread * torch.randn(spread.shape, generator=generator)
            x = F.relu(x) if i + 2 < len(self.sizes) else x
        return x

    @torch.no_grad()
    def weights(self, rng=None):
        """The means as float32 matrices (inputs + 1, outputs); with rng, a numpy Generator, an exact sample of the posterior instead."""
        mean, sigma = (part.numpy() for part in self.posterior())
        return files.split(mean.copy() if rng is None else (mean + sigma * rng.standard_normal(mean.size)).astype(np.float32), self.sizes)


def fit(model, images, labels, steps, rate=1e-2, batch=128, seed=0):
    """Train a BayesianMLP in place. images: float (N, inputs); labels: ints (N,); rate: Adam's, falling to a twentieth along a cosine.

    Returns arrays (steps,): a dict of `nll` (nats per image), `kl` (bits, all blocks), `beta` (the middle one of the blocks).
    """
    images, labels = torch.as_tensor(images, dtype=torch.float32), torch.as_tensor(labels, dtype=torch.int64)
    generator = torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam([model.mean, model.log_sigma], rate)
    decay = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda i: 0.525 + 0.475 * math.cos(math.pi * i / steps))
    trace = {"nll": [], "kl": [], "beta": []}
    for _ in range(steps):
        chosen = torch.randint(len(images), (batch,), generator=generator)
        kl = model.block_kl()
        nll = F.cross_entropy(model(images[chosen], generator), labels[chosen])
        loss = nll + math.log(2) / len(images) * (model.log_beta.exp() * kl).sum()  # eq 1.4 in nats, divided by minus the number of images
        optimizer.zero_grad()
        loss.backward()
        optimizer.step(), decay.step()
        excess = (kl.detach() / model.block - 1).clamp(-1, 1)
        model.log_beta += _BETA_RATE * torch.where(kl.detach() > 0, excess, 0.0)
        model.log_beta.clamp_(*_BETA_LIMITS)
        for name, value in (("nll", nll), ("kl", kl.sum()), ("beta", model.log_beta.median().exp())):
            trace[name].append(float(value.detach()))
    return {name: np.array(values) for name, values in trace.items()}


def _prior(sizes, slots, widths):
    """The prior of every slot as a Gaussian (blocks, weights of a block); slots that fill up have N(0, 1)."""
    counts = [math.prod(shape) for shape in files.shapes(sizes)]
    scale = np.ones(slots.size)
    scale[:sum(counts)] = np.repeat(2.0 ** (np.asarray(widths) / SCALE_STEPS), counts)
    return Gaussian(np.zeros(slots.shape), scale[slots])


def _sample(rule, index, prior, seed, slots):
    """The candidates that the indices name: float32, the shape of `slots`."""
    if rule == "ordered":
        return ordered.decode(index, prior, seed, slots).astype(np.float32)
    return importance.decode(index, prior, seed, np.full(len(slots), slots.shape[1]), slots).astype(np.float32)


@torch.no_grad()
def _code(model, rule, some):
    """Code the blocks `some` of the model in place: their indices, int64."""
    slots, sigma = model.slots[some], model.log_sigma.exp().double().numpy()
    real = slots < sigma.size
    prior, which = _prior(model.sizes, model.slots, model.widths)[some], np.minimum(slots, sigma.size - 1)
    target = Gaussian(np.where(real, model.mean.double().numpy()[which], 0), np.where(real, sigma[which], 1))
    if rule == "ordered":
        index = ordered.encode(target, prior, model.seed, model.extra_bits, stream=slots)
    else:
        index = importance.encode(target, prior, model.seed, model.bits, np.full(len(slots), slots.shape[1]), slots)
    x = torch.from_numpy(_sample(rule, index, prior, model.seed, slots)[real])
    model.value[slots[real]], model.fixed[slots[real]] = x, True
    return index


def encode(model, rule="importance", rounds=1, retrain=None):
    """A file of one weight sample of a trained BayesianMLP: bytes. The model itself stays as it is.

    rule: "importance", all indices cost block + extra_bits bits; or "ordered", where small indices cost fewer. retrain: a function of the model that is
    called between the rounds, with the coded blocks fixed, and trains the others (see `fit`). Raises InvalidInput.
    """
    if rule not in RULES:
        raise InvalidInput(f"rule must be one of {', '.join(RULES)}, not {rule!r}")
    model = copy.deepcopy(model)
    model.widths = model.prior_widths()
    blocks = len(model.slots)
    index = []
    for some in np.array_split(np.arange(blocks), integer("rounds", rounds, 1, blocks)):
        if index and retrain:
            retrain(model)
        index.append(_code(model, rule, some))
    index, levels = np.concatenate(index), (0, 0)
    if rule == "ordered":
        level = np.log2(index + 1.0) // 1
        levels = round(8 * level.mean()), int(scale_index(max(level.std(), 0.25)))
    stack = BitStack()
    _indices(rule, blocks, model.bits, levels).push(stack, _split(index) if rule == "ordered" else index)
    fields = struct.pack(f"<HHBBBB{len(model.widths)}b", model.seed, blocks, model.bits, RULES.index(rule), *levels, *model.widths)
    return files.pack(KIND, model.sizes, fields, stack.to_bytes())


def _split(index):
    """[level, position in it] of indices: level = floor(log2(index + 1))."""
    level = np.frexp((index + 1).astype(np.float64))[1].astype(np.int64) - 1
    return [level, index + 1 - (1 << level)]


def _indices(rule, blocks, bits, levels):
    """The codec of the indices: `bits` plain bits each, or the level under a Gaussian of the header's mean and width and then plain bits."""
    if rule == "importance":
        return plain_bits(bits, blocks)

    def model():
        level = yield independent(gaussian(np.full(blocks, 2 * levels[0]), np.full(blocks, levels[1]), MOST_BITS + 1))
        yield plain_bits(level, blocks)

    return autoregressive(model)


def decode(data):
    """The weights that a file holds: float32 matrices (inputs + 1, outputs). Needs nothing but the file. Raises CorruptFile, TruncatedFile."""
    sizes, (seed, blocks, bits, rule, *levels), widths, payload = files.unpack(KIND, data, "HHBBBB", "b")
    weights = sum(math.prod(shape) for shape in files.shapes(sizes))
    if min(sizes) < 1 or not 0 < blocks <= weights or rule >= len(RULES) or not 0 < bits <= MOST_BITS or levels[1] > 191:
        raise CorruptFile("the header describes no network that this program can write")
    index = files.pop_all(_indices(RULES[rule], blocks, bits, levels), payload)
    index = (1 << index[0].astype(np.int64)) + index[1] - 1 if RULES[rule] == "ordered" else index
    slots, flat = layout(sizes, blocks, seed), np.empty(weights, dtype=np.float32)
    x = _sample(RULES[rule], index, _prior(sizes, slots, np.concatenate(widths)), seed, slots)
    flat[slots[slots < weights]] = x[slots < weights]
    return files.split(flat, sizes)

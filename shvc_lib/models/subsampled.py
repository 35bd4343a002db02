"""A deterministic SHVC whose latents are pixels: z_l is every 2^l-th pixel of every 2^l-th row.

    p(x) = p(x | z_1) p(z_1 | z_2) ... p(z_L)          every factor by eq 9 of SHVC        (eq 11, Ryder et al. 2022)
    q(z_l | z_(l-1)) = 1 for the first sub-block of z_(l-1) at k = 2                        (eq 12, with a posterior that is not learned)

z_1 says what the first of x's four sub-blocks is, so three are left to be coded: one network call for each, for all three colours at once (eqs 6-7, *weak*
autoregression), whatever the size of the image. L goes up to a single pixel, and the same networks serve all levels. Nothing is drawn, so there are no
initial bits, and every file has the length that the model promises.

With a learned posterior the networks have to find out what a latent should say while they learn to say it. Here they need not, and they may look at the pixels
next to the one that they predict, as `linear` does:

    m = the mean of the four nearest known pixels of a colour,   s = the mean distance from m of the sixteen nearest, over all colours
    inputs: all known pixels within reach less m, divided by s; how far they lie apart; log s; m; l
    p(x_c | known) = sum_k w_k logistic(x_c; m_c + s a_k + sum_(i < c) beta_k^(i) (x_i - m_i), s e^(b_k))        a, b, log w, beta: the network's

Taught in chapter 7.
"""

import math
from functools import lru_cache

import torch
from torch import nn
from torch.nn import functional as F

from ..coding.tables import SCALE_STEPS, SCALE_ZERO, inverse_scales
from ..errors import InvalidInput
from ..nn.autoregression import pairs
from ..nn.distributions import mixture_log_mass, with_floor

PASSES = [(1, 1), (0, 1), (1, 0)]  # rows and columns, odd or even, of the sub-blocks in coding order; (0, 0) is known
ORDER = [1, 0, 2]  # colours in coding order: green says most about the others
REACH, NEIGHBOURS = 5, (36, 40, 40)  # neighbours lie within so many rows and columns; how many of them each pass looks at, nearest first
NEAREST, NEAR = 4, 16  # how many of them make the mean and the scale
INPUT_BITS, INPUT_LIMIT = 7, 12 << 7  # distances go into the network as multiples of 2^-7 of the scale, up to twelve of them
SMALLEST, LARGEST = 42, 136  # indices of scales: 0.69 and 245 levels
LEVELS = 4  # from here on all levels look the same to the networks
_INVERSE = 14  # fractional bits of the inverse scales
_THREE = len(ORDER)


def neighbours(number):
    """The (row, column) offsets of known pixels that pass `number` looks at, nearest first."""
    row, column = PASSES[number]
    known = [(0, 0), *PASSES[:number]]
    square = [(y, x) for y in range(-REACH, REACH + 1) for x in range(-REACH, REACH + 1) if ((row + y) % 2, (column + x) % 2) in known]
    return sorted(square, key=lambda offset: (offset[0]**2 + offset[1]**2, offset))[:NEIGHBOURS[number]]


def inputs_of(number):
    """How many numbers the network of a pass looks at."""
    return _THREE * (NEIGHBOURS[number] + 2) + 2


def _mirrored(positions, length):
    """Positions mirrored at both ends as often as it takes, which keeps them even or odd."""
    positions = torch.abs(positions) % max(2 * (length - 1), 1)
    return torch.minimum(positions, 2 * (length - 1) - positions) if length > 1 else positions


@lru_cache(maxsize=1)
def _thresholds():
    """Sums of distances in 1/16 level above which a scale's index is the next one's: int32. Geometric means of two scales, from the integers 2^23 / scale."""
    table, count = [int(value) for value in inverse_scales()], 16 * NEAR * _THREE
    return torch.tensor([math.isqrt((count << 23)**2 // (table[i] * table[i + 1])) for i in range(SMALLEST, LARGEST)], dtype=torch.int32)


@lru_cache(maxsize=1)
def _inverse():
    """2^14 / scale by index: int32."""
    return torch.from_numpy(inverse_scales() >> 23 - _INVERSE).int()


def surroundings(lattice, number, level, rows=slice(None), columns=slice(None)):
    """What pass `number` sees of a lattice, int32 (B, H, W, 3): of x at level 0, of z_level above; rows, columns: some of the pass's.

    Returns of its P pixels, image by image and row by row: inputs int32 (P, inputs_of(number)), multiples of 2^-7; means int32 (P, 3) in 1/16 level;
    indices of scales int64 (P, 1). In integers throughout."""
    (_, height, width, _), device, offsets = lattice.shape, lattice.device, neighbours(number)
    down, right = (torch.arange(first, side, 2, device=device)[part] for first, side, part in zip(PASSES[number], (height, width), (rows, columns)))
    if height == 1:  # nothing lies in odd rows: what would, is looked for to the left and to the right
        offsets = [(0, x if (PASSES[number][1] + x) % 2 == 0 else x + (1 if y > 0 else -1)) for y, x in offsets]
    if width == 1:
        offsets = [(y if (PASSES[number][0] + y) % 2 == 0 else y + (1 if x > 0 else -1), 0) for y, x in offsets]
    at_rows = {y: lattice[:, _mirrored(down + y, height)] for y in {y for y, _ in offsets}}
    at_columns = {x: _mirrored(right + x, width) for x in {x for _, x in offsets}}
    seen = torch.stack([at_rows[y][:, :, at_columns[x]] for y, x in offsets], -1).flatten(0, 2)
    means = 16 // NEAREST * seen[..., :NEAREST].sum(-1, dtype=torch.int32)
    away = 16 * seen - means[..., None]
    spreads = away[..., :NEAR].abs().sum(-1, dtype=torch.int32)
    scales = SMALLEST + torch.searchsorted(_thresholds().to(device), spreads.sum(-1, keepdim=True, dtype=torch.int32))
    inverse, shift = _inverse().to(device)[scales], 4 + _INVERSE - INPUT_BITS
    units = torch.cat([away.flatten(1), spreads // NEAR], 1) * inverse + (1 << shift - 1) >> shift
    facts = [(means >> 4) - 128, (scales - 80).int() << INPUT_BITS - 4, torch.full_like(scales, min(level, LEVELS) << INPUT_BITS - 1, dtype=torch.int32)]
    return torch.cat([units, *facts], 1).clamp_(-INPUT_LIMIT, INPUT_LIMIT), means, scales


def _known(lattice, number):
    """A copy of the lattice in which what pass `number` has to find is 0, and what comes after it."""
    known = lattice.clone()
    for row, column in PASSES[number:]:
        known[:, row::2, column::2] = 0
    return known


class _Pass(nn.Module):
    """The network of a pass: inputs (P, n) -> (P, outputs). Layers that add to what they see; `bfloat`: in bfloat16 while training."""

    def __init__(self, inputs, width, layers, outputs, bfloat):
        super().__init__()
        self.first, self.last, self.bfloat = nn.Linear(inputs, width), nn.Linear(width, outputs), bfloat
        self.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(layers))

    def forward(self, x):
        with torch.autocast(x.device.type, torch.bfloat16, enabled=self.bfloat and self.training):
            x = F.relu(self.first(x))
            for layer in self.layers:
                x = x + F.relu(layer(x))
            x = self.last(x)
        return x.float()


class SubsampledSHVC(nn.Module):
    """width: of the networks; layers: between the first and the last; components: of the mixtures; bfloat: see `_Pass`. Images are uint8 (B, 3, H, W) of any
    size. Raises InvalidInput."""

    deterministic, split, unit = True, 4, 1  # what other modules ask an SHVC: nothing is drawn, no sub-block is kept back, any height and width
    turns = True  # mirrored, a picture is as likely as it was, and has another code

    def __init__(self, width=160, layers=3, components=5, bfloat=False):
        super().__init__()
        if min(width, layers, components) < 1:
            raise InvalidInput(f"width, layers and components must be positive, got {width}, {layers} and {components}")
        self.components, self.ks = components, (2,)
        self.passes = nn.ModuleList(_Pass(inputs_of(number), width, layers, (3 * _THREE + len(pairs(_THREE))) * components, bfloat) for number in range(len(PASSES)))
        for network in self.passes:  # begin as a mixture of logistics around the mean, narrower ones and wider ones
            with torch.no_grad():
                network.last.weight *= 0.1
                network.last.bias.zero_()
                network.last.bias.view(-1, components)[_THREE:2 * _THREE] = torch.linspace(-1, 0.7, components)

    def forward(self, number, inputs):
        """(offsets, log scales, logits, factors), in units of the scale: float32 (P, 3, K) each, factors in the order of `nn.autoregression.pairs`, and colours
        in that of `ORDER`. inputs: int32 (P, n) of `surroundings`."""
        network = self.passes[number]
        return network(inputs.to(network.last.weight.device, torch.float32) / (1 << INPUT_BITS)).unflatten(-1, (4, _THREE, self.components)).unbind(1)

    def noise(self, batch, generator, side=32):
        """What one step draws: nothing."""
        return []

    def nats(self, lattice, level):
        """-ln p of the three sub-blocks that pixels (B, H, W, 3), int32, have beyond the first, summed."""
        total = 0.0
        for number, (row, column) in enumerate(PASSES):
            symbols = lattice[:, row::2, column::2].reshape(-1, _THREE)[:, ORDER]
            if symbols.numel():
                inputs, means, scales = surroundings(_known(lattice, number), number, level)
                means, symbols, base = (means[:, ORDER, None] / 16), symbols[..., None].float(), ((scales - SCALE_ZERO) / SCALE_STEPS)[..., None]
                offsets, log_scales, logits, factors = self(number, inputs)
                shifts = [torch.zeros_like(offsets[:, 0]) for _ in range(_THREE)]
                for factor, (c, i) in zip(factors.unbind(1), pairs(_THREE)):
                    shifts[c] = shifts[c] + factor * (symbols - means)[:, i]
                log_mass = mixture_log_mass(symbols[..., 0], means + base.exp() * offsets + torch.stack(shifts, 1), base + log_scales, logits)
                total = total - with_floor(log_mass, 256).sum()
        return total

    def loss(self, images, noise):
        """(bits per sub-pixel, {"x": bits for x given z_1, "z1": for z_1 given z_2, ...}, all per sub-pixel of the images) of uint8 images (B, 3, H, W)."""
        lattice, parts, level = images.permute(0, 2, 3, 1).int(), {}, 0
        whole = lattice.numel() * math.log(2)
        while max(lattice.shape[1:3]) > 1:
            parts[f"z{level}" if level else "x"] = self.nats(lattice, level) / whole
            lattice, level = lattice[:, ::2, ::2], level + 1
        parts[f"z{level}" if level else "x"] = torch.tensor(8 * lattice.numel() * math.log(2) / whole)
        return sum(parts.values()), parts

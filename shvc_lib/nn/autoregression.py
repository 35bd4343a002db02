"""Autoregression over sub-blocks: k^2 network calls for an image of any size, and one call when everything is known.

An image y (or the latents of a level) is cut into k^2 sub-blocks of C channels (`nn.subpixel`). They follow one another,

    p(y | context) = prod_i p(y_i | y_<i, context),        i = 0 ... k^2 - 1        (eq 9 of SHVC, *strong* autoregression)

by a network; within a sub-block the C channels of a pixel follow one another by a linear rule alone, whose factors the same call returns:

    mean_c = alpha_c + sum_(i < c) beta_c^(i) y_i        (eqs 6-7, *weak* autoregression)

(The products of eqs 6 and 9 are printed with one factor too many.) k = 1 makes everything independent given the context, k = H = W is a
per-pixel model, one pixel after the other in raster order.

*One pass.* Sub-blocks are slices of a volume (B, C, k^2, h, w), and a 3-D convolution whose kernel is masked along the new axis, so that slice i sees
slices i - 1, i - 2, ... only, evaluates all conditionals at once. A kernel of depth 2 D - 1 whose last D slices are zero computes the same as one of depth
D - 1 after padding by D - 1 slices in front, which is what is done here. All further layers look at one slice at a time. `step` evaluates a single slice,
for decoding: a window of the same volume under the same kernel. In floats the two differ in their last digits, and the decoder is lost; exact twins
(`nn.exact`) return the same integers.

*Skips.* A linear prediction of every channel from what is known within `REACH` pixels stands beside the network, and the network only corrects it. It begins as
the mean of the nearest known pixels of the same colour, or, after `fit`, as the least-squares predictor. alpha is written relative to it: with
m the linear prediction, mean_c = m_c + alpha'_c + sum beta_c^(i) (y_i - m_i), the same family as eq 7. Taught in chapter 5.
"""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrize

from ..errors import InvalidInput
from .blocks import Block
from .subpixel import positions

REACH = 3  # pixels: how far the linear skip looks
SKIPS = ("means", "none")


class _Masked(nn.Module):
    """Parametrisation: weights outside the mask are zero, and stay so."""

    def __init__(self, mask):
        super().__init__()
        self.register_buffer("mask", mask, persistent=False)  # what the architecture says, not what a checkpoint does

    def forward(self, weight):
        return weight * self.mask

    def right_inverse(self, weight):
        return weight * self.mask


def pairs(channels):
    """The (c, i), i < c, that weak autoregression has a factor for, in order: list of tuples."""
    return [(c, i) for c in range(channels) for i in range(c)]


def weak_shift(values, centres, factors):
    """sum_(i < c) beta_c^(i) (y_i - m_i) for every channel c (eq 7): values y and centres m (..., C, h, w), factors (..., C (C - 1) / 2, h, w) in the
    order of `pairs` -> (..., C, h, w)."""
    residual, shifts = values - centres, [torch.zeros_like(values[..., 0, :, :]) for _ in range(values.shape[-3])]
    for j, (c, i) in enumerate(pairs(values.shape[-3])):
        shifts[c] = shifts[c] + factors[..., j, :, :] * residual[..., i, :, :]
    return torch.stack(shifts, -3)


def geometry(channels, k, order="subpixel"):
    """Which of the 3 x 3 C k^2 inputs of the skip a channel may see, and how far away they are in pixels.

    Returns (known, distance, same): bool (n, m, 3, 3), channel m of the neighbouring cell belongs to an earlier sub-block and lies within REACH;
    float (n, m, 3, 3), Euclidean; bool (n, m, 1, 1), of the same colour.
    """
    colour, row, column = positions(channels, k, order)
    block = np.arange(len(colour)) // channels
    cell = np.arange(-1, 2)
    down = k * cell[:, None] + (row[None, :] - row[:, None])[..., None, None]
    right = k * cell[None, :] + (column[None, :] - column[:, None])[..., None, None]
    known = (block[None, :] < block[:, None])[..., None, None] & (np.abs(down) <= REACH) & (np.abs(right) <= REACH)
    return known, np.hypot(down, right), (colour[None, :] == colour[:, None])[..., None, None]


class SubpixelAutoregression(nn.Module):
    """All conditionals of eq 9 for one variable.

    channels: C; k: sub-blocks are cells of k x k; outputs: numbers per pixel of a sub-block that the network returns (distribution parameters, without
    the linear prediction); context: channels of what is known beforehand, at the sub-blocks' resolution; width, blocks: of the network;
    sees: how many sub-blocks see the context (all k^2, or the first `sees` for ArIB); order: see `nn.subpixel`; skips: "means" or "none";
    bfloat: evaluate the large convolutions in bfloat16 while training.
    """

    def __init__(self, channels, k, outputs, context=0, width=32, blocks=2, sees=None, order="subpixel", skips="means", bfloat=False):
        super().__init__()
        if skips not in SKIPS:
            raise InvalidInput(f"skips are {' or '.join(SKIPS)}, not {skips!r}")
        self.channels, self.k, self.count, self.order, self.bfloat = channels, k, k * k, order, bfloat
        self.depth = self.count - 1  # sub-blocks that the last one looks back to
        self.sees = self.count if sees is None else sees
        self.first = nn.Conv3d(channels, width, (self.depth, 3, 3), padding=(0, 1, 1)) if self.depth else None
        self.look = nn.Sequential(nn.Conv2d(context, width, 3, padding=1), Block(width)) if context else None
        self.blocks = nn.Sequential(*[Block(width) for _ in range(blocks)], nn.ReLU())
        self.last = nn.Conv2d(width, outputs, 1)
        self.place, self.shift = nn.Parameter(0.1 * torch.randn(self.count, width)), nn.Parameter(torch.zeros(self.count, outputs))
        nn.init.zeros_(self.last.weight), nn.init.zeros_(self.last.bias)
        self.register_buffer("lit", (torch.arange(self.count) < self.sees).float(), persistent=False)
        self.skip = nn.Conv2d(context + channels * self.count, channels * self.count, 3, padding=1)
        self._begin_skip(context, skips)

    def _begin_skip(self, context, skips):
        known, distance, same = geometry(self.channels, self.k, self.order)
        block = np.arange(len(known)) // self.channels
        above = np.broadcast_to((block < self.sees)[:, None, None, None], (len(known), context, 3, 3))
        mask = np.concatenate([above, known], 1) if skips == "means" else np.zeros((len(known), context + len(known), 3, 3), dtype=bool)
        weight = np.zeros(mask.shape)
        candidates = known & same
        if skips == "means":
            for n in np.flatnonzero(candidates.any((1, 2, 3))):
                nearest = candidates[n] & (distance[n] <= max(1.5, distance[n][candidates[n]].min()))
                weight[n, context:] = nearest / nearest.sum()
            for n in np.flatnonzero((~candidates.any((1, 2, 3))) & (context > 0)):  # nothing of this colour is known: the context's channel of that number
                if n < min(context, self.channels):
                    weight[n, n, 1, 1] = 1
        nn.init.zeros_(self.skip.bias)
        self.skip.weight.data = torch.from_numpy(weight).float()
        parametrize.register_parametrization(self.skip, "weight", _Masked(torch.from_numpy(mask).float()))

    def seen(self, context, like):
        """What every step needs of the context (B, K, h, w), or of none, for blocks `like` (B, C k^2, h, w): computed once per image."""
        with torch.autocast(like.device.type, torch.bfloat16, enabled=self.bfloat and self.training):
            features = self.look(context) if self.look is not None else None
        return context, features

    def predict(self, blocks, context):
        """The linear predictions of all channels, (B, k^2, C, h, w)."""
        return self.skip(blocks if context is None else torch.cat([context, blocks], 1)).unflatten(1, (self.count, self.channels))

    def _network(self, volume, features, chosen):
        """(B, n, outputs, h, w) for the n = len(chosen) chosen sub-blocks. volume: (B, C, depth + n - 1, h, w), the slices before them (k = 1: anything of that
        batch and size)."""
        with torch.autocast(volume.device.type, torch.bfloat16, enabled=self.bfloat and self.training):
            hidden = self.place[chosen].T[None, :, :, None, None]
            if features is not None:
                hidden = hidden + self.lit[chosen][None, None, :, None, None] * features[:, :, None]
            if self.first is not None:
                hidden = hidden + self.first(volume)
            batch = volume.shape[0]
            hidden = hidden.expand(batch, -1, -1, *volume.shape[-2:]).transpose(1, 2).flatten(0, 1)
            hidden = self.blocks(hidden)
        return self.last(hidden.float()).unflatten(0, (batch, len(chosen))) + self.shift[chosen][None, :, :, None, None]

    def forward(self, blocks, seen):
        """One pass over known blocks g(y; k), (B, C k^2, h, w): (linear predictions (B, k^2, C, h, w), outputs (B, k^2, outputs, h, w))."""
        context, features = seen
        volume = blocks.unflatten(1, (self.count, self.channels)).transpose(1, 2)
        before = F.pad(volume[:, :, :self.depth], (0, 0, 0, 0, self.depth, 0)) if self.depth else volume
        return self.predict(blocks, context), self._network(before, features, torch.arange(self.count))

    def step(self, blocks, seen, i):
        """Sub-block i alone, from the blocks before it: the rest of `blocks` may hold anything. (B, C, h, w) and (B, outputs, h, w)."""
        context, features = seen
        known = torch.where(torch.arange(blocks.shape[1], device=blocks.device)[:, None, None] < i * self.channels, blocks, torch.zeros_like(blocks))
        volume = known.unflatten(1, (self.count, self.channels)).transpose(1, 2)
        before = F.pad(volume[:, :, :i], (0, 0, 0, 0, self.depth - i, 0)) if self.depth else volume
        return self.predict(known, context)[:, i], self._network(before, features, torch.tensor([i]))[:, 0]

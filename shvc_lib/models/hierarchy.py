"""The prior of a hierarchy of integer latents, from the top down: p(z1) p(z2 | z1) p(y1 | z1, z2) p(y2 | z1, z2, y1) ...

    z1, one position for 64 x 64 pixels --> z2, 32 x 32 --> the latents of `nn.transforms`, 16 x 16, in groups of channels,
                                                            and each group in two layers, the white fields of a chessboard and the black ones

Features h run down through residual blocks (a ResNet VAE's deterministic path); each layer's Normal is read off them, and what was found is added to them. So
every layer may know all layers before it: the first channels, which are brightness and colour, forecast the others, and white fields their black neighbours
(Duan et al. 2023 deepen a VAE this way; Minnen and Singh 2020 and He et al. 2022 found the order by channels and fields). One group without chessboard is
a hierarchy of three layers. Taught in chapter 4.

Sender and receiver compute this network, so it has convolutions, ReLU, additions and re-arrangements only, and an exact twin (`nn.exact`). It sees and returns
*standardised* latents: integers divided by what `DiscretizedVAE.units` expects of their size.
"""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from ..nn.blocks import Block


class Layer(NamedTuple):
    """One layer of latents as the prior sees it. source: "z2" or "y"; channels: a slice of that latent's; fields: (1, 1, h, w) bool, the positions of this
    layer, or None for all; mean, log_scale: (B, channels, h, w) of its Normal, standardised."""

    source: str
    channels: slice
    fields: torch.Tensor | None
    mean: torch.Tensor
    log_scale: torch.Tensor


def chessboard(height, width, black, device=None):
    """(1, 1, height, width) bool: the white fields (top left is white), or the black ones."""
    return ((torch.arange(height, device=device)[:, None] + torch.arange(width, device=device)) % 2 == int(black))[None, None]


def proceed(walk, sent):
    """Send one layer's latents (None at the start) into a `TopDown.walk`: the next Layer, or None at the end."""
    try:
        return walk.send(sent)
    except StopIteration:
        return None


class TopDown(nn.Module):
    """points: operating points, each with shifts of its own; groups: channels of y by group, in order; fields: 2 for chessboards, 1 for none; upper:
    channels of z1 and of z2; hidden, width: features at 32 x 32 pixels and at 16 x 16."""

    def __init__(self, points, groups, fields, upper, hidden, width):
        super().__init__()
        self.groups, self.fields = tuple(groups), fields
        self.first, self.second = nn.Conv2d(upper, 4 * hidden, 3, padding=1), nn.Conv2d(upper, hidden, 3, padding=1)
        self.upper_block, self.upper_head = Block(hidden), nn.Conv2d(hidden, 2 * upper, 1)
        self.down = nn.Conv2d(hidden, 4 * width, 3, padding=1)
        self.blocks = nn.ModuleList(Block(width) for _ in groups)
        self.embeddings = nn.ModuleList(nn.Conv2d(group, width, 3, padding=1) for group in groups[:-1] + groups[-1:] * (fields == 2))
        self.heads = nn.ModuleList(nn.Conv2d(width, 2 * group, 1) for group in groups)
        for head in (self.upper_head, *self.heads):
            head.weight.data *= 0.1
            nn.init.zeros_(head.bias)
        self.upper_shift = nn.Parameter(torch.zeros(points, 2 * upper))
        self.hidden_shift = nn.Parameter(torch.zeros(points, hidden))
        self.shift = nn.ParameterList(torch.zeros(points, width) for _ in range(len(groups) * fields))
        self.last_shift = nn.ParameterList(torch.zeros(points, 2 * group) for group in groups for _ in range(fields))

    @property
    def layers(self):
        """How many layers of latents, z1 among them."""
        return 2 + len(self.groups) * self.fields

    def walk(self, z1, point):
        """A generator that yields each Layer after z1 in its turn and wants its latents sent, standardised, (B, channels, h, w); positions of other
        fields do not matter. z1: (B, upper, H / 64, W / 64), standardised; point: (B,)."""

        def shifted(x, shift):
            return x + shift[point][:, :, None, None]

        h = F.relu(shifted(F.pixel_shuffle(self.first(z1), 2), self.hidden_shift))
        z2 = yield Layer("z2", slice(None), None, *shifted(self.upper_head(h), self.upper_shift).chunk(2, 1))
        h = self.upper_block(h + self.second(z2))
        h, start, step = F.pixel_shuffle(self.down(F.relu(h)), 2), 0, 0
        for k, group in enumerate(self.groups):
            channels, known, begun = slice(start, start + group), None, h
            for field in range(self.fields):
                features = self.blocks[k](shifted(begun, self.shift[step]))
                mean, log_scale = shifted(self.heads[k](F.relu(features)), self.last_shift[step]).chunk(2, 1)
                fields = chessboard(*h.shape[2:], field, h.device) if self.fields == 2 else None
                found = yield Layer("y", channels, fields, mean, log_scale)
                step, start = step + 1, channels.stop
                if k == len(self.groups) - 1 and field == self.fields - 1:
                    return
                found = found if fields is None else found * fields
                known = found if known is None else known + found
                begun = features + self.embeddings[k](known)
            h = begun

"""Generalised divisive normalisation (GDN) and its approximate inverse: the non-linearities of compressive autoencoders.

    GDN    u_i = w_i / sqrt(beta_i + sum_j gamma_ij w_j^2)          IGDN    w_i = u_i * sqrt(beta_i + sum_j gamma_ij u_j^2)

at every position by itself, over its channels i, j, with beta > 0 and gamma >= 0 learned (Balle, Laparra and Simoncelli 2016; in Flamich 2019, eq 2.1
lacks the square root). The division is a local gain control: after it, a step of one size is about equally visible everywhere. So noise of one scale
per channel will do, and that is what the ladder of chapter 3 sends. Taught in chapter 3.
"""

import torch
from torch import nn
from torch.nn import functional as F

_LEAST = 1e-6


class GDN(nn.Module):
    """GDN over `channels`, or IGDN with `inverse`. Tensors (B, channels, H, W) to the same shape. Starts as beta = 1, gamma = identity / 10."""

    def __init__(self, channels, inverse=False):
        super().__init__()
        self.inverse = inverse
        self.root_beta = nn.Parameter(torch.ones(channels))  # squared, so that no constraint is needed
        self.root_gamma = nn.Parameter((0.1 * torch.eye(channels) + 1e-4).sqrt())

    def forward(self, x):
        energy = F.conv2d(x**2, self.root_gamma[:, :, None, None] ** 2, self.root_beta**2 + _LEAST)
        return x * (energy.sqrt() if self.inverse else energy.rsqrt())

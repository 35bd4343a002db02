"""Analysis and synthesis: the transforms of a learned image codec, each a linear part and a non-linear one side by side.

    y = P W x + s * N(x)            x hat = W' P' y + M(y / s')

P takes each block of 16 x 16 pixels to its first principal components, as JPEG takes 8 x 8 to cosines; P' is its transpose. W mixes the 8 pixels on either side
of each border between blocks before P, W' after P', which makes blocks overlap (time-domain lapped transforms, Tran et al. 2003): both begin as
identities and are learned. N and M are convolutional networks with GDN between the layers (Balle et al. 2017), and their last layers begin with
zeros. So a new codec is a transform coder from the first step on, and training turns it into something better. Taught in chapter 4.
"""

import torch
from torch import nn
from torch.nn import functional as F

from .blocks import begin
from .gdn import GDN

DOWN = 16  # pixels per latent position, along each axis
_UNIT = 0.1  # kernels of P and P' are stored ten times as large, a size that suits Adam's steps


class Lapping(nn.Module):
    """W: across each border between blocks, the 16 pixels around it are multiplied by a matrix, down first and then along the rows. (B, C, H, W) to the same
    shape, H and W multiples of 16; the image's own borders stay as they are. Starts as the identity."""

    def __init__(self):
        super().__init__()
        self.matrices = nn.Parameter(torch.eye(DOWN).repeat(2, 1, 1))  # [output, input], for rows and for columns

    def forward(self, x):
        half = DOWN // 2
        for matrix in self.matrices:
            first, inner, last = x[..., :half, :], x[..., half:-half, :], x[..., -half:, :]
            mixed = torch.matmul(matrix, inner.unflatten(-2, (-1, DOWN))).flatten(-3, -2) if inner.shape[-2] else inner
            x = torch.cat([first.to(mixed.dtype), mixed, last.to(mixed.dtype)], -2).transpose(-1, -2)
        return x


class Analysis(nn.Module):
    """Pixels (B, 3, H, W), -1/2 to 1/2, H and W multiples of 16, to latents (B, latents, H / 16, W / 16) in units of a pixel's range times 16 sqrt(3)."""

    def __init__(self, latents, width):
        super().__init__()
        self.kernel, self.lapping = nn.Parameter(torch.zeros(latents, 3, DOWN, DOWN)), Lapping()
        self.spread = nn.Parameter(torch.ones(latents))
        mirror = {"padding_mode": "reflect"}
        self.network = nn.Sequential(nn.Conv2d(3, width, 9, 4, 4, **mirror), GDN(width), nn.Conv2d(width, width, 5, 2, 2, **mirror), GDN(width),
                                     nn.Conv2d(width, latents, 3, 2, 1))
        for layer, gain in zip(self.network[::2], (4.0, 1.0, 0.0)):
            begin(layer, gain)

    def forward(self, pixels):
        return F.conv2d(self.lapping(pixels), _UNIT * self.kernel, stride=DOWN) + self.network(pixels).float() * self.spread[:, None, None]


class Synthesis(nn.Module):
    """Latents back to pixels, -1/2 to 1/2 but for overshoots: the shapes of `Analysis` turned round."""

    def __init__(self, latents, width):
        super().__init__()
        self.kernel, self.lapping = nn.Parameter(torch.zeros(latents, 3, DOWN, DOWN)), Lapping()
        self.spread = nn.Parameter(torch.ones(latents))
        self.network = nn.Sequential(nn.ConvTranspose2d(latents, width, 4, 2, 1), GDN(width, inverse=True), nn.ConvTranspose2d(width, width, 5, 2, 2, 1),
                                     GDN(width, inverse=True), nn.ConvTranspose2d(width, 3, 9, 4, 4, 3))
        for layer, gain in zip(self.network[::2], (1.0, 1.0, 0.0)):
            begin(layer, gain)

    def forward(self, latents):
        return self.lapping(F.conv_transpose2d(latents, _UNIT * self.kernel, stride=DOWN)) + self.network(latents * self.spread[:, None, None])


@torch.no_grad()
def principal_components(analysis, synthesis, images):
    """Begin P and P' with the principal components of `images`, uint8 (N, H, W, 3), and the spreads with theirs; returns the components'
    root mean squares, (latents,)."""
    count, height, width = images.shape[0], images.shape[1] // DOWN, images.shape[2] // DOWN
    moments = torch.zeros(3 * DOWN**2, 3 * DOWN**2, dtype=torch.float64)
    for part in images[:, :height * DOWN, :width * DOWN].split(64):
        blocks = part.reshape(len(part), height, DOWN, width, DOWN, 3).permute(0, 1, 3, 5, 2, 4).reshape(-1, 3 * DOWN**2).double() / 255 - 0.5
        moments += blocks.T @ blocks
    energies, vectors = torch.linalg.eigh(moments / (count * height * width))
    latents = len(analysis.kernel)
    kernel = vectors.flip(1)[:, :latents].T
    kernel = kernel * torch.where(kernel.sum(1) < 0, -1.0, 1.0)[:, None]  # an eigenvector's sign is anybody's choice
    spread = energies.flip(0)[:latents].sqrt().float()
    for transform in (analysis, synthesis):
        transform.kernel.copy_(kernel.float().reshape(transform.kernel.shape) / _UNIT)
    analysis.spread.copy_(spread)
    synthesis.spread.copy_(1 / (spread + 0.05))
    return spread

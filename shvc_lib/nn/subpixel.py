"""Space to depth: an image as k^2 small images, without losing anything.

    f: R^(C x H x W) -> R^(C k^2 x H/k x W/k)        (eqs 3-4 of SHVC, Ryder et al. 2022)

Both orders of the C k^2 channels are convolutions with stride k whose kernels hold a single one each, and both are reshapes:

    "channel"   n = c k^2 + k h + w: torch's pixel_unshuffle (eq 5, Shi et al. 2016); a colour's k^2 sub-pixels stand side by side
    "subpixel"  n = c + C (w + k h): eq 8; the C colours of one sub-pixel stand side by side, k^2 *sub-blocks* of C channels each

Only in the second are the channels of a sub-block values of one and the same pixel, which is what weak autoregression over them is for
(`nn.autoregression`). Eq 5 prints h = floor(n / k) mod k and w = n mod k, and leaves the colour to the groups of the depthwise convolution. Taught in
chapter 5.
"""

import numpy as np
import torch
from torch.nn import functional as F

from ..errors import InvalidInput

ORDERS = ("subpixel", "channel")


def positions(channels, k, order="subpixel"):
    """Where channel n of the result comes from: three int64 arrays (C k^2,): colour, row and column within the k x k cell. Raises InvalidInput."""
    if order not in ORDERS or channels < 1 or k < 1:
        raise InvalidInput(f"the orders are {' and '.join(ORDERS)}, with at least one channel and k at least 1; got {order!r}, {channels} and {k}")
    n = np.arange(channels * k * k)
    return (n % channels, n // (channels * k) % k, n // channels % k) if order == "subpixel" else (n // k**2, n // k % k, n % k)


def subpixel_kernel(channels, k):
    """Eq 8: float32 (C k^2, C, k, k), to be used with stride k: F.conv2d(x, subpixel_kernel(C, k), stride=k)."""
    kernel = torch.zeros(channels * k * k, channels, k, k)
    colour, row, column = positions(channels, k)
    kernel[np.arange(len(colour)), colour, row, column] = 1
    return kernel


def unshuffle_kernel(channels, k):
    """Eq 5, a depthwise convolution: float32 (C k^2, 1, k, k), to be used with stride k and groups=C."""
    kernel = torch.zeros(channels * k * k, 1, k, k)
    _, row, column = positions(channels, k, "channel")
    kernel[np.arange(len(row)), 0, row, column] = 1
    return kernel


def space_to_depth(x, k, order="subpixel"):
    """(B, C, H, W) -> (B, C k^2, H / k, W / k), any dtype: a re-arrangement. Raises InvalidInput unless k divides H and W (see `padded`)."""
    batch, channels, height, width = x.shape
    positions(channels, k, order)
    if height % k or width % k:
        raise InvalidInput(f"{height} x {width} is not a multiple of {k}: pad it first (nn.subpixel.padded)")
    cells = x.reshape(batch, channels, height // k, k, width // k, k)
    axes = (0, 3, 5, 1, 2, 4) if order == "subpixel" else (0, 1, 3, 5, 2, 4)
    return cells.permute(axes).reshape(batch, channels * k * k, height // k, width // k)


def depth_to_space(y, k, order="subpixel"):
    """The inverse of `space_to_depth`: (B, C k^2, h, w) -> (B, C, h k, w k). Raises InvalidInput unless k^2 divides the channels."""
    batch, depth, height, width = y.shape
    positions(depth, k, order)
    if depth % k**2:
        raise InvalidInput(f"{depth} channels cannot be shared out to {k} x {k} sub-pixels")
    if order == "subpixel":
        cells = y.reshape(batch, k, k, depth // k**2, height, width).permute(0, 3, 4, 1, 5, 2)
    else:
        cells = y.reshape(batch, depth // k**2, k, k, height, width).permute(0, 1, 4, 2, 5, 3)
    return cells.reshape(batch, depth // k**2, height * k, width * k)


def padded(x, k):
    """x (B, C, H, W) grown at the bottom and at the right to multiples of k by repeating its last row and column; itself when nothing is missing.

    What was added is coded with the rest and cropped away again: x = padded(x, k)[..., :H, :W]. Repeated pixels are cheap, but not free.
    """
    down, right = -x.shape[-2] % k, -x.shape[-1] % k
    return F.pad(x.float(), (0, right, 0, down), mode="replicate").to(x.dtype) if down or right else x

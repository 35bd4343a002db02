"""Space to depth: the kernels of eqs 5 and 8, the reshapes and torch's own are one and the same re-arrangement, and nothing is lost."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shvc_lib.errors import InvalidInput
from shvc_lib.nn.subpixel import ORDERS, depth_to_space, padded, positions, space_to_depth, subpixel_kernel, unshuffle_kernel

KS, CHANNELS = range(1, 9), range(1, 6)
SHAPES = [(channels, k) for channels in CHANNELS for k in KS]


def counted(channels, k, rows=2, columns=3, batch=2):
    """Every value once, float32 (batch, C, rows k, columns k): a re-arrangement shows where each of them went."""
    shape = batch, channels, rows * k, columns * k
    return torch.arange(float(np.prod(shape))).reshape(shape)


def test_the_channel_order_is_that_of_the_formulas():
    """Eq 8, n = c + C (w + k h), and eq 5, n = c k^2 + k h + w, written as loops over colours, rows and columns of a cell."""
    for channels, k in SHAPES:
        x = counted(channels, k, batch=1)
        expected = {order: torch.full((1, channels * k * k, 2, 3), -1.0) for order in ORDERS}
        for c in range(channels):
            for h in range(k):
                for w in range(k):
                    for n, order in [(c + channels * (w + k * h), "subpixel"), (c * k**2 + k * h + w, "channel")]:
                        expected[order][0, n] = x[0, c, h::k, w::k]
                        assert [int(v[n]) for v in positions(channels, k, order)] == [c, h, w]
        for order in ORDERS:
            assert torch.equal(space_to_depth(x, k, order), expected[order]), (channels, k, order)


@pytest.mark.parametrize("channels, k", SHAPES)
def test_kernels_reshapes_and_pixel_unshuffle_agree(channels, k):
    """Eq 8 as a convolution; eq 5 as a depthwise one, which is torch's pixel_unshuffle; and the one is a permutation of the other's channels."""
    x = counted(channels, k)
    ours, theirs = space_to_depth(x, k), space_to_depth(x, k, "channel")
    assert torch.equal(F.conv2d(x, subpixel_kernel(channels, k), stride=k), ours)
    assert torch.equal(F.conv2d(x, unshuffle_kernel(channels, k), stride=k, groups=channels), theirs) and torch.equal(F.pixel_unshuffle(x, k), theirs)
    assert torch.equal(ours, theirs.unflatten(1, (channels, k * k)).transpose(1, 2).flatten(1, 2))
    for kernel in (subpixel_kernel(channels, k), unshuffle_kernel(channels, k)):
        assert kernel.sum() == kernel.flatten(1).max(1)[0].sum() == channels * k * k  # a single one each


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.uint8, torch.int64])
def test_nothing_is_lost(order, dtype):
    for channels, k in SHAPES:
        x = counted(channels, k).to(dtype)
        y = space_to_depth(x, k, order)
        assert y.shape == (2, channels * k * k, 2, 3) and y.dtype == dtype
        assert torch.equal(depth_to_space(y, k, order), x)
        assert torch.equal(space_to_depth(depth_to_space(y, k, order), k, order), y)
    assert torch.equal(depth_to_space(y, k, "channel"), F.pixel_shuffle(y, k))


def test_only_in_eq_8_are_the_colours_of_a_sub_block_those_of_one_pixel():
    """A picture whose three colours say where a pixel is: k^2 sub-blocks, each with one row and column in the cell; eq 5 mixes them."""
    rows, columns = torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    x = (rows % 2 * 2 + columns % 2).expand(1, 3, 4, 4)
    assert torch.equal(space_to_depth(x, 2).unflatten(1, (4, 3))[0, :, :, 0, 0], torch.arange(4)[:, None].expand(4, 3))
    mixed = space_to_depth(x, 2, "channel").unflatten(1, (4, 3))[0, :, :, 0, 0]
    assert all(len(set(block.tolist())) == 3 for block in mixed)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8, torch.int32])
def test_other_sizes_are_padded_and_cropped(order, dtype):
    """The last row and column are repeated, and cropping gives back what there was."""
    generator = torch.Generator().manual_seed(0)
    for k in KS:
        for height, width in [(1, 1), (7, 5), (8, 9), (k, 2 * k), (3 * k + 1, k)]:
            x = torch.randint(0, 256, (2, 3, height, width), generator=generator).to(dtype)
            y = padded(x, k)
            assert y.dtype == dtype and y.shape[-2] % k == 0 == y.shape[-1] % k and max(y.shape[-2] - height, y.shape[-1] - width) < k
            assert torch.equal(y[..., :height, :width], x)
            assert all(torch.equal(y[..., i, :width], x[..., -1, :]) for i in range(height, y.shape[-2]))
            assert all(torch.equal(y[..., j], y[..., width - 1]) for j in range(width, y.shape[-1]))
            assert (y is x) == (height % k == 0 == width % k)
            assert torch.equal(depth_to_space(space_to_depth(y, k, order), k, order)[..., :height, :width], x)


@pytest.mark.parametrize("attempt, says", [
    (lambda: space_to_depth(torch.zeros(1, 3, 4, 5), 2), "4 x 5 is not a multiple of 2"),
    (lambda: space_to_depth(torch.zeros(1, 3, 5, 4), 2), "pad it first"),
    (lambda: space_to_depth(torch.zeros(1, 3, 4, 4), 2, "raster"), "orders are subpixel and channel"),
    (lambda: depth_to_space(torch.zeros(1, 10, 2, 2), 2), "10 channels"),
    (lambda: depth_to_space(torch.zeros(1, 12, 2, 2), 2, "raster"), "orders are"),
    (lambda: positions(0, 2), "at least one channel"),
    (lambda: positions(3, 0), "k at least 1"),
    (lambda: subpixel_kernel(3, 0), "k at least 1"),
    (lambda: unshuffle_kernel(0, 1), "at least one channel")])
def test_what_is_refused(attempt, says):
    with pytest.raises(InvalidInput, match=says):
        attempt()

"""Skips by least squares: what is linear in the images is found, and nothing outside the mask is used."""

import pytest
import torch
from torch.nn import functional as F

from shvc_lib import data
from shvc_lib.nn.autoregression import SubpixelAutoregression, pairs, weak_shift
from shvc_lib.nn.least_squares import fit
from shvc_lib.nn.subpixel import space_to_depth

torch.set_num_threads(1)
SPREAD = torch.tensor([0.2, 0.15, 0.25])  # of the noise of each channel
WEAK = torch.tensor([0.7, -0.4, 0.5])  # factors in the order of `pairs`: (1, 0), (2, 0), (2, 1)


def made(net, count=12, side=24, seed=1):
    """Blocks that obey a linear law within the mask of `net`, sub-block by sub-block and channel by channel; the context; and the law's weights.

    The first sub-block follows the context alone, each further one what the mask lets it see; the noise of a channel is that of the
    channels before it, by WEAK, and its own."""
    generator, channels, count_of_blocks = torch.Generator().manual_seed(seed), net.channels, net.count
    mask = net.skip.parametrizations.weight[0].mask
    weight = mask * torch.randn(mask.shape, generator=generator) / mask.flatten(1).sum(1).clamp_min(1).sqrt()[:, None, None, None]
    bias = torch.linspace(-0.5, 0.5, len(weight))
    context = torch.randn(count, 3, side, side, generator=generator)
    blocks = torch.zeros(count, channels * count_of_blocks, side, side)
    for i in range(count_of_blocks):
        noise = SPREAD[:channels, None, None] * torch.randn(count, channels, side, side, generator=generator)
        for j, (c, earlier) in enumerate(pairs(channels)):
            noise[:, c] = noise[:, c] + WEAK[j] * noise[:, earlier]
        own = slice(channels * i, channels * (i + 1))
        blocks[:, own] = F.conv2d(torch.cat([context, blocks], 1), weight, bias, padding=1)[:, own] + noise
    return blocks, context, weight, bias


def test_a_linear_law_is_found():
    """Weights, biases, weak factors and the spread of what remains, each as it was put in."""
    net = SubpixelAutoregression(3, 2, 5, 3, width=4, blocks=0)
    blocks, context, weight, bias = made(net)
    spread, factors = fit(net, blocks, context, ridge=1e-6)
    assert torch.allclose(net.skip.weight, weight, atol=0.15) and torch.allclose(net.skip.bias, bias, atol=0.05)
    found = net.predict(blocks, context)
    truth = F.conv2d(torch.cat([context, blocks], 1), weight, bias, padding=1).unflatten(1, (4, 3))
    assert (found - truth).square().mean((0, 1, 3, 4)).sqrt().div(SPREAD).max() < 0.2
    assert torch.allclose(factors.float(), WEAK.expand(4, 3), atol=0.15)
    assert spread.shape == (4, 3) and spread.dtype == factors.dtype == torch.float64
    assert torch.allclose(spread.float(), SPREAD.expand(4, 3), rtol=0.03)


@pytest.mark.parametrize("k, sees", [(1, None), (2, 3), (4, None)])
def test_the_spread_is_that_of_what_remains(k, sees):
    """On photographs, by the module's own prediction and weak shift; and it is smaller than with the means that the skip begins with."""
    images = torch.from_numpy(data.patches([data.photograph("coffee")], 32, 24)).permute(0, 3, 1, 2)
    blocks = space_to_depth((images.float() - 128) / 128, k)
    context = F.avg_pool2d(F.avg_pool2d((images.float() - 128) / 128, 5, 1, 2), k)  # something to see: a blurred picture
    net = SubpixelAutoregression(3, k, 5, 3, width=4, blocks=0, sees=sees)
    values = blocks.unflatten(1, (k * k, 3))
    before = (values - net.predict(blocks, context)).square().mean((0, 3, 4)).sqrt()
    mask = net.skip.parametrizations.weight[0].mask
    spread, factors = fit(net, blocks, context)
    centres = net.predict(blocks, context)
    every = factors.float()[None, :, :, None, None].expand(len(blocks), -1, -1, *blocks.shape[-2:])
    left = (values - centres - weak_shift(values, centres, every)).square().mean((0, 3, 4)).sqrt()
    assert torch.allclose(spread.float(), left, rtol=1e-3)
    assert (net.skip.weight[mask == 0] == 0).all() and (net.skip.weight[mask == 1] != 0).float().mean() > 0.99
    assert left.square().mean() < 0.8 * before.square().mean()
    assert (left[:, 1:].log().mean() < (values - centres).square().mean((0, 3, 4)).sqrt()[:, 1:].log().mean() - 0.3)  # what the weak factors are for


def test_it_is_the_least_of_squares():
    """No small step away from what was found has smaller squares (the ridge's own price included)."""
    images = torch.from_numpy(data.patches([data.photograph("chelsea")], 16, 8)).permute(0, 3, 1, 2)
    blocks, ridge = space_to_depth((images.float() - 128) / 128, 2), 1e-3
    net = SubpixelAutoregression(3, 2, 5, 0, width=4, blocks=0)
    fit(net, blocks, None, ridge)
    net, blocks = net.double(), blocks.double()
    weight, bias = net.skip.weight.detach().clone().requires_grad_(), net.skip.bias.detach().clone().requires_grad_()
    squares = (F.conv2d(blocks, weight, bias, padding=1) - blocks).square().mean((0, 2, 3)).sum() + ridge * weight.square().sum()
    squares.backward()
    gradient = weight.grad * net.skip.parametrizations.weight[0].mask
    assert gradient.abs().max() < 1e-5 and bias.grad.abs().max() < 1e-5 < weight.grad.abs().max()


def test_a_constant_needs_nothing_but_its_bias():
    """A ridge keeps flat images from dividing by nothing: k = 1, no context."""
    net = SubpixelAutoregression(2, 1, 5, 0, width=4, blocks=0)
    spread, factors = fit(net, torch.full((3, 2, 6, 6), 0.25))
    assert torch.allclose(net.skip.bias, torch.full((2,), 0.25)) and (net.skip.weight == 0).all()
    assert spread.max() < 1e-6 and factors.abs().max() < 1e-6 and torch.isfinite(factors).all()

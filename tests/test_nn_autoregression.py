"""Autoregression over sub-blocks: who sees whom, one pass against step by step, and where the linear skips begin."""

import math

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shvc_lib import nn
from shvc_lib.nn.autoregression import REACH, SubpixelAutoregression, geometry, pairs, weak_shift
from shvc_lib.nn.subpixel import ORDERS, depth_to_space, positions, space_to_depth

torch.set_num_threads(1)
CONTEXT = 2  # channels of it, where there is one


def build(k, channels=2, context=CONTEXT, skips="means", size=0.3, blocks=1, **arguments):
    """A small network whose weights are all random, also those that begin at zero."""
    torch.manual_seed(0)
    net = SubpixelAutoregression(channels, k, 5, context, width=8, blocks=blocks, skips=skips, **arguments).eval()
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.add_(size * torch.randn(parameter.shape) / math.sqrt(max(1, parameter[0].numel())))
    return net


def inputs(k, rows=4, columns=5, channels=2, context=CONTEXT, batch=2, seed=1):
    """(blocks, context) on the grid of 1/128."""
    generator = torch.Generator().manual_seed(seed)
    draw = lambda depth: (128 * torch.randn(batch, depth, rows, columns, generator=generator)).round().clamp(-255, 255) / 128  # noqa: E731
    return draw(channels * k * k), draw(context) if context else None


def influences(net, blocks, context, target):
    """Gradients of the sum of both results of one pass, at sub-block `target`, with respect to (blocks, context): which of them it depends on."""
    blocks, context = blocks.clone().requires_grad_(), None if context is None else context.clone().requires_grad_()
    centres, outputs = net(blocks, net.seen(context, blocks))
    weights = torch.Generator().manual_seed(3)
    total = sum((torch.randn(part[:, target].shape, generator=weights) * part[:, target]).sum() for part in (centres, outputs))
    wanted = [v for v in (blocks, context) if v is not None]
    gradients = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(v) if g is None else g for v, g in zip(wanted, gradients)]


# --- who sees whom ----------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("k", [2, 3])
def test_a_sub_block_depends_on_all_earlier_ones_and_on_nothing_else(k, order):
    net = build(k, order=order)
    blocks, context = inputs(k)
    for i in range(k * k):
        own, above = influences(net, blocks, context, i)
        per_block = own.unflatten(1, (k * k, 2)).abs().amax((0, 2, 3, 4))
        assert (per_block[:i] > 1e-9).all() and (per_block[i:] == 0).all(), i
        assert above.abs().amax((0, 2, 3)).min() > 1e-9


def test_perturbing_a_sub_block_changes_later_ones_only_to_the_last_bit():
    """The same by trial, in float32: what comes before does not even move in its last digit."""
    net = build(2)
    blocks, context = inputs(2)
    with torch.no_grad():
        before = net(blocks, net.seen(context, blocks))
        for i in range(4):
            other = blocks.clone()
            other[:, 2 * i:2 * i + 2] += 0.5
            for a, b in zip(before, net(other, net.seen(context, other))):
                assert torch.equal(a[:, :i + 1], b[:, :i + 1]) and all(not torch.equal(a[:, j], b[:, j]) for j in range(i + 1, 4))


def test_k_1_is_the_factorised_model():
    """Given the context nothing depends on the variable itself: neither a value nor its neighbours."""
    net = build(1)
    blocks, context = inputs(1)
    own, above = influences(net, blocks, context, 0)
    assert (own == 0).all() and (above != 0).any()
    assert net.first is None
    alone = build(1, context=0)  # and without a context it is one and the same distribution everywhere
    with torch.no_grad():
        blocks, _ = inputs(1, 7, 9)
        centres, outputs = alone(blocks, alone.seen(None, blocks))
    inner = outputs[..., 2:-2, 2:-2]  # farther from the border than two convolutions look
    assert outputs.shape == (2, 1, 5, 7, 9) and torch.equal(inner[:1, ..., :1, :1].expand_as(inner), inner)
    assert torch.equal(centres[:1, ..., :1, :1].expand_as(centres), centres)


def test_k_as_large_as_the_image_is_a_model_of_pixel_after_pixel():
    """k = H = W = 4: every pixel depends on all pixels before it in raster order, and on none after."""
    net = build(4, context=0)
    image = torch.randn(1, 2, 4, 4, generator=torch.Generator().manual_seed(2))
    blocks = space_to_depth(image, 4)
    for i in range(16):
        own, = influences(net, blocks, None, i)
        seen = (depth_to_space(own, 4)[0].abs().amax(0) > 1e-9).flatten()
        assert seen.tolist() == [j < i for j in range(16)], i


def test_the_network_looks_at_neighbouring_cells_and_the_skip_at_what_is_within_reach():
    """The receptive field of the skip, in pixels: a square of side 2 REACH + 1, of what is known."""
    net = build(2, blocks=0)
    blocks, context = inputs(2, 9, 9, batch=1)
    for i in range(1, 4):
        leaf = blocks.clone().requires_grad_()
        net.predict(leaf, context)[0, i, :, 4, 4].sum().backward()
        rows, columns = np.nonzero(depth_to_space(leaf.grad, 2)[0].abs().sum(0).numpy())
        row, column = 8 + i // 2, 8 + i % 2
        known = {(a, b) for a in range(row - REACH, row + REACH + 1) for b in range(column - REACH, column + REACH + 1)
                 if 2 * (a % 2) + b % 2 < i and abs(a // 2 - 4) <= 1 and abs(b // 2 - 4) <= 1}
        assert {(int(a), int(b)) for a, b in zip(rows, columns)} == known


@pytest.mark.parametrize("sees", [1, 3, 4])
def test_later_sub_blocks_do_not_see_the_context(sees):
    net = build(2, sees=sees)
    blocks, context = inputs(2)
    for i in range(4):
        own, above = influences(net, blocks, context, i)
        assert (above != 0).any() == (i < sees) and (own != 0).any() == (i > 0)
    with torch.no_grad():  # to the last bit, and step by step too
        for other in (context, context + 1):
            last = [net.step(blocks, net.seen(above, blocks), 3)[1] for above in (context, other)]
            assert torch.equal(*last) == (sees <= 3 or other is context)


# --- one pass ---------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("k", [2, 3])
def test_padding_in_front_is_a_masked_kernel(k):
    """The volume's first layer: a kernel of depth 2 D - 1 (D = k^2) over the whole volume, its last D slices zero."""
    net, (blocks, _) = build(k, context=0), inputs(k)
    caught = []
    net.first.register_forward_hook(lambda layer, arguments, output: caught.append(output))
    with torch.no_grad():
        net(blocks, net.seen(None, blocks))
        depth = k * k
        kernel = torch.zeros(*net.first.weight.shape[:2], 2 * depth - 1, 3, 3)
        kernel[:, :, :depth - 1] = net.first.weight
        volume = blocks.unflatten(1, (depth, 2)).transpose(1, 2)
        masked = F.conv3d(volume, kernel, net.first.bias, padding=(depth - 1, 1, 1))
    assert caught[0].shape == masked.shape and torch.allclose(caught[0], masked, atol=1e-5) and (masked != masked[:, :, :1]).any()


@pytest.mark.parametrize("k, context, order, sees", [(1, 2, "subpixel", None), (1, 0, "subpixel", None), (2, 2, "subpixel", 3), (2, 0, "channel", None),
                                                     (3, 2, "subpixel", None), (4, 2, "channel", 7)])
def test_one_pass_and_step_by_step_are_the_same_integers(k, context, order, sees):
    """Under the exact twin, in float32, float64 and int64; the steps get nonsense in the place of what they may not know, and one image of the batch."""
    net, (blocks, above) = build(k, context=context, order=order, sees=sees), inputs(k, context=context)
    twin = nn.to_exact(net, lambda m: m(blocks, m.seen(above, blocks)))
    centres, outputs = twin(blocks, twin.seen(above, blocks))
    assert not torch.equal(centres[:, 0], centres[:, -1]) or k == 1
    own, mine = blocks[1:], None if above is None else above[1:]
    for name in ("float32", "float64", "int64"):
        with nn.arithmetic(twin, name):
            for i in range(k * k):
                garbage = own.clone()
                garbage[:, 2 * i:] = 1.5
                step = twin.step(garbage, twin.seen(mine, garbage), i)
                assert torch.equal(step[0].double(), centres[1:, i].double()) and torch.equal(step[1].double(), outputs[1:, i].double()), (name, i)
            if name != "float32":
                assert all(torch.equal(a.double(), b.double()) for a, b in zip((centres, outputs), twin(blocks, twin.seen(above, blocks))))


@pytest.mark.parametrize("k", [1, 2, 3, 4])
def test_in_floats_both_ways_agree_nearly(k):
    net, (blocks, above) = build(k), inputs(k)
    with torch.no_grad():
        centres, outputs = net(blocks, net.seen(above, blocks))
        for i in range(k * k):
            step = net.step(blocks, net.seen(above, blocks), i)
            assert torch.allclose(step[0], centres[:, i], atol=1e-5) and torch.allclose(step[1], outputs[:, i], atol=1e-5)


# --- linear skips and weak factors ------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("order", ORDERS)
def test_skips_begin_as_means_of_the_nearest_known_pixels_of_the_same_colour(order):
    """By a loop over all pixels around one, in an image of random numbers, away from the border."""
    torch.manual_seed(0)
    image = torch.randn(1, 3, 24, 24)
    for k in (2, 4):
        net = SubpixelAutoregression(3, k, 5, 0, width=4, blocks=0, order=order)
        colours, rows, columns = positions(3, k, order)
        predicted = net.predict(space_to_depth(image, k, order), None).flatten(1, 2)[0]
        block_of = {(int(c), int(h), int(w)): n // 3 for n, (c, h, w) in enumerate(zip(colours, rows, columns))}
        for n, (colour, h, w) in enumerate(zip(colours, rows, columns)):
            cell, candidates = 12 // k, {}
            for a in range((cell - 1) * k, (cell + 2) * k):
                for b in range((cell - 1) * k, (cell + 2) * k):
                    down, right = a - (cell * k + h), b - (cell * k + w)
                    if block_of[int(colour), a % k, b % k] < n // 3 and max(abs(down), abs(right)) <= REACH:
                        candidates[a, b] = math.hypot(down, right)
            nearest = [image[0, colour, a, b] for (a, b), d in candidates.items() if d <= max(1.5, min(candidates.values()))]
            expected = sum(nearest) / len(nearest) if nearest else torch.zeros(())
            assert torch.isclose(predicted[n, cell, cell], expected, atol=1e-6), (k, n)


def test_where_nothing_is_known_the_skip_begins_with_the_context():
    """The first sub-block's channel c: the context's channel c where there is one; without `skips`, nothing at all."""
    blocks, context = inputs(2, channels=3, context=2)
    net = SubpixelAutoregression(3, 2, 5, 2, width=4, blocks=0)
    first = net.predict(blocks, context)[:, 0]
    assert torch.equal(first[:, :2], context) and (first[:, 2] == 0).all()
    bare = SubpixelAutoregression(3, 2, 5, 2, width=4, blocks=0, skips="none")
    assert (bare.predict(blocks, context) == 0).all()


def test_a_skip_of_a_smooth_image_is_already_a_good_guess():
    """Means of neighbours on a plane are exact inside: the residual of the last sub-block is nothing."""
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    blocks = space_to_depth((0.03 * rows + 0.05 * columns).expand(1, 3, 16, 16).clone(), 2)
    net = SubpixelAutoregression(3, 2, 5, 0, width=4, blocks=0)
    centres = net.predict(blocks, None)
    residual = (blocks.unflatten(1, (4, 3)) - centres)[:, 3, :, 1:-1, 1:-1]
    assert residual.abs().max() < 0.01 and blocks.std() > 0.2


def test_geometry_knows_distances_and_earlier_sub_blocks():
    """k = 2, three colours; a few entries worked out by hand: the sub-block of row h, column w has the number w + 2 h."""
    known, distance, same = geometry(3, 2)
    assert known.shape == distance.shape == (12, 12, 3, 3) and same.shape == (12, 12, 1, 1)
    assert not known[:3].any() and known[3, :3, 1, 1].all() and not known[3, 3:].any()
    assert distance[3, 0, 1, 1] == distance[3, 0, 1, 2] == 1 and distance[9, 0, 1, 1] == pytest.approx(2**0.5)
    assert distance[3, 0, 1, 0] == 3 and known[3, 0, 1, 0] and same[3, 0] and not same[3, 1]
    far, _, _ = geometry(1, 8)
    assert far[63, 0].sum() == 1 and not far[63, 0, 1, 1] and far[63, 0, 2, 2]  # only the next cell's first pixel is within reach
    assert pairs(1) == [] and pairs(4) == [(1, 0), (2, 0), (2, 1), (3, 0), (3, 1), (3, 2)]


@pytest.mark.parametrize("channels", [1, 2, 3, 5])
def test_weak_shift_is_the_sum_of_eq_7(channels):
    """Pixel by pixel and channel by channel; a channel's own residual and the later ones' do not count."""
    torch.manual_seed(channels)
    values, centres = torch.randn(2, 4, channels, 3, 2), torch.randn(2, 4, channels, 3, 2)
    factors = torch.randn(2, 4, channels * (channels - 1) // 2, 3, 2)
    found = weak_shift(values, centres, factors)
    for b, n, h, w in np.ndindex(2, 4, 3, 2):
        for c in range(channels):
            expected = sum(float(factors[b, n, c * (c - 1) // 2 + i, h, w]) * float(values[b, n, i, h, w] - centres[b, n, i, h, w]) for i in range(c))
            assert float(found[b, n, c, h, w]) == pytest.approx(expected, abs=1e-5)
    assert (found[..., 0, :, :] == 0).all()


# --- training and checkpoints -----------------------------------------------------------------------------------------------------------------

def test_masks_survive_training():
    net, (blocks, context) = build(2, sees=3).train(), inputs(2)
    mask = net.skip.parametrizations.weight[0].mask
    before = net.skip.weight.detach().clone()
    for _ in range(5):
        centres, outputs = net(blocks, net.seen(context, blocks))
        loss = (centres.flatten(1, 2) - blocks).square().mean() + outputs.square().mean()
        net.zero_grad()
        loss.backward()
        with torch.no_grad():
            for parameter in net.parameters():
                parameter.sub_(0.1 * (parameter.grad.sign() + 0.1 * parameter))
    assert not torch.equal(net.skip.weight, before) and (net.skip.weight[mask == 0] == 0).all() and (mask == 0).any()
    net = net.eval()
    for i in range(4):
        own, above = influences(net, blocks, context, i)
        assert (own[:, 2 * i:] == 0).all() and (above != 0).any() == (i < 3)


@pytest.mark.parametrize("k, change", [(2, {"sees": 2}), (4, {"order": "channel"}), (2, {"skips": "none"})])
def test_what_may_be_seen_belongs_to_the_architecture_and_not_to_the_checkpoint(k, change):
    """Weights of the default, loaded into another architecture of the same shapes: its masks are its own."""
    net, other = build(k), build(k, **change)
    mask, lit = other.skip.parametrizations.weight[0].mask.clone(), other.lit.clone()
    assert not any("mask" in name or "lit" in name for name in net.state_dict())
    assert not torch.equal(mask, net.skip.parametrizations.weight[0].mask)
    other.load_state_dict(net.state_dict())
    assert torch.equal(other.skip.parametrizations.weight[0].mask, mask) and torch.equal(other.lit, lit) and (other.skip.weight[mask == 0] == 0).all()
    blocks, context = inputs(k)
    for i in {0, k * k // 2, k * k - 1}:
        own, above = influences(other, blocks, context, i)
        assert (own[:, 2 * i:] == 0).all() and (above != 0).any() == (i < change.get("sees", k * k))


def test_bfloat_is_for_training_only():
    """In evaluation the flag changes nothing; while training it rounds the network, and the skips stay in float32."""
    plain, blocks_and_context = build(2), inputs(2)
    rounded = build(2, bfloat=True)
    blocks, context = blocks_and_context
    run = lambda net: net(blocks, net.seen(context, blocks))  # noqa: E731
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(run(plain), run(rounded)))
        (centres, outputs), (others, coarse) = run(plain), run(rounded.train())
        assert torch.equal(centres, others) and not torch.equal(outputs, coarse) and torch.allclose(outputs, coarse, atol=0.1)
        assert coarse.dtype == torch.float32

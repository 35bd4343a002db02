"""Analysis and synthesis: principal components to begin with, networks beside them, and the gradients with which those wake up."""

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from shvc_lib import data
from shvc_lib.nn.blocks import Block
from shvc_lib.nn.transforms import DOWN, Analysis, Lapping, Synthesis, principal_components

SIDE = 3 * DOWN**2  # numbers in a block


@pytest.fixture(scope="module")
def photographs():
    torch.set_num_threads(1)
    return torch.from_numpy(data.patches([data.photograph("coffee"), data.photograph("astronaut")], 48, 70, seed=1))


def prepared(photographs, latents=20, width=8):
    torch.manual_seed(0)
    analysis, synthesis = Analysis(latents, width), Synthesis(latents, width)
    return analysis, synthesis, principal_components(analysis, synthesis, photographs)


def blocks_of(images):
    """uint8 (N, H, W, 3) as blocks of 16 x 16 pixels, float64 (blocks, 768), red first; the same order as the latents' when flattened."""
    found = [image[r:r + DOWN, c:c + DOWN].transpose(2, 0, 1).reshape(-1) for image in images.numpy()
             for r in range(0, image.shape[0] - DOWN + 1, DOWN) for c in range(0, image.shape[1] - DOWN + 1, DOWN)]
    return np.array(found) / 255 - 0.5


def pixels_of(images):
    return images.permute(0, 3, 1, 2).float() / 255 - 0.5


def test_the_kernels_are_the_principal_components(photographs):
    """Orthonormal (stored ten times as large), in the order of their energies, in both transforms, and of a sign that does not hang on chance."""
    analysis, synthesis, spread = prepared(photographs)
    basis = 0.1 * analysis.kernel.detach().double().flatten(1).numpy()
    assert np.abs(basis @ basis.T - np.eye(20)).max() < 1e-5
    assert torch.equal(analysis.kernel, synthesis.kernel) and (basis.sum(1) >= -1e-6).all()
    blocks = blocks_of(photographs)
    energies = np.linalg.svd(blocks, compute_uv=False) ** 2 / len(blocks)
    assert spread.numpy() == pytest.approx(np.sqrt(energies[:20]), rel=1e-4) and (spread.diff() < 0).all()
    assert spread.numpy() == pytest.approx(np.sqrt(((blocks @ basis.T) ** 2).mean(0)), rel=1e-4)
    assert torch.equal(analysis.spread, spread) and torch.allclose(synthesis.spread, 1 / (spread + 0.05))
    again = prepared(photographs)
    assert torch.equal(again[0].kernel, analysis.kernel) and torch.equal(again[2], spread)
    upside_down = prepared(photographs.flip(0))[0].kernel  # another order of the same sums
    assert torch.allclose(upside_down, analysis.kernel, atol=1e-3)


def test_a_new_pair_is_an_orthonormal_transform(photographs):
    """Until training begins: y = P x, x hat = P' y, and P P' = 1; what reconstruction loses is the energy of the components left out."""
    analysis, synthesis, _ = prepared(photographs)
    pixels, generator = pixels_of(photographs), torch.Generator().manual_seed(0)
    with torch.no_grad():
        y = analysis(pixels)
        assert y.shape == (70, 20, 3, 3) and synthesis(y).shape == pixels.shape
        basis = 0.1 * analysis.kernel.flatten(1).double().numpy()
        assert y.permute(0, 2, 3, 1).reshape(-1, 20).numpy() == pytest.approx(blocks_of(photographs) @ basis.T, abs=1e-4)
        some = torch.randn(2, 20, 2, 4, generator=generator)
        assert torch.allclose(analysis(synthesis(some)), some, atol=1e-5)
        error = float(((synthesis(y) - pixels).double() ** 2).mean())
    blocks = blocks_of(photographs)
    energies = np.linalg.svd(blocks, compute_uv=False) ** 2 / len(blocks)
    assert error == pytest.approx(energies[20:].sum() / SIDE, rel=1e-4)


def test_what_is_beyond_the_last_block_is_left_out(photographs):
    whole = prepared(photographs[:, :32, :48])
    ragged = prepared(photographs[:, :47, :])
    assert torch.equal(whole[0].kernel, ragged[0].kernel) and torch.equal(whole[2], ragged[2])


def test_the_networks_see_and_give_numbers_of_size_one():
    """Layers are drawn so that independent inputs of variance 1 give outputs of the size that was asked for; the last ones begin with zeros."""
    torch.manual_seed(0)
    analysis, synthesis = Analysis(24, 32), Synthesis(24, 32)
    with torch.no_grad():
        for layer, channels, gain in ((analysis.network[0], 3, 4), (analysis.network[2], 32, 1), (synthesis.network[0], 24, 1), (synthesis.network[2], 32, 1)):
            out = layer(torch.randn(2, channels, 40, 40))[..., 4:-4, 4:-4]
            assert float(out.std()) == pytest.approx(gain, rel=0.1) and (layer.bias == 0).all()
        for network in (analysis.network, synthesis.network):
            assert (network[-1].weight == 0).all() and (network[-1].bias == 0).all()


@pytest.mark.parametrize("height, width", [(16, 16), (16, 80), (64, 32)])
def test_any_multiple_of_sixteen(photographs, height, width):
    analysis, synthesis, _ = prepared(photographs)
    for network in (analysis.network, synthesis.network):
        torch.nn.init.normal_(network[-1].weight, std=0.1)
    pixels = torch.rand(2, 3, height, width, generator=torch.Generator().manual_seed(0)) - 0.5
    with torch.no_grad():
        y = analysis(pixels)
        assert y.shape == (2, 20, height // 16, width // 16) and synthesis(y).shape == pixels.shape
        assert torch.allclose(analysis(pixels[1:]), y[1:], atol=1e-5)


def test_the_two_parts_add_up(photographs):
    """y = P W x + s N(x) and x hat = W' P' y + M(y / s'): everything stands where the docstring says."""
    analysis, synthesis, _ = prepared(photographs)
    for lapping in (analysis.lapping, synthesis.lapping):
        lapping.matrices.data += 0.05 * torch.randn(2, DOWN, DOWN)
    for network in (analysis.network, synthesis.network):
        torch.nn.init.normal_(network[-1].weight, std=0.1)
    pixels = pixels_of(photographs[:2])
    with torch.no_grad():
        y = analysis(pixels)
        flat = 0.1 * analysis.kernel.flatten(1)
        linear = torch.einsum("ld,bdp->blp", flat, F.unfold(analysis.lapping(pixels), DOWN, stride=DOWN)).reshape(y.shape)
        laid = synthesis.lapping(F.fold(torch.einsum("ld,blp->bdp", flat, y.flatten(2)), pixels.shape[2:], DOWN, stride=DOWN))
        back, own = synthesis(y), analysis.network(pixels)
        inner = synthesis.network(y * synthesis.spread[:, None, None])
        analysis.kernel.zero_(), synthesis.kernel.zero_()
        assert torch.allclose(analysis(pixels), own * analysis.spread[:, None, None]) and torch.allclose(synthesis(y), inner) and float(inner.std()) > 0.01
        assert torch.allclose(linear + own * analysis.spread[:, None, None], y, atol=1e-4) and torch.allclose(laid + inner, back, atol=1e-4)


def test_lapping_mixes_the_pixels_on_either_side_of_a_border():
    """Against loops over borders: 8 pixels before and 8 behind, times a matrix, down and then along the rows; what is near the image's own edge stays."""
    torch.manual_seed(0)
    lapping, x = Lapping().double(), torch.randn(2, 3, 48, 32, dtype=torch.float64)
    assert torch.equal(lapping(x), x) and lapping.matrices.shape == (2, DOWN, DOWN)
    lapping.matrices.data += 0.3 * torch.randn(2, DOWN, DOWN)
    down, along = lapping.matrices.detach().numpy()
    expected = x.numpy().copy()
    for border in (16, 32):
        expected[:, :, border - 8:border + 8] = np.einsum("oi,bciw->bcow", down, expected[:, :, border - 8:border + 8])
    expected[..., 8:24] = np.einsum("oi,bchi->bcho", along, expected[..., 8:24])
    found = lapping(x).detach().numpy()
    assert found == pytest.approx(expected, rel=1e-12) and np.array_equal(found[..., :8, :8], x[..., :8, :8].numpy())
    one = torch.randn(1, 3, 16, 16, dtype=torch.float64)
    assert torch.equal(lapping(one), one)  # one block has no border


def test_all_of_it_learns(photographs):
    """The first step moves the last layers, and the second one everything."""
    analysis, synthesis, _ = prepared(photographs)
    parameters, pixels = [*analysis.parameters(), *synthesis.parameters()], pixels_of(photographs[:8])
    optimizer, losses = torch.optim.Adam(parameters, 1e-3), []
    for _ in range(12):
        loss = (synthesis(analysis(pixels)) - pixels).square().mean()
        optimizer.zero_grad(), loss.backward(), optimizer.step()
        losses.append(float(loss.detach()))
        if len(losses) == 1:
            assert (analysis.network[-1].weight.grad != 0).any() and (analysis.network[0].weight.grad == 0).all()
    assert all(torch.isfinite(p.grad).all() and (p.grad != 0).any() for p in parameters)
    assert losses[-1] < 0.97 * losses[0]


def test_a_residual_block_begins_as_the_identity():
    torch.manual_seed(0)
    block, x = Block(4), torch.randn(2, 4, 5, 6)
    assert torch.equal(block(x), x)
    torch.nn.init.normal_(block.second.weight)
    expected = x + block.second(torch.relu(block.first(torch.relu(x))))
    assert torch.equal(block(x), expected) and not torch.equal(expected, x)

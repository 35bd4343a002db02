"""The VAE family: what training minimises is what bits-back coding spends, and every image comes back."""

import copy
import dataclasses

import numpy as np
import pytest
import torch

from shvc_lib import data, models, recipes, train
from shvc_lib.coding import BitStack
from shvc_lib.coding.bits_back import bb_ans, bit_swap, push_chain
from shvc_lib.errors import InvalidInput
from shvc_lib.models import vae_codec
from shvc_lib.models.bits_back_vae import Block, balanced
from shvc_lib.nn import to_exact

KINDS = {"plain": {}, "downsampling": {"downsample": True}, "deterministic": {"downsample": True, "deterministic": True}}


@pytest.fixture(scope="module")
def trained():
    """A tiny model of two levels after a few seconds of training, its exact twin, and images it has not seen."""
    torch.set_num_threads(1)
    run = train.Run(dataclasses.replace(recipes.get("vae-tiny"), data="photographs", batch=8, steps=120))
    images = train._images(run.recipe)
    for _ in range(120):
        run.advance(images)
    model = run.model.eval()
    return model, vae_codec.exact_twin(model, images[:32].numpy()), data.patches([data.photograph("coffee")], 32, 24, seed=77)


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("kind", KINDS)
def test_every_member_of_the_family_trains_and_codes(kind, levels):
    model = models.build("BitsBackVAE", levels=levels, width=8, blocks=1, latents=2, **KINDS[kind])
    images = data.patches([data.photograph("chelsea")], 32, 4)
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    bits, report = model.loss(batch, model.noise(4, torch.Generator().manual_seed(0)))
    bits.backward()
    assert set(report) == {"x", *(f"z{i + 1}" for i in range(levels))} and torch.isclose(bits, sum(report.values()))
    assert all(torch.isfinite(parameter.grad).all() for parameter in model.parameters())
    codec = vae_codec.codec(vae_codec.exact_twin(model.eval(), images), images[0].shape)
    stack = BitStack.random(20_000)
    before = stack.copy()
    push_chain(codec, images, stack)
    assert all(np.array_equal(codec.pop(stack), image) for image in images[::-1])
    assert stack == before


@pytest.mark.parametrize("kind", KINDS)
def test_training_runs_on_the_grid(kind, monkeypatch):
    """The decoder sees integers while it trains (for a deterministic posterior: while it is tested, and noise while it trains)."""
    model, seen = models.build("BitsBackVAE", levels=1, width=8, blocks=1, latents=2, **KINDS[kind]), []
    inner = model.likelihood
    monkeypatch.setattr(model, "likelihood", lambda z: (seen.append(z * 16), inner(z))[1])
    batch = torch.from_numpy(data.patches([data.photograph("chelsea")], 32, 2)).permute(0, 3, 1, 2)
    for training in (True, False):
        model.train(training).loss(batch, model.noise(2, torch.Generator().manual_seed(0)))
        assert torch.equal(seen[-1], seen[-1].round()) == (kind != "deterministic" or not training)


@pytest.mark.parametrize("schedule", [bit_swap, bb_ans])
def test_the_net_codelength_is_the_negative_elbo(trained, schedule):
    model, twin, images = trained
    batch = torch.from_numpy(images).permute(0, 3, 1, 2)
    with torch.no_grad():
        elbo = np.mean([float(model.loss(batch, model.noise(len(images), torch.Generator().manual_seed(s)))[0]) for s in range(8)])
    stack = BitStack.random(20_000, seed=3)
    before = stack.copy()
    codec = vae_codec.codec(twin, images[0].shape, schedule)
    ledgers = push_chain(codec, images, stack)
    net = sum(ledger.net for ledger in ledgers) / images.size
    assert net == pytest.approx(elbo, rel=0.003)
    assert all(np.array_equal(codec.pop(stack), image) for image in images[::-1])
    assert stack == before


def test_bit_swap_needs_fewer_initial_bits(trained):
    _, twin, images = trained
    need = {schedule: push_chain(vae_codec.codec(twin, images[0].shape, schedule), images[:4], BitStack.random(20_000))
            for schedule in (bit_swap, bb_ans)}
    assert all(a.initial < b.initial for a, b in zip(need[bit_swap], need[bb_ans]))


def test_a_network_that_grew_too_large_is_brought_back_unchanged(trained):
    """The same function with streams and blocks that count in huge units: an exact twin cannot hold it; `balanced` can, and changes no bit of it."""
    model, _, images = trained
    batch, large = torch.from_numpy(images).permute(0, 3, 1, 2), copy.deepcopy(model)

    def reach(network):
        reaches, watched = [], copy.deepcopy(network)
        for layer in watched.modules():
            if isinstance(layer, (torch.nn.Conv2d, Block)):
                layer.register_forward_hook(lambda layer, inputs, output: reaches.append(float(output.abs().max())))
        watched.everything(batch)
        return max(reaches)

    with torch.no_grad():
        for stem, block, _, last in (*large.encoders, *large.decoders):
            for layer, unit in [(stem, 4096), (block.first, 512 / 4096), (block.second, 4096 / 512), (last, 1 / 4096)]:
                layer.weight *= unit
            for layer, unit in [(stem, 4096), (block.first, 512), (block.second, 4096)]:
                layer.bias *= unit
        expected, small = model.everything(batch), balanced(large, batch)
        assert reach(model) < 256 < 10_000 < reach(large) and reach(small) <= 128
        for network in (large, small):
            assert all(torch.equal(a, b) for a, b in zip(expected, network.everything(batch)))
        with pytest.raises(InvalidInput, match="outputs reach"):
            to_exact(large, lambda m: m.everything(batch))
    vae_codec.exact_twin(large, images)

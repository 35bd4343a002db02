"""A VAE whose latent lies in other bins: every choice decodes, the trained grid is the old codec, and floors far away draw wild latents."""

import numpy as np
import pytest
import torch

from shvc_lib import data, models, zoo
from shvc_lib.coding import BitStack
from shvc_lib.coding.bits_back import push_chain
from shvc_lib.errors import InvalidInput
from shvc_lib.models import rebinned, vae_codec


@pytest.fixture(scope="module")
def twin():
    torch.set_num_threads(1)
    return zoo.load("vae-stochastic-1")


@pytest.fixture(scope="module")
def images():
    photograph = data.photograph("coffee")
    return data.patches([photograph[::2, ::2]], 32, 12, seed=3)


@pytest.mark.parametrize("choice", [*({"width": w} for w in (8, *rebinned.WIDTHS, 1 / 16)), *({"bits": b} for b in (1, *rebinned.BITS))],
                         ids=lambda choice: "-".join(map(str, *choice.items())))
def test_images_come_back(twin, images, choice):
    codec, stack = rebinned.codec(twin, (32, 32, 3), **choice), BitStack.random(100_000)
    before = stack.copy()
    push_chain(codec, images[:2], stack)
    assert all(np.array_equal(codec.pop(stack), image) for image in images[1::-1])
    assert stack == before


def test_width_one_is_the_trained_grid(twin, images):
    """The same latents are possible at the same cost: net and initial bits of the old codec, up to which latents were drawn."""
    old = np.array(push_chain(vae_codec.codec(twin, (32, 32, 3)), images, BitStack.random(100_000)))
    row, = rebinned.compare(twin, images, widths=(1,), bits=())
    assert row.net.sum() == pytest.approx(old[:, 0].sum(), rel=0.004)
    assert row.initial.mean() == pytest.approx(old[:, 1].mean(), rel=0.02)


def test_finer_bins_cost_initial_bits_and_nothing_net(twin, images):
    rows = {row.name: row for row in rebinned.compare(twin, images, bits=(6, 9, 12))}
    latents = 8 * 16 * 16
    for coarse, fine in [("width 0.5", "width 0.25"), ("2^9 equal", "2^12 equal")]:
        halvings = np.log2(rows[fine].count / rows[coarse].count)
        assert rows[fine].initial.mean() - rows[coarse].initial.mean() == pytest.approx(halvings * latents, rel=0.05)
    assert rows["width 0.25"].net.sum() == pytest.approx(rows["width 0.5"].net.sum(), rel=0.01)
    assert rows["width 4"].net.sum() > 1.1 * rows["width 1"].net.sum()  # coarser than q: the decoder no longer hears what q says
    assert rows["2^6 equal"].net.sum() > 1.05 * rows["2^12 equal"].net.sum()
    assert rows["2^12 equal"].initial.mean() > 5 * rows["width 1"].initial.mean()


def test_a_floor_everywhere_draws_wild_latents(twin, images):
    """About as often as its counts say (2048 latents in 2048 bins, most of them outside the windows), and each costs what its
    24 bits bring back and far more. Where nothing was wild, the two posteriors charge the same."""
    wild, extra = rebinned.floor_trap(twin, images, width=1 / 8)
    assert 1 <= wild.sum() <= 7  # Poisson of mean 12 * 0.22
    assert (extra[wild > 0] > 20).all() and (np.abs(extra[wild == 0]) < 1).all()


@pytest.mark.parametrize("arguments", [{}, {"width": 1, "bits": 6}, {"width": 3}, {"width": 1 / 32}, {"width": 256}, {"width": 0}, {"bits": 0}, {"bits": 17}])
def test_choices_that_do_not_exist_are_refused(twin, arguments):
    with pytest.raises(InvalidInput):
        rebinned.make_bins(twin, **arguments)


def test_other_models_and_shapes_are_refused(twin):
    for shape in [(32, 31, 3), (32, 32), (32, 32, 1), (2, 32, 32, 3)]:
        with pytest.raises(InvalidInput):
            rebinned.codec(twin, shape, width=1)
    for arguments in ({"levels": 2}, {"levels": 1, "deterministic": True}):
        with pytest.raises(InvalidInput, match="one level"):
            rebinned.codec(models.build("BitsBackVAE", width=8, latents=2, **arguments), (32, 32, 3), width=1)

"""The 784-pixel VAE: what training minimises is what coding spends, alone or in lanes, and every image comes back."""

import numpy as np
import pytest
import torch

from shvc_lib import data, recipes, train
from shvc_lib.coding import TOTAL, BitStack
from shvc_lib.coding.bits_back import push_chain
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import InvalidInput
from shvc_lib.models import binary_vae
from shvc_lib.nn.parameters import exact_bernoulli


@pytest.fixture(scope="module")
def trained():
    """A model after two seconds of training, its exact twin, and images of a photograph that it has not seen."""
    torch.set_num_threads(1)
    photographs = [data.photograph(name) for name in ("astronaut", "chelsea", "motorcycle")]
    images = torch.from_numpy(binary_vae.binary_patches(photographs, 2048))
    run = train.Run(recipes.Recipe("binary", "BinaryVAE", batch=32, steps=500, learning_rate=3e-3, warmup=20))
    for _ in range(run.recipe.steps):
        run.advance(images)
    return run.model.eval(), binary_vae.exact_twin(run.model, images[:64].numpy()), binary_vae.binary_patches([data.photograph("coffee")], 1000, seed=5)


def batch(images):
    return torch.from_numpy(images).permute(0, 3, 1, 2)


def test_patches_are_brighter_or_darker_than_their_mean():
    colours = data.patches([data.photograph("coffee")], 28, 50, seed=3).astype(int).sum(-1)
    images = binary_vae.binary_patches([data.photograph("coffee")], 50, seed=3)
    assert images.shape == (50, 28, 28, 1) and images.dtype == np.uint8
    for image, grey in zip(images[..., 0], colours):
        assert np.array_equal(image == 1, grey > grey.mean())


def test_the_net_codelength_is_the_negative_elbo(trained):
    model, twin, images = trained
    with torch.no_grad():
        elbo = np.mean([float(model.loss(batch(images), model.noise(len(images), torch.Generator().manual_seed(s)))[0]) for s in range(16)])
    stack = BitStack.random(2000)
    before = stack.copy()
    codec = binary_vae.codec(twin)
    ledgers = push_chain(codec, images, stack)
    assert (stack.bits - before.bits) / images.size == pytest.approx(elbo, rel=0.003)
    assert elbo < 0.65 and 50 < ledgers[0].initial < 500  # it has learnt something, and z costs something
    assert np.mean([codec.bits(image) for image in images[:200]]) == pytest.approx(np.mean([ledger.net for ledger in ledgers[:200]]), rel=0.02)
    back = [codec.pop(stack) for _ in images][::-1]
    assert np.array_equal(back, images) and back[0].dtype == np.uint8 and stack == before


def test_a_batch_in_lanes_is_word_for_word_its_images_alone(trained):
    _, twin, images = trained
    lanes = Lanes([BitStack.random(2000, seed) for seed in range(20)])
    before = lanes.copy()
    codec = binary_vae.codec(twin, (20, 28, 28, 1))
    codec.push(lanes, images[:20])
    for seed, stack in enumerate(lanes.stacks):
        alone = BitStack.random(2000, seed)
        binary_vae.codec(twin).push(alone, images[seed])
        assert alone == stack
    assert np.array_equal(codec.pop(lanes), images[:20]) and lanes == before


def test_the_exact_twin_does_not_see_the_batch(trained):
    _, twin, images = trained
    together = twin.everything(batch(images[:64]))
    alone = [twin.everything(batch(images[i:i + 1])) for i in range(64)]
    assert all(torch.equal(a, torch.cat([outputs[k] for outputs in alone])) for k, a in enumerate(together))


def test_no_latent_can_be_drawn_far_from_its_mean(trained):
    """Bins get a count of 2^-24 each, whatever the density says, and 40 latents of a thousand images would hit a far one: there must be none."""
    _, twin, images = trained
    popped = []

    class Spy(BitStack):
        def pop(self, cdf, count=None):
            popped.append(cdf)
            return super().pop(cdf, count)

    for image in images[:50]:
        stack = Spy()
        stack.restore(BitStack.random(2000))
        binary_vae.codec(twin).push(stack, image)
    means = twin.posterior(batch(images[:50]))[0].numpy()
    assert len(popped) == 50 and all(cdf.size == binary_vae.WINDOW for cdf in popped)
    lowest = np.stack([cdf.lower for cdf in popped])
    assert (lowest <= means).all() and (means <= lowest + binary_vae.WINDOW).all()
    assert np.abs(lowest[..., None] + np.arange(binary_vae.WINDOW) - means[..., None]).max() <= binary_vae.WINDOW / 2 + 1


def test_the_integer_sigmoid():
    logits = np.arange(-20 * 4096, 20 * 4096, 37)
    ones = exact_bernoulli(logits)
    grid = np.clip(np.floor(logits / 64 + 0.5) / 64, -14, 14)  # halves upwards, to 1/64 nat
    assert np.abs(ones - TOTAL / (1 + np.exp(-grid))).max() < 1  # half a count from rounding, less than half from the table of e^-t
    assert ones.min() == 14 and ones.max() == TOTAL - 14 and ones.dtype == np.int32 and (np.diff(ones) >= 0).all()
    p = 1 / (1 + np.exp(-np.clip(logits / 4096, -14, 14)))
    excess = p * np.log2(p * TOTAL / ones) + (1 - p) * np.log2((1 - p) * TOTAL / (TOTAL - ones))
    assert excess.max() < 2e-5  # bits per pixel
    assert np.array_equal(exact_bernoulli(np.array([[-4096, 4096]])).sum(), TOTAL)


def test_what_is_no_binary_image_is_refused(trained):
    _, twin, images = trained
    codec, stack = binary_vae.codec(twin), BitStack.random(2000)
    before = stack.copy()
    for image in (images[0][..., 0], images[0].astype(np.int32), images[0] * 2, images[:2]):
        with pytest.raises(InvalidInput) as caught:
            codec.push(stack, image)
        assert "\n" not in str(caught.value) and stack == before

"""Encode a batch of 64, decode one image at a time under other conditions: the exact twin returns every image, the float network does not."""

import copy
import dataclasses
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conditions import WAYS
from safetensors.torch import save_file

from shvc_lib import data, models, nn, recipes, train
from shvc_lib.coding import BitStack
from shvc_lib.coding.bits_back import bb_ans, bit_swap
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import InvalidInput, ShvcError
from shvc_lib.models import vae_codec

RECIPE = dataclasses.replace(recipes.get("vae-tiny"), data="photographs", batch=8, steps=80)
ONE = (32, 32, 3)


@pytest.fixture(scope="module")
def model():
    """Two levels, trained for a few seconds."""
    torch.set_num_threads(1)
    run = train.Run(RECIPE)
    images = train._images(RECIPE)
    for _ in range(RECIPE.steps):
        run.advance(images)
    return run.model.eval()


@pytest.fixture(scope="module")
def images():
    return data.patches([data.photograph("coffee"), data.photograph("astronaut")], 32, 64, seed=77)


@pytest.fixture(scope="module")
def twin(model, images):
    return vae_codec.exact_twin(model, images[:32])


def start(count):
    """Lanes with initial bits, other ones for each image."""
    return Lanes([BitStack.random(20_000 + 100 * lane, lane) for lane in range(count)])


def encoded(network, images, schedule=bit_swap):
    lanes = start(len(images))
    vae_codec.codec(network, images.shape, schedule).push(lanes, images)
    return lanes


def decoded(network, lanes, schedule=bit_swap):
    """Every image by itself, from a copy of its own stack: (image or None, its initial bits are back)."""
    codec = vae_codec.codec(network, ONE, schedule)
    for stack, before in zip(lanes.copy().stacks, start(len(lanes.stacks)).stacks):
        try:
            yield codec.pop(stack), stack == before
        except ShvcError:  # a decoder that is out of step reads noise, and in the end finds no bits, or a latent that cannot be
            yield None, False


def wrong(network, lanes, images, schedule=bit_swap):
    """How many of the images do not come back."""
    return sum(not (restored and np.array_equal(image, original))
               for (image, restored), original in zip(decoded(network, lanes, schedule), images, strict=True))


@pytest.fixture(scope="module")
def lanes(twin, images):
    return encoded(twin, images)


def variant(model, images, kind):
    """Other members of the family, with weights that make every layer count."""
    if kind == "deterministic, trained":
        deterministic = copy.deepcopy(model)
        deterministic.deterministic = True
        return vae_codec.exact_twin(deterministic, images)
    other = models.build("BitsBackVAE", levels=3, width=8, blocks=1, latents=2, downsample=True, deterministic=kind == "deterministic")
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in other.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return vae_codec.exact_twin(other.eval(), images)


# --- one push for 64 images, one stack each ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["bit_swap", "bb_ans", "downsampling", "deterministic", "deterministic, trained"])
def test_a_batch_of_64_is_decoded_one_by_one(model, twin, images, kind):
    network = twin if kind in ("bit_swap", "bb_ans") else variant(model, images[:32], kind)
    schedule = bb_ans if kind == "bb_ans" else bit_swap
    lanes = encoded(network, images, schedule)
    count = 64 if kind == "bit_swap" else 16
    assert wrong(network, Lanes(lanes.stacks[:count]), images[:count], schedule) == 0
    alone = start(64).stacks[63]
    vae_codec.codec(network, ONE, schedule).push(alone, images[63])
    assert alone == lanes.stacks[63]
    assert np.array_equal(vae_codec.codec(network, images.shape, schedule).pop(lanes), images) and lanes == start(64)


def test_a_batch_is_one_big_symbol_on_one_stack(twin, images):
    codec, stack, some = vae_codec.codec(twin, (7, *ONE)), BitStack.random(100_000), images[:7]
    before = stack.copy()
    codec.push(stack, some)
    grown = stack.bits - before.bits
    popped = codec.pop(stack)
    assert np.array_equal(popped, some) and popped.dtype == np.uint8 and stack == before
    one = vae_codec.codec(twin, ONE)
    assert codec.bits(some) == pytest.approx(grown, rel=0.01)
    assert codec.bits(some) == pytest.approx(sum(one.bits(image) for image in some), rel=0.01)


# --- the same integers under other conditions -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_images_decode_in_another_way(twin, lanes, images, way):
    count = {"two threads": 2, "int64": 4}.get(way, 16)  # threads wait for busy cores, numpy's reference is slow
    with WAYS[way](twin) as other:
        assert wrong(other, Lanes(lanes.stacks[:count]), images[:count]) == 0


DECODE = """
import sys, numpy as np, torch
from test_determinism import BitStack, Lanes, ONE, RECIPE, Path, data, models, nn, wrong
from safetensors.torch import load_file
torch.set_num_threads(2)
folder = Path(sys.argv[1])
twin = nn.load_exact(models.build(RECIPE.model, **RECIPE.arguments), folder / "twin.safetensors")
stacks = [BitStack.from_bytes((folder / f"{lane}.bits").read_bytes()) for lane in range(4)]
print(torch.backends.cpu.get_cpu_capability(), wrong(twin, Lanes(stacks), load_file(folder / "images.safetensors")["images"].numpy()))
"""


def test_a_fresh_process_with_other_threads_and_older_instructions_decodes(twin, lanes, images, tmp_path):
    """What travels are the twin's integers and the stacks' bytes."""
    nn.save_exact(twin, tmp_path / "twin.safetensors")
    save_file({"images": torch.from_numpy(images[:4])}, tmp_path / "images.safetensors")
    for lane in range(4):
        (tmp_path / f"{lane}.bits").write_bytes(lanes.stacks[lane].to_bytes())
    older = dict(os.environ, ATEN_CPU_CAPABILITY="default", ONEDNN_MAX_CPU_ISA="SSE41", OMP_WAIT_POLICY="passive",
                 PYTHONPATH=os.pathsep.join([str(Path(__file__).parent), str(Path(models.__file__).parents[2])]))
    done = subprocess.run([sys.executable, "-c", DECODE, str(tmp_path)], env=older, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0 and done.stdout.split() == ["DEFAULT", "0"], done.stdout + done.stderr


# --- and where floats would break it ----------------------------------------------------------------------------------------------------------

class Tape:
    """Lanes that record the interval of every symbol, or that play back recorded symbols of one lane to a codec and record its intervals."""

    def __init__(self, lanes=None, symbols=()):
        self.lanes, self.symbols, self.intervals = lanes, list(symbols), []

    def copy(self):
        return self

    def push(self, symbols, cdf):
        self.intervals.append(np.stack(cdf.intervals(symbols)).reshape(2, *np.shape(symbols)))
        if self.lanes:
            self.lanes.push(symbols, cdf)

    def pop(self, cdf, count=None):
        popped = self.lanes.pop(cdf, count) if self.lanes else self.symbols.pop(0)
        if self.lanes:
            self.symbols.append(popped)
        self.intervals.append(np.stack(cdf.intervals(popped)).reshape(2, *popped.shape))
        return popped


def differing_intervals(network, images):
    """(start, freq) pairs that are not the same when an image is coded alone as in the batch, with the same latents; how many there are."""
    batch, single, differ, total = Tape(start(len(images))), vae_codec.codec(network, ONE), 0, 0
    vae_codec.codec(network, images.shape).push(batch, images)
    for lane, image in enumerate(images):
        tape = Tape(symbols=[symbols[lane] for symbols in batch.symbols])
        single.push(tape, image)
        for a, b in zip(batch.intervals, tape.intervals, strict=True):
            differ, total = differ + int((a[:, lane] != b).any(0).sum()), total + b[0].size
    return differ, total


def test_a_float_network_loses_images_and_its_exact_twin_none(model, twin, lanes, images):
    differ, total = differing_intervals(twin, images)
    assert differ == 0 and wrong(twin, lanes, images) == 0
    careless = vae_codec.float_twin(model)
    differ, _ = differing_intervals(careless, images)
    if not differ:
        pytest.skip("this processor's kernels add in one order for a batch and for one image: floats happen to agree here")
    assert differ < 0.01 * total and wrong(careless, encoded(careless, images), images) > 0


def test_the_float_codec_is_the_same_codec_and_the_model_untouched(model, twin, images):
    """In one and the same batch the float network decodes what it encoded, at the cost of the exact twin: nothing but the batch breaks it."""
    careless, before = vae_codec.float_twin(model), [values.clone() for values in model.state_dict().values()]
    lanes = encoded(careless, images[:8])
    codec = vae_codec.codec(careless, (8, *ONE))
    assert np.array_equal(codec.pop(lanes), images[:8]) and lanes == start(8)
    assert codec.bits(images[:8]) == pytest.approx(vae_codec.codec(twin, (8, *ONE)).bits(images[:8]), rel=0.01)
    assert all(torch.equal(a, b) for a, b in zip(before, model.state_dict().values()))
    with pytest.raises(InvalidInput, match="exact"):
        vae_codec.codec(model, ONE).push(start(1).stacks[0], images[0])


# --- what is refused --------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape, says", [((31, 32, 3), "multiples of 2"), ((32, 33, 3), "multiples of 2"), ((4, 32, 31, 3), "multiples of 2"),
                                         ((0, 32, 3), "at least 1"), ((0, 32, 32, 3), "at least 1"), ((32.0, 32, 3), "float"),
                                         ((32, 32), "one image"), ((32, 32, 4), "one image"), ((1, 2, 32, 32, 3), "one image")])
def test_shapes_that_the_model_cannot_take(twin, shape, says):
    with pytest.raises(InvalidInput, match=says):
        vae_codec.codec(twin, shape)


def test_sizes_follow_the_levels():
    """Two levels that both halve: multiples of 4, in a batch too; and images that are not square."""
    network = models.build("BitsBackVAE", levels=2, width=8, blocks=1, latents=2, downsample=True)
    image = data.photograph("coffee")[:12, :20]
    twin = vae_codec.exact_twin(network, image[None])
    for shape in [(10, 20, 3), (12, 22, 3), (2, 10, 20, 3)]:
        with pytest.raises(InvalidInput, match="multiples of 4"):
            vae_codec.codec(twin, shape)
    codec, stack = vae_codec.codec(twin, image.shape), BitStack.random(5000)
    codec.push(stack, image)
    assert np.array_equal(codec.pop(stack), image)


@pytest.mark.parametrize("spoil", [lambda x: x[:16], lambda x: x[None], lambda x: x.astype(np.int64), lambda x: x / 255, lambda x: x[..., :1]])
@pytest.mark.parametrize("deterministic", [False, True])
def test_images_that_are_not_of_the_codec(model, twin, images, spoil, deterministic):
    network = copy.copy(twin)
    network.deterministic = deterministic
    stack = BitStack.random(20_000)
    before = stack.copy()
    with pytest.raises(InvalidInput, match="uint8 of shape"):
        vae_codec.codec(network, ONE).push(stack, spoil(images[0]))
    assert stack == before

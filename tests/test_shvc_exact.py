"""Streams of the trained SHVCs are the same bytes whoever adds up the networks' sums, and cost hardly more than floats would.

tests/golden holds what each network makes of a picture, written once in numpy's integers: `python tests/test_shvc_exact.py` writes them anew."""

import contextlib
import copy
import dataclasses
import hashlib
import json
import lzma
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from conditions import MORE_WAYS, on_gpu

from shvc_lib import data, models, nn, recipes, train, zoo
from shvc_lib.coding import BitStack
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import CorruptFile, InvalidInput
from shvc_lib.models import shvc_codec

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch says so whenever oneDNN is switched
GOLDEN = Path(__file__).parent / "golden"
NETWORKS = ["shvc-short", "shvc-short-arib", "shvc-short-deterministic"]
_loaded = {}


def network(name):
    if name not in _loaded:
        _loaded[name] = zoo.load(name)
    return _loaded[name]


def start(name, lane=0):
    """The stack to begin with: initial bits for the one network that borrows them."""
    return BitStack.random(4000, lane) if name == "shvc-short" else BitStack()


def picture():
    return np.ascontiguousarray(data.photograph("coffee")[100:132, 200:248])


def stream(name, image, twin=None):
    """One image's bytes."""
    stack = start(name)
    shvc_codec.codec(twin or network(name), image.shape).push(stack, image)
    return stack.to_bytes()


def image_of(name, content, shape, twin=None):
    """The image of a stream, having seen that the stack ends as it began."""
    stack = BitStack.from_bytes(content)
    image = shvc_codec.codec(twin or network(name), shape).pop(stack)
    assert stack == start(name)
    return image


def golden(name):
    """A network's stream of the picture; the weights must be those that wrote it."""
    about = json.loads((GOLDEN / "streams.json").read_text())[name]
    assert about["sha256"] == zoo.card(name)["sha256"], f"{name} has other weights than when tests/golden was written: write it anew"
    return (GOLDEN / f"{name}.bits").read_bytes()


def write_golden():
    """In integers from the first sum to the last; before anything is written, what is there is compared in floats of two sizes."""
    GOLDEN.mkdir(exist_ok=True)
    about = {}
    for name in NETWORKS:
        with nn.arithmetic(network(name), "int64"):
            content = stream(name, picture())
        assert content == stream(name, picture())
        (GOLDEN / f"{name}.bits").write_bytes(content)
        about[name] = {"bytes": len(content), "sha256": zoo.card(name)["sha256"]}
    (GOLDEN / "streams.json").write_text(json.dumps(about, indent=1) + "\n")


# --- the golden files -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("arithmetic", ["float32", "float64", "int64"])
@pytest.mark.parametrize("name", NETWORKS)
def test_golden_streams_are_written_and_read_in_every_arithmetic(name, arithmetic):
    image, content = picture(), golden(name)
    with nn.arithmetic(network(name), arithmetic):
        assert stream(name, image) == content
        assert np.array_equal(image_of(name, content, image.shape), image)


def test_the_picture_is_worth_the_test():
    """Real detail, sides that differ, and streams far below the raw pixels: wrong parameters would show."""
    image = picture()
    assert image.shape == (32, 48, 3) and image.std((0, 1)).min() > 15
    for name in NETWORKS:
        assert 0.3 * image.nbytes < len(golden(name)) - start(name).bits / 8 < 0.7 * image.nbytes


OTHER = """
import sys
from test_shvc_exact import NETWORKS, golden, image_of, np, picture, stream, torch
torch.set_num_threads(int(sys.argv[1]))
wrong = sum(stream(name, picture()) != golden(name) or not np.array_equal(image_of(name, golden(name), picture().shape), picture()) for name in NETWORKS)
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), wrong)
"""
PROCESSORS = {
    "baseline": ("DEFAULT", 1, {"ATEN_CPU_CAPABILITY": "default", "ONEDNN_MAX_CPU_ISA": "SSE41", "MKL_ENABLE_INSTRUCTIONS": "SSE4_2",
                                "NPY_DISABLE_CPU_FEATURES": "X86_V3 X86_V4 AVX512_ICL AVX512_SPR"}),
    "AVX2": ("AVX2", 2, {"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX2", "MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
    "AVX-512": ("AVX512", 2, {"ATEN_CPU_CAPABILITY": "avx512", "ONEDNN_MAX_CPU_ISA": "AVX512_CORE", "MKL_CBWR": "COMPATIBLE"}),
}


def run_with_other_instructions(code, processor):
    """Run `code` with a number of threads as its argument; it prints the capability, that number, and how many things went wrong."""
    capability, threads, environment = PROCESSORS[processor]
    fits = ["DEFAULT", "AVX2", "AVX512"]
    here = torch.backends.cpu.get_cpu_capability()
    if here not in fits or fits.index(capability) > fits.index(here):
        pytest.skip(f"this processor ({here}) does not have the instructions of {processor}")
    paths = os.pathsep.join([str(Path(__file__).parent), str(Path(models.__file__).parents[2])])
    done = subprocess.run([sys.executable, "-W", "ignore", "-c", code, str(threads)], capture_output=True, text=True, timeout=300,
                          env={**os.environ, "OMP_WAIT_POLICY": "passive", "PYTHONPATH": paths, **environment})
    assert done.returncode == 0 and done.stdout.split() == [capability, str(threads), "0"], done.stdout + done.stderr


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_process_with_other_instructions_writes_and_reads_them(processor):
    """torch, oneDNN, MKL and numpy told to use what an older processor has, or all there is; one thread and two."""
    run_with_other_instructions(OTHER, processor)


# --- batches and kernels ----------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def images():
    """Eighteen, so that kernels for batches of sixteen and more take part: photographs, and three on which activations are extreme."""
    patches = data.patches([data.photograph(name) for name in data.PHOTOGRAPHS], 16, 15, seed=11)
    noise = np.random.default_rng(0).integers(0, 256, (16, 16, 3))
    checks = np.indices((16, 16)).sum(0)[..., None] % 2 * np.array([255, 255, 0])
    return np.concatenate([patches, np.stack([noise, checks, np.full((16, 16, 3), 255)]).astype(np.uint8)])


@pytest.fixture(scope="module", params=NETWORKS)
def batch(request, images):
    """(name, each image's words when it was coded alone in float32)."""
    name, words = request.param, []
    for lane, image in enumerate(images):
        stack = start(name, lane)
        shvc_codec.codec(network(name), image.shape).push(stack, image)
        words.append(stack.to_bytes())
    return name, words


def written(name, twin, images, size):
    """The images' words, encoded `size` at a time."""
    words = []
    for first in range(0, len(images), size):
        part = images[first:first + size]
        lanes = Lanes([start(name, first + lane) for lane in range(len(part))])
        shvc_codec.codec(twin, part.shape).push(lanes, part)
        words += [stack.to_bytes() for stack in lanes.stacks]
    return words


def read(name, twin, words, size):
    """The images, decoded `size` at a time."""
    images = []
    for first in range(0, len(words), size):
        lanes = Lanes([BitStack.from_bytes(content) for content in words[first:first + size]])
        images.append(shvc_codec.codec(twin, (len(lanes.stacks), 16, 16, 3)).pop(lanes))
        assert lanes == Lanes([start(name, first + lane) for lane in range(len(lanes.stacks))])
    return np.concatenate(images)


@pytest.mark.parametrize("size", [1, 5, 17])
def test_any_batch_writes_and_reads_the_same_bytes(batch, images, size):
    name, words = batch
    assert written(name, network(name), images, size) == words and np.array_equal(read(name, network(name), words, size), images)


@contextlib.contextmanager
def everything_else(twin):
    """Two threads, channels last and torch's own kernels at once."""
    with MORE_WAYS["channels last"](twin) as twin, MORE_WAYS["oneDNN off"](twin), MORE_WAYS["two threads"](twin):
        yield twin


HERE = {**MORE_WAYS, "all at once": everything_else}


@pytest.mark.parametrize("way", HERE)
def test_any_kernel_writes_and_reads_the_same_bytes(batch, images, way):
    """All eighteen together, where fast kernels for large batches would be chosen, and the last ones in a smaller batch."""
    name, words = batch
    with HERE[way](network(name)) as twin:
        assert written(name, twin, images, 18) == words and np.array_equal(read(name, twin, words, 18), images)
        assert written(name, twin, images[:3], 2) == words[:3] and np.array_equal(read(name, twin, words[:3], 2), images[:3])


def test_a_gpu_writes_and_reads_the_same_bytes(batch, images):
    if not torch.cuda.is_available():
        pytest.skip("there is no GPU here: that its sums are these is tested where there is one")
    name, words = batch
    with on_gpu(network(name)) as twin:
        for size in (1, 18):
            assert written(name, twin, images, size) == words and np.array_equal(read(name, twin, words, size), images)
    with on_gpu(network(name)) as twin:
        assert stream(name, picture(), twin) == golden(name) and np.array_equal(image_of(name, golden(name), picture().shape, twin), picture())


# --- what integers cost -----------------------------------------------------------------------------------------------------------------------

SPLIT = [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] in ("SHVC", "SubsampledSHVC")]


@pytest.mark.parametrize("name", SPLIT)
def test_integers_cost_at_most_half_a_percent_by_the_card(name):
    rates = zoo.card(name)["bits_per_dim"]
    assert rates["float"] > 1 and abs(rates["exact"] / rates["float"] - 1) <= 0.005


@pytest.fixture(scope="module")
def trained():
    """A small network after some steps: (floats, exact twin)."""
    recipe = dataclasses.replace(recipes.get("shvc-tiny"), steps=60, warmup=10)
    run, names = train.Run(recipe), [name for name in data.PHOTOGRAPHS if name != "chelsea"]
    images = torch.from_numpy(data.patches([data.photograph(name) for name in names], 32, 512, seed=0))
    run.begin(images, None)
    for _ in range(recipe.steps):
        run.advance(images)
    model = run.model.eval()
    return model, shvc_codec.exact_twin(model, images[:64].numpy())


def test_integers_cost_at_most_half_a_percent_of_a_network_trained_here(trained):
    """Float ideal, integer ideal (networks, then tables and integer masses too), actual bits: a photograph that it did not see."""
    model, twin = trained
    patches = data.patches([data.photograph("chelsea")], 32, 12, seed=3)
    tensor = torch.from_numpy(patches).permute(0, 3, 1, 2)
    with torch.no_grad():
        floats, exact = (np.mean([float(m.loss(tensor, m.noise(12, torch.Generator().manual_seed(seed)))[0]) for seed in range(4)]) for m in (model, twin))
    assert abs(exact / floats - 1) <= 0.005
    codec = shvc_codec.codec(twin, patches.shape)
    lanes = Lanes([BitStack.random(9000, lane) for lane in range(12)])
    before = lanes.bits.sum()
    codec.push(lanes, patches)
    actual, ideal = (lanes.bits.sum() - before) / patches.size, codec.bits(patches) / patches.size
    assert abs(ideal / floats - 1) <= 0.01 and abs(actual / floats - 1) <= 0.01  # other draws of z
    assert 2 < floats < 6


# --- the bound --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SPLIT)
def test_no_sum_of_a_shipped_network_can_reach_two_to_the_24(name):
    layers = [layer for layer in zoo.load(name).modules() if isinstance(layer, nn.ExactLayer)]
    worst = [(layer.weight.long().flatten(1).abs().sum(1) * 2048 + layer.bias.long().abs()).max() for layer in layers]
    assert len(layers) >= 15 and max(worst) < 1 << 24 and sum(w > 1 << 23 for w in worst) > len(worst) / 2


@pytest.mark.parametrize("buffer, value, says", [("weight", 8191, "sums could reach"), ("bias", 1 << 24, "sums could reach"), ("input_shift", 60, "exponents")])
def test_a_checkpoint_beyond_the_bound_is_refused(buffer, value, says, tmp_path, monkeypatch):
    """By zoo.load too, although its card describes the very file."""
    twin = copy.deepcopy(network("shvc-short-arib"))
    layer = next(layer for layer in twin.modules() if isinstance(layer, nn.ExactLayer) and layer.weight[0].numel() > 8)
    getattr(layer, buffer).view(-1)[0] = value
    if buffer == "weight":
        layer.weight[0] = value
    path = tmp_path / "shvc-short-arib.safetensors.xz"
    nn.save_exact(twin, path)
    card = {**zoo.card("shvc-short-arib"), "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}
    (tmp_path / "shvc-short-arib.json").write_text(json.dumps(card))
    monkeypatch.setattr(zoo, "FOLDER", tmp_path)
    with pytest.raises(InvalidInput, match=says):
        zoo.load("shvc-short-arib")
    path.write_bytes(lzma.compress(b"not a network"))
    (tmp_path / "shvc-short-arib.json").write_text(json.dumps({**card, "sha256": hashlib.sha256(path.read_bytes()).hexdigest()}))
    with pytest.raises(CorruptFile):
        zoo.load("shvc-short-arib")


if __name__ == "__main__":
    write_golden()

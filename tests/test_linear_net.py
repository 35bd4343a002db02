"""The model `linear-net`: lossless, in integers, begins as `linear` and learns what that leaves over."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from test_linear import SHAPES, picture
from test_shvc_exact import PROCESSORS, run_with_other_instructions

import shvc_lib
from shvc_lib import codec, coders, container_tiles, data, models, nn, recipes, train, zoo
from shvc_lib.coding import BitStack, independent, logistic
from shvc_lib.errors import InvalidInput, MissingData, UnsupportedImage
from shvc_lib.models import linear, linear_fit, linear_net, linear_net_inputs, linear_tune

SMALL = {"width": 8}
COFFEE = np.ascontiguousarray(data.photograph("coffee")[100:228, 200:328])
CAT = np.ascontiguousarray(data.photograph("chelsea")[100:165, 150:233])


@pytest.fixture(scope="module")
def twin():
    """An exact twin whose weights are random all over: nothing about it is near to `linear`."""
    torch.manual_seed(3)
    model = models.build("LinearNet", **SMALL).eval()
    with torch.no_grad():
        for head in model.heads:
            torch.nn.init.normal_(head[4].weight, std=0.2)
    return linear_net.exact_twin(model, COFFEE[None].repeat(3, 0))


def stream(net, image):
    stack = BitStack()
    linear_net.codec(net, image.shape).push(stack, image)
    return stack.to_bytes()


@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp", "checkerboard", "photograph"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] != 4])
def test_round_trip_from_any_stack(kind, shape, twin):
    image, stack = picture(kind, shape), BitStack.random(333, seed=1)
    before, own = stack.copy(), linear_net.codec(twin, shape)
    own.push(stack, image)
    assert stack.bits <= 333 + own.bits(image) + 64
    assert np.array_equal(own.pop(stack), image)
    assert stack == before


def test_every_step_chooses_and_may_choose_the_network(twin):
    """A network with random weights must not cost more than the choice among three ways, log2(3) bits a step, and where it helps it is used."""
    for net in (twin, zoo.load("linear-net")):
        own, plain = linear_net.codec(net, CAT.shape), linear.codec(CAT.shape)
        assert own.bits(CAT) <= plain.bits(CAT) + 1.59 * len(list(linear.steps(CAT.shape)))
    assert own.bits(CAT) < 0.99 * plain.bits(CAT)


@pytest.mark.parametrize("number, row, column", [(0, 1, 1), (1, 0, 1), (2, 1, 0)])
def test_what_the_network_sees_beyond_the_fit_is_known(number, row, column):
    """A pixel of a pass is known to later passes; to its own, what lies on the coarser grid or in earlier passes."""
    known = {(0, 0)} | {tuple(parity[:2]) for parity in linear.PASSES[:number]}
    offsets = linear.PASSES[number][2] + linear_net_inputs._WIDER[number]
    assert linear.PASSES[number][:2] == (row, column) and len(set(offsets)) == len(offsets)
    assert all(((row + dy) % 2, (column + dx) % 2) in known for dy, dx in offsets)


@pytest.mark.parametrize("way", ["float64", "int64", "bands", "two threads"])
def test_any_arithmetic_writes_and_reads_the_same_bytes(way, twin, monkeypatch):
    content = stream(twin, CAT)
    if way == "bands":
        monkeypatch.setattr(linear_net, "_BAND", 50)
        monkeypatch.setattr(linear, "_BAND", 70)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if way == "two threads" else 1)
    try:
        with nn.arithmetic(twin, way if way[-2:] == "64" else "float32"):
            assert stream(twin, CAT) == content
            assert np.array_equal(linear_net.codec(twin, CAT.shape).pop(BitStack.from_bytes(content)), CAT)
    finally:
        torch.set_num_threads(threads)


def test_floats_are_refused():
    with pytest.raises(InvalidInput, match="exact networks"):
        stream(models.build("LinearNet", **SMALL), CAT)


@pytest.mark.parametrize("lean", [False, True])
def test_inputs_are_small_integers_in_units_of_the_scale(lean):
    """Twice the contrast at twice the scale looks the same, but for the scale's logarithm and the mean."""
    step = next(s for s in linear.steps((16, 16, 3)) if s.stride == 1 and len(s.earlier) == 2)
    rng, canvas, double = np.random.default_rng(0), linear_net_inputs.NetCanvas((16, 16, 3)), linear_net_inputs.NetCanvas((16, 16, 3))
    canvas.pixels[:] = rng.integers(0, 100, canvas.pixels.shape)
    canvas.residuals[:] = rng.integers(-100, 100, canvas.pixels.shape)
    double.pixels, double.residuals = 2 * canvas.pixels, 2 * canvas.residuals
    means, scales = rng.integers(0, 1600, 64).astype(np.int32), np.full(64, 60, np.int32)  # ln 2 is 11.09 sixteenths
    own, other = canvas.inputs(step, means, scales, lean), double.inputs(step, 2 * means, scales + 11, lean)
    assert own.dtype == np.int32 and own.shape == (linear_net_inputs.size_of(0, 2, lean), 64) == (53 if lean else 69, 64)
    assert np.abs(own[:-3]).max() <= linear_net_inputs.INPUT_LIMIT and np.abs(own[:-3]).max() > 1 << linear_net_inputs.INPUT_BITS
    assert np.allclose(own[:-3], other[:-3], rtol=0.01, atol=1) and (other[-3] - own[-3] == 11 * 8).all() and (own[-1] == 0).all()


# --- training ---------------------------------------------------------------------------------------------------------------------------------

def test_it_begins_as_linear_and_learns():
    recipe = dataclasses.replace(recipes.get("linear-net"), arguments=SMALL, batch=2, steps=120, warmup=10, learning_rate=1e-2, data="photographs")
    run = train.Run(recipe)
    images = torch.from_numpy(np.stack([COFFEE[:64, :96], COFFEE[64:, :96]]))
    reports = [run.advance(images) for _ in range(recipe.steps)]
    gains = [report["linear"] - report["bits_per_dim"] for report in reports]
    assert abs(gains[0]) < 0.1 and np.mean(gains[-15:]) > np.mean(gains[:5]) + 0.03
    assert len(run.model._known) <= 4  # each image and its mirror image are fitted once


def test_its_loss_is_what_the_coder_pays(twin):
    """The training loss over all rows of the three finest levels against the integer tables' masses for the same symbols."""
    nats = bits = count = 0
    for draw in range(3 * linear_net_inputs.ROWS):
        for step, inputs, means, scales, symbols in twin.looked_at(torch.from_numpy(CAT).permute(2, 0, 1)[None], [draw]):
            nats += float(twin._nats(step, inputs, means, scales, symbols))
            canvas = twin._fitted(CAT)[0]
            bits += linear_net._mixture(linear_net._outputs(twin, canvas, step, means, scales), means, scales).bits(symbols).sum()
            count += symbols.size
    assert count > 0.95 * CAT.size and bits == pytest.approx(nats / np.log(2), rel=2e-3)


# --- tunings ----------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def green():
    """(step, outputs, means, scales, symbols) of the last and largest step of green under the shipped network."""
    net, canvas = zoo.load("linear-net"), linear_net_inputs.NetCanvas(COFFEE.shape)
    canvas.pixels[0, 0] = COFFEE[0, 0]
    for step, _, parameters, (means, classes), symbols in linear_fit.choices(COFFEE, canvas):
        if step.channel == 1 and step.stride == 1:
            scales = parameters.scales[classes]
            found = step, list(linear_net._outputs(net, canvas, step, means, scales)), means, scales, symbols
    return found


def test_what_a_tuning_adds():
    """Its first half to everything, its second half in proportion to the scale's logarithm: 4 nats are 64 scales; units of 1/16 against 2^-12."""
    outputs, scales = [np.arange(12).reshape(4, 3) * factor for factor in (1, 10, 100)], np.array([48, 112, 112, 0])
    assert all(map(np.array_equal, linear_net.tuned(outputs, scales, np.zeros(18, int)), outputs))
    tuning = np.zeros((2, 3, 3), dtype=int)
    tuning[0, 1, 2], tuning[1, 2, 0] = 16, -8
    a, b, logits = (new - old for new, old in zip(linear_net.tuned(outputs, scales, tuning.reshape(-1)), outputs))
    assert not a.any() and b.tolist() == [[0, 0, 4096]] * 4 and logits.tolist() == [[0, 0, 0], [-2048, 0, 0], [-2048, 0, 0], [1536, 0, 0]]


def test_a_tuning_finds_what_was_changed(green):
    """Symbols drawn with less noise than the network expects where the scale is small, and more where it is large."""
    step, outputs, means, scales, _ = green
    truth = np.zeros((2, 3, 3), dtype=int)
    truth[0, 1], truth[1, 1] = -8, 40
    cdf = linear_net._mixture(outputs, means, scales, truth.reshape(-1))
    symbols = BitStack.random(100_000, seed=2).pop(cdf, means.size)
    bits = [linear_net._mixture(outputs, means, scales, tuning).bits(symbols).sum() for tuning in (
        np.zeros(18, int), truth.reshape(-1), linear_tune.tune(outputs, means, scales, symbols))]
    assert bits[0] > 1.03 * bits[1] and bits[2] < 1.003 * bits[1]


def test_a_tuning_does_not_know_the_number_of_threads(green, monkeypatch):
    """Looked at to 2^-23: the same file whatever the threads must not be a matter of luck in rounding to 1/16."""
    outputs, (means, scales, symbols) = 20 * green[1], (np.tile(part, 20) for part in green[2:])
    for name, value in (("TUNING_BITS", 23), ("TUNING_LIMIT", 1 << 30), ("TUNING_SCALE", 1 << 21)):
        monkeypatch.setattr(linear_tune, name, value)
    threads, found = torch.get_num_threads(), []
    try:
        for number in (1, 2):
            torch.set_num_threads(number)
            found.append(linear_tune.tune(outputs, means, scales, symbols))
    finally:
        torch.set_num_threads(threads)
    assert np.array_equal(*found) and np.abs(found[0]).max() > 1 << 18


def test_a_step_takes_its_cheapest_way(green, monkeypatch):
    step, outputs, means, scales, symbols = green
    net = zoo.load("linear-net")
    monkeypatch.setattr(linear_tune, "_outputs", lambda *a: outputs)
    way, sent = linear_tune.ways(net, None, step, means, scales, symbols)
    ideal = [sum(codec.bits(values) for codec, values in own) for own in (
        [(independent(logistic(means, scales)), symbols)], [(independent(linear_net._mixture(outputs, means, scales)), symbols)], sent)]
    assert way == linear_net.TUNED and ideal[2] < ideal[1] < ideal[0] and len(sent) == 2


@pytest.mark.parametrize("way", range(3))
def test_every_way_and_any_tuning_comes_back(way, twin, monkeypatch):
    """Also the largest numbers that a stream can hold, as a hostile one may."""
    rng = np.random.default_rng(way)

    def forced(net, canvas, step, means, scales, symbols):
        tuning = rng.choice([-linear_net.TUNING_LIMIT, 0, linear_net.TUNING_LIMIT - 1], 18).astype(np.int32)
        outputs = list(linear_net._outputs(net, canvas, step, means, scales))
        cdfs = logistic(means, scales), linear_net._mixture(outputs, means, scales), linear_net._mixture(outputs, means, scales, tuning)
        return way, [(linear_net.tuning_codec(net), tuning)] * (way == linear_net.TUNED) + [(independent(cdfs[way]), symbols)]
    monkeypatch.setattr(linear_tune, "ways", forced)
    stack, own = BitStack(), linear_net.codec(twin, CAT.shape)
    own.push(stack, CAT)
    assert np.array_equal(own.pop(stack), CAT) and stack == BitStack()


# --- the codec --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(1, 1), (40, 30, 1), (37, 53, 3), (20, 33, 4)])
def test_files(shape):
    image = picture("photograph", (*shape, 1)[:3]).reshape(shape)
    file = shvc_lib.encode(image, "linear-net")
    assert np.array_equal(shvc_lib.decode(file), image) and shvc_lib.decode(file).shape == shape
    assert codec.info(file)["tiles"] == 1 and codec.info(file)["model"] in ("linear-net", "none")


def test_tiles_and_crops():
    file = shvc_lib.encode(COFFEE, "linear-net", tile=64)
    assert codec.info(file)["tiles"] == 4 and file == shvc_lib.encode(COFFEE, "linear-net", tile=64, workers=1)
    assert np.array_equal(shvc_lib.decode(file, crop=(50, 60, 20, 10)), COFFEE[60:70, 50:70])


def test_what_it_does_not_code_is_refused_by_name():
    with pytest.raises(UnsupportedImage, match="8-bit grey, RGB and RGBA"):
        shvc_lib.encode(COFFEE.astype(np.uint16), "linear-net")
    with pytest.raises(InvalidInput, match="one or three channels"):
        linear_net.codec(None, (4, 4, 4))
    with pytest.raises(InvalidInput, match="uint8 images of shape"):
        linear_net.codec(zoo.load("linear-net"), (4, 4, 3)).bits(np.zeros((4, 4, 1), np.uint8))
    with pytest.raises(InvalidInput, match="positive"):
        models.build("LinearNet", width=0)


@pytest.mark.parametrize("name", data.PHOTOGRAPHS)
def test_it_is_smaller_than_linear_on_each_photograph(name):
    """None of them was in its training set. Auto takes it where there are many pixels."""
    image = np.ascontiguousarray(data.photograph(name)[40:296, 40:296])
    sizes = {model: len(shvc_lib.encode(image, model)) for model in ("linear", "linear-net", coders.LEARNED)}
    assert sizes["linear-net"] < 0.995 * sizes["linear"] and sizes["linear-net"] < sizes[coders.LEARNED]
    assert len(shvc_lib.encode(image)) == min(sizes.values())
    fast = shvc_lib.encode(image, coders.FAST)
    assert sizes["linear-net"] < len(fast) < sizes["linear"] and np.array_equal(shvc_lib.decode(fast), image)


def test_what_the_exercise_of_chapter_7_says_of_cifar10():
    try:
        images = data.cifar10("test", 100)
    except MissingData as error:
        pytest.skip(str(error))
    rates = [8 * np.mean([len(shvc_lib.encode(image, model)) for image in images]) / 3072 for model in ("shvc-cifar10", "shvc-arib-cifar10", "linear-net")]
    text = (Path(__file__).parents[1] / "book" / "7_shvc" / "3_a_codec_in_practice.ipynb").read_text(encoding="utf-8")
    assert "with {:.2f} bits per sub-pixel, before ArIB's network with {:.2f} and `linear-net` with {:.2f}, whole files".format(*rates) in text


# --- golden -----------------------------------------------------------------------------------------------------------------------------------

GOLDEN = Path(__file__).parent / "golden" / "linear_net.shvc"
GOLDENS = {"linear-net": GOLDEN, "linear-net-fast": GOLDEN.with_name("linear_net_fast.shvc")}
OTHER = """
import sys
import test_expert_shvc as experts
from test_linear_net import CAT, GOLDEN, np, shvc_lib, torch
torch.set_num_threads(int(sys.argv[1]))
wrong = [not np.array_equal(shvc_lib.decode(file.read_bytes()), image) for file, image in ((GOLDEN, CAT), (experts.GOLDEN, experts.CUP))]
print(torch.backends.cpu.get_cpu_capability(), sys.argv[1], sum(wrong))
"""


def write_golden():
    for name, file in GOLDENS.items():
        file.write_bytes(shvc_lib.encode(CAT, name))


@pytest.mark.parametrize("name", GOLDENS)
def test_a_golden_file_is_read_in_every_arithmetic(name):
    """The format is a promise, and so are the network's numbers. It holds fits, and parts coded in each of the three ways."""
    file = GOLDENS[name].read_bytes()
    assert codec.info(file)["revision"] == coders.get(name).revision, "other weights than when tests/golden was written: write it anew"
    for arithmetic in ("float32", "float64", "int64"):
        with nn.arithmetic(zoo.load(name), arithmetic) as net:
            stack = BitStack.from_bytes(container_tiles.unpack(file).tiles[0].payload)
            assert np.array_equal(linear_net.codec(net, CAT.shape).pop(stack), CAT) and stack == BitStack()


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_process_with_other_instructions_reads_it(processor):
    run_with_other_instructions(OTHER, processor)

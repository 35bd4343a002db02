"""The model `SubsampledSHVC`: lossless, in integers, and what a pass looks at is known to the decoder."""

import copy
import dataclasses
import math
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import pytest
import torch
from conditions import MORE_WAYS
from test_linear import picture
from test_shvc_exact import PROCESSORS, run_with_other_instructions

import shvc_lib
from shvc_lib import coders, container_small, data, models, nn, recipes, train, zoo
from shvc_lib.coding import BitStack, Uniform, logistic_mixture
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import CorruptFile, InvalidInput
from shvc_lib.models import shvc_chain, shvc_codec, subsampled, subsampled_codec

torch.set_num_threads(1)
pytestmark = pytest.mark.filterwarnings("ignore:TF32 acceleration")  # torch says so whenever oneDNN is switched
SMALL = {"width": 8, "layers": 1}
COFFEE = np.ascontiguousarray(data.photograph("coffee")[100:228, 200:328])
CAT = np.ascontiguousarray(data.photograph("chelsea")[100:165, 150:233])
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 3), (5, 17), (33, 31), (64, 48)]
LATTICES = [(1, 6), (5, 1), (2, 2), (2, 7), (6, 3), (3, 3), (7, 8)]


@pytest.fixture(scope="module")
def model():
    """Random weights in the last layers too, so that offsets, scales, logits and factors differ from pixel to pixel."""
    torch.manual_seed(3)
    model = models.build("SubsampledSHVC", **SMALL).eval()
    with torch.no_grad():
        for network in model.passes:
            torch.nn.init.normal_(network.last.weight, std=0.2)
            network.last.bias += 0.2 * torch.randn(network.last.bias.shape)
    return model


@pytest.fixture(scope="module")
def twin(model):
    return subsampled_codec.exact_twin(model, COFFEE[None])


def stream(net, image):
    stack = BitStack()
    subsampled_codec.codec(net, image.shape).push(stack, image)
    return stack.to_bytes()


def comes_back(net, content, image):
    """Whether a stream holds the image and nothing else."""
    stack = BitStack.from_bytes(content)
    return np.array_equal(subsampled_codec.codec(net, image.shape).pop(stack), image) and stack == BitStack()


def random_lattice(shape, seed=0, low=0, high=256):
    return torch.from_numpy(np.random.default_rng(seed).integers(low, high, (1, *shape, 3), dtype=np.int32))


def bits_of(net, image):
    """(all bits, {part: bits per sub-pixel}) by the training loss."""
    with torch.no_grad():
        total, parts = net.loss(torch.from_numpy(image).permute(2, 0, 1)[None], [])
    return float(total) * image.size, {name: float(value) for name, value in parts.items()}


@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp", "photograph"])
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_from_any_stack(kind, shape, twin):
    image, stack = picture(kind, (*shape, 3)), BitStack.random(333, seed=1)
    before, own = stack.copy(), subsampled_codec.codec(twin, image.shape)
    own.push(stack, image)
    assert stack.bits <= 333 + own.bits(image) + 64
    popped = own.pop(stack)
    assert popped.dtype == np.uint8 and np.array_equal(popped, image)
    assert stack == before


# --- what a pass sees -------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("number, row, column", [(0, 1, 1), (1, 0, 1), (2, 1, 0)])
def test_neighbours_are_known_and_the_nearest(number, row, column):
    """(even, even) is known, and the sub-blocks of earlier passes: from (0, 1) the other (0, 1) are an even number of rows and columns away, and unknown."""
    known = [{(1, 1)}, {(0, 1), (1, 0)}, {(1, 0), (0, 1), (1, 1)}][number]  # parities of the offsets
    offsets, square = subsampled.neighbours(number), [(y, x) for y in range(-5, 6) for x in range(-5, 6)]
    assert subsampled.PASSES[number] == (row, column) and len(set(offsets)) == len(offsets) == subsampled.NEIGHBOURS[number]
    assert all((y % 2, x % 2) in known and max(abs(y), abs(x)) <= subsampled.REACH for y, x in offsets)
    distances = [y * y + x * x for y, x in offsets]
    assert distances == sorted(y * y + x * x for y, x in square if (y % 2, x % 2) in known)[:len(offsets)]


@pytest.mark.parametrize("shape, number", [
    (shape, number) for shape in LATTICES for number, first in enumerate(subsampled.PASSES) if first[0] < shape[0] and first[1] < shape[1]])
def test_what_is_unknown_changes_nothing_and_what_is_known_does(shape, number):
    lattice, other = random_lattice(shape), random_lattice(shape, seed=1)
    unknown = torch.zeros(shape, dtype=torch.bool)
    for row, column in subsampled.PASSES[number:]:
        unknown[row::2, column::2] = True
    row, column = subsampled.PASSES[number]
    count = len(range(row, shape[0], 2)) * len(range(column, shape[1], 2))

    def seen(pixels):
        return torch.cat(subsampled.surroundings(pixels, number, 0), 1)
    changed = torch.where(unknown[..., None], other, lattice)
    before = seen(subsampled._known(lattice, number))
    assert torch.equal(seen(subsampled._known(changed, number)), before) and before.shape == (count, subsampled.inputs_of(number) + 3 + 1)
    assert torch.equal(seen(changed), before) and torch.equal(seen(lattice), before)
    for y, x in (~unknown).nonzero().tolist():
        changed = lattice.clone()
        changed[:, y, x] = (changed[:, y, x] + 128) % 256
        assert not torch.equal(seen(subsampled._known(changed, number)), before), f"nobody looks at {(y, x)}"


@pytest.mark.parametrize("shape", [(1, 9), (9, 1), (2, 5), (3, 4), (11, 6), (20, 34)])
def test_encoder_decoder_and_training_see_the_same(shape, twin, monkeypatch):
    """The codec looks at a canvas on which what is unknown is 0, level by level from the coarsest, and training at all that `_known` leaves."""
    image, looks = picture("photograph", (*shape, 3)), []

    def watched(lattice, number, level, *part):
        looks.append((level, number, subsampled.surroundings(lattice, number, level, *part)))
        return looks[-1][2]
    monkeypatch.setattr(subsampled_codec, "surroundings", watched)
    stack, own = BitStack(), subsampled_codec.codec(twin, image.shape)
    own.push(stack, image)
    encoder = looks.copy()
    looks.clear()
    own.pop(stack)
    order = [(level, number) for level in range(8, -1, -1) for number, (row, column) in enumerate(subsampled.PASSES)
             if row << level < shape[0] and column << level < shape[1]]
    assert [look[:2] for look in encoder] == [look[:2] for look in looks] == order
    for level, number, found in encoder + looks:
        lattice = torch.from_numpy(image[None, ::1 << level, ::1 << level]).int()
        expected = subsampled.surroundings(subsampled._known(lattice, number), number, level)
        assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("length", range(1, 10))
def test_mirroring_keeps_parity_and_stays_inside(length):
    """As often as it takes. A single pixel is its own mirror image."""
    positions = torch.arange(-12, 21)
    mirrored = subsampled._mirrored(positions, length).numpy()
    assert mirrored.min() >= 0 and mirrored.max() < length
    assert length == 1 or np.array_equal(mirrored % 2, positions.numpy() % 2)
    assert np.array_equal(mirrored, np.pad(np.arange(length), (12, 21 - length), mode="reflect"))


def test_thresholds_lie_halfway_between_scales():
    """In the logarithm: a sum of 48 distances in 1/16 level on a threshold has still the smaller index, one more has the larger."""
    thresholds = subsampled._thresholds()
    assert thresholds.dtype == torch.int32 and len(thresholds) == subsampled.LARGEST - subsampled.SMALLEST and (thresholds.diff() > 0).all()
    below, above = (torch.searchsorted(thresholds, thresholds + more).numpy() for more in (0, 1))
    assert np.array_equal(below, np.arange(len(thresholds))) and np.array_equal(above, below + 1)
    middle = np.exp((subsampled.SMALLEST + below + 0.5 - 48) / 16) * 48 * 16
    assert (np.abs(thresholds.numpy() + 0.5 - middle) < 0.51 + 2e-5 * middle).all()  # integers, from scales with some five digits


@pytest.mark.parametrize("number", range(3))
def test_a_scale_is_the_one_nearest_to_the_mean_distance(number):
    """Far from the borders, from nothing (clamped to the smallest) over what pixels can be to what they cannot (clamped to the largest)."""
    found = []
    for seed, contrast in enumerate([1, 2, 3, 5, 10, 20, 40, 80, 160, 256, 4000]):
        lattice = random_lattice((16, 16), seed, 0, contrast)
        inputs, means, scales = subsampled.surroundings(lattice, number, 0)
        row, column = subsampled.PASSES[number]
        for p, (y, x) in enumerate((y, x) for y in range(row, 16, 2) for x in range(column, 16, 2)):
            if min(y, x) >= 5 and max(y, x) < 11:
                near = np.array([lattice[0, y + dy, x + dx].numpy() for dy, dx in subsampled.neighbours(number)[:16]], dtype=float)
                mean = near[:4].mean(0)
                distance = max(np.abs(near - mean).mean(), 1e-9)
                index = np.clip(48 + 16 * np.log(distance), subsampled.SMALLEST, subsampled.LARGEST)
                assert np.array_equal(means[p], 16 * mean) and abs(scales[p, 0] - index) < 0.51
                found.append(int(scales[p, 0]))
    assert min(found) == subsampled.SMALLEST and max(found) == subsampled.LARGEST and len(set(found)) > 30


@pytest.mark.parametrize("number", range(3))
def test_inputs_are_small_integers_in_units_of_the_scale(number):
    """Twice the contrast looks the same, but for the scale's logarithm and the mean; brighter looks the same but for the mean."""
    rng, distances = np.random.default_rng(1), 3 * (subsampled.NEIGHBOURS[number] + 1)
    lattice = torch.from_numpy((15 * rng.standard_t(3, (1, 16, 16, 3))).round().clip(-90, 90).astype(np.int32))  # edges among flat parts
    own, means, scales = subsampled.surroundings(100 + lattice, number, 1)
    double, double_means, double_scales = subsampled.surroundings(100 + 2 * lattice, number, 1)
    assert own.dtype == means.dtype == torch.int32 and own.shape == (64, subsampled.inputs_of(number)) == (64, distances + 5)
    assert own.abs().max() <= subsampled.INPUT_LIMIT and own[:, :distances].abs().max() > 4 << subsampled.INPUT_BITS
    assert torch.equal(double_means - 1600, 2 * (means - 1600))
    own, double = own.numpy(), double.numpy()
    up = (double_scales - scales).numpy()  # ln 2 is 11.09 sixteenths
    assert 11 <= up.min() and up.max() <= 12 and (up == 11).sum() > 48
    assert np.allclose(own[up[:, 0] == 11, :distances], double[up[:, 0] == 11, :distances], rtol=0.02, atol=2)
    assert np.allclose(own[:, :distances] * (2 * np.exp(-up / 16)), double[:, :distances], rtol=0.01, atol=2)
    assert np.array_equal((double - own)[:, -2:], np.hstack([8 * up, 0 * up]))  # of 128ths of a unit
    brighter = subsampled.surroundings(137 + lattice, number, 1)
    assert torch.equal(brighter[1], means + 16 * 37) and torch.equal(brighter[2], scales)
    more = brighter[0].numpy() - own
    assert (more[:, distances:distances + 3] == 37).all() and not more[:, :distances].any() and not more[:, distances + 3:].any()


def test_inputs_are_limited_and_levels_are_alike_from_the_fourth_on():
    lattice = torch.full((1, 12, 12, 3), 7, dtype=torch.int32)
    lattice[:, 10, 10] = 255  # seen by pixels next to which all is flat
    inputs = subsampled.surroundings(lattice, 0, 0)[0]
    assert inputs.max() == subsampled.INPUT_LIMIT == 12 << subsampled.INPUT_BITS
    assert subsampled.surroundings(255 - lattice, 0, 0)[0].min() == -subsampled.INPUT_LIMIT
    levels = [subsampled.surroundings(lattice, 0, level)[0] for level in range(7)]
    assert [int(seen[0, -1]) for seen in levels] == [0, 64, 128, 192, 256, 256, 256]
    assert all(torch.equal(seen[:, :-1], inputs[:, :-1]) for seen in levels)


# --- the codec --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape", [(5, 17), (33, 31), (64, 48), (1, 64), (40, 3)])
def test_its_loss_is_what_the_coder_pays(shape, twin):
    image = np.ascontiguousarray(COFFEE[:shape[0], :shape[1]])
    assert subsampled_codec.codec(twin, image.shape).bits(image) == pytest.approx(bits_of(twin, image)[0], rel=2e-3)


def test_exactness_and_rounding_cost_little(model, twin):
    """The float network's loss, the same rounded, and its exact twin: a third way to the same number."""
    floats, rounded = bits_of(model, CAT)[0], subsampled_codec.codec(nn.float_twin(model), CAT.shape).bits(CAT)
    assert rounded == pytest.approx(floats, rel=2e-3) and subsampled_codec.codec(twin, CAT.shape).bits(CAT) == pytest.approx(floats, rel=1e-2)


@pytest.mark.parametrize("shape, levels", [((1, 1), 0), ((2, 1), 1), ((5, 17), 5), ((32, 32), 5)])
def test_parts_of_the_loss_sum_to_it_and_the_corner_costs_eight_bits(shape, levels, twin):
    image = np.ascontiguousarray(COFFEE[:shape[0], :shape[1]])
    total, parts = bits_of(twin, image)
    assert list(parts) == ["x", "z1", "z2", "z3", "z4", "z5"][:levels + 1]
    assert sum(parts.values()) * image.size == pytest.approx(total, rel=1e-5)
    assert list(parts.values())[-1] * image.size == pytest.approx(24, rel=1e-6)
    for level, part in enumerate(list(parts.values())[:-1]):
        with torch.no_grad():
            nats = twin.nats(torch.from_numpy(image[None, ::1 << level, ::1 << level]).int(), level)
        assert part * image.size == pytest.approx(float(nats) / np.log(2), rel=1e-5)


@pytest.mark.parametrize("shape, band", [((1, 5), 7), ((9, 14), 7), ((16, 16), 40), ((16, 16), 1 << 14)])
def test_a_batch_writes_and_reads_each_image_as_if_it_were_alone(shape, band, twin, monkeypatch):
    """Also where the network sees few pixels at a time: rows of all images, or parts of a row."""
    images = np.stack([picture(kind, (*shape, 3)) for kind in ("photograph", "noise", "black", "ramp", "white")])
    single, batch = subsampled_codec.codec(twin, images.shape[1:]), subsampled_codec.codec(twin, images.shape)
    alone, lanes = [BitStack.random(100 * i, seed=i) for i in range(5)], Lanes([BitStack.random(100 * i, seed=i) for i in range(5)])
    before = lanes.copy()
    for stack, image in zip(alone, images):
        single.push(stack, image)
    monkeypatch.setattr(subsampled_codec, "_BAND", band)
    batch.push(lanes, images)
    assert lanes == Lanes(alone) and batch.bits(images) == pytest.approx(sum(map(single.bits, images)))
    assert np.array_equal(batch.pop(lanes), images) and lanes == before


def test_what_it_does_not_code_is_refused(twin):
    own, image, stack = subsampled_codec.codec(twin, (5, 4, 3)), COFFEE[:5, :4], BitStack.random(999, seed=1)
    before, batch = stack.copy(), subsampled_codec.codec(twin, (2, 5, 4, 3))
    for wrong in (image.astype(np.int32), image[:, :3], image[..., :1], image[None], np.dstack([image, image[..., :1]])):
        for way in (own.bits, lambda wrong: own.push(stack, wrong)):
            with pytest.raises(InvalidInput, match=r"uint8 of shape \(5, 4, 3\)"):
                way(wrong)
    for way in (lambda: batch.push(stack, np.stack([image, image])), lambda: batch.pop(stack)):
        with pytest.raises(InvalidInput, match="a stack for each"):
            way()
    for shape in ((5, 4), (5, 4, 1), (5, 4, 4), (0, 4, 3), (5, 0, 3), (0, 5, 4, 3), (1, 1, 5, 4, 3)):
        with pytest.raises(InvalidInput, match="one image"):
            subsampled_codec.codec(twin, shape)
    assert stack == before


def test_a_batch_of_one_may_lie_on_a_stack(twin):
    stack, own, image = BitStack(), subsampled_codec.codec(twin, (1, 6, 7, 3)), np.ascontiguousarray(COFFEE[:6, :7])
    own.push(stack, image[None])
    assert stack.to_bytes() == stream(twin, image) and np.array_equal(own.pop(stack), image[None])


def test_other_modules_take_it_for_an_shvc(twin):
    """`shvc_codec` knows it; no side needs padding; an odd image is coded as it is."""
    images = np.stack([COFFEE[:5, :7], CAT[:5, :7]])
    streams = [stream(twin, np.ascontiguousarray(image)) for image in images]
    assert (twin.deterministic, twin.split, twin.ks, twin.unit) == (True, 4, (2,), 1)
    for own in (shvc_codec.codec(twin, images.shape), shvc_chain.any_size(twin, images.shape)):
        lanes = Lanes([BitStack(), BitStack()])
        own.push(lanes, images)
        assert [stack.to_bytes() for stack in lanes.stacks] == streams
        assert np.array_equal(own.pop(lanes), images) and lanes == Lanes([BitStack(), BitStack()])


@pytest.mark.parametrize("argument", ["width", "layers", "components"])
def test_bad_arguments_are_refused(argument):
    with pytest.raises(InvalidInput, match="positive"):
        models.build("SubsampledSHVC", **{**SMALL, argument: 0})


# --- exactness --------------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def saved(twin, tmp_path_factory):
    """A folder with the network in integers, and what it made of CAT."""
    folder = tmp_path_factory.mktemp("subsampled")
    nn.save_exact(twin, folder / "twin.safetensors.xz")
    (folder / "cat.bits").write_bytes(stream(twin, CAT))
    return folder


@pytest.mark.parametrize("way", ["bands", *(way for way in MORE_WAYS if way != "channels last")])
def test_any_arithmetic_writes_and_reads_the_same_bytes(way, twin, saved, monkeypatch):
    content = (saved / "cat.bits").read_bytes()
    if way == "bands":
        monkeypatch.setattr(subsampled_codec, "_BAND", 50)
    with MORE_WAYS.get(way, nullcontext)(twin) as net:
        assert stream(net, CAT) == content and comes_back(net, content, CAT)


OTHER = """
import sys
from pathlib import Path
from test_subsampled import CAT, SMALL, comes_back, models, nn, stream, torch
torch.set_num_threads(int(sys.argv[1]))
content = (Path(folder) / "cat.bits").read_bytes()
twin = nn.load_exact(models.build("SubsampledSHVC", **SMALL), Path(folder) / "twin.safetensors.xz")
print(torch.backends.cpu.get_cpu_capability(), torch.get_num_threads(), int(stream(twin, CAT) != content or not comes_back(twin, content, CAT)))
"""


@pytest.mark.parametrize("processor", PROCESSORS)
def test_a_process_with_other_instructions_writes_and_reads_them(processor, saved):
    run_with_other_instructions(f"folder = {str(saved)!r}\n{OTHER}", processor)


def test_floats_are_refused(model):
    with pytest.raises(InvalidInput, match="exact networks"):
        stream(model, CAT)


def test_its_integers_are_kept_and_bounded(twin, saved):
    other = nn.load_exact(models.build("SubsampledSHVC", **SMALL), saved / "twin.safetensors.xz")
    assert (saved / "cat.bits").read_bytes() == stream(other, CAT)
    layers = [layer for layer in other.modules() if isinstance(layer, nn.ExactLayer)]
    assert len(layers) == 3 * 3
    for layer in layers:
        layer.check()
        worst = (layer.weight.long().abs().sum(1) * 2048 + layer.bias.long().abs()).max()
        assert layer.weight.dtype == torch.int16 and 0 < layer.weight.abs().max() < 1 << 13 and 1 << 20 < worst < 1 << 24
    for wrong in ({"width": 9, "layers": 1}, {"width": 8, "layers": 2}, {**SMALL, "components": 4}):
        with pytest.raises(InvalidInput, match="another architecture"):
            nn.load_exact(models.build("SubsampledSHVC", **wrong), saved / "twin.safetensors.xz")


# --- the same, slowly -------------------------------------------------------------------------------------------------------------------------

def mirror(position, length):
    while length > 1 and not 0 <= position < length:
        position = -position if position < 0 else 2 * (length - 1) - position
    return position if length > 1 else 0


def inverse(index):
    """2^23 / scale."""
    return round(2**23 * math.exp((48 - index) / 16))


def look(seen, level):
    """From the neighbours' colours to (the network's inputs, means in 1/16 level, the scale's index)."""
    means = [4 * sum(pixel[colour] for pixel in seen[:4]) for colour in range(3)]
    away = [[16 * pixel[colour] - means[colour] for pixel in seen] for colour in range(3)]
    spreads = [sum(map(abs, distances[:16])) for distances in away]
    index = min(max(round(48 + 16 * math.log(max(sum(spreads), 1) / (16 * 48))), 42), 136)
    values = [value for distances in away for value in distances] + [spread // 16 for spread in spreads]
    units = [(value * (inverse(index) >> 9) + 2**10) // 2**11 for value in values]
    facts = [mean // 16 - 128 for mean in means] + [8 * (index - 80), 64 * min(level, 4)]
    return [min(max(value, -1536), 1536) for value in units + facts], means, index


def mix(centres, index, offsets, log_scales, logits):
    """The mixture of one colour of one pixel, from integers of 2^-12."""
    means = [centre + (offset * (2**35 // inverse(index)) >> 12) + 128 >> 8 for centre, offset in zip(centres, offsets)]
    scales = [min(max(index + (value + 128 >> 8), 0), 191) for value in log_scales]
    masses = [round(2**24 * math.exp(-step / 64)) if step <= 14 * 64 else 0 for step in (max(logits) - value + 32 >> 6 for value in logits)]
    weights = [4096 * mass // sum(masses) for mass in masses]
    for k in sorted(range(len(masses)), key=lambda k: -(4096 * masses[k] % sum(masses)))[:4096 - sum(weights)]:
        weights[k] += 1
    return logistic_mixture(*(np.array([values]) for values in (means, scales, weights)))


def slowly(twin, stack, height, width):
    """Pixel by pixel, from what the module's docstrings say: a list of rows of pixels."""
    image = [[[0, 0, 0] for _ in range(width)] for _ in range(height)]
    image[0][0] = stack.pop(Uniform(256), 3).tolist()
    for level in (level for level in range(9, -1, -1) if 2**level < max(height, width)):
        lattice = [row[::2**level] for row in image[::2**level]]  # the pixels are lists: the image's own
        known, (rows, columns) = {(0, 0)}, (len(lattice), len(lattice[0]))
        for number, (row, column) in enumerate([(1, 1), (0, 1), (1, 0)]):
            offsets = sorted((dy * dy + dx * dx, dy, dx) for dy in range(-5, 6) for dx in range(-5, 6) if ((row + dy) % 2, (column + dx) % 2) in known)
            offsets, places, looks = offsets[:36 if number == 0 else 40], [(y, x) for y in range(row, rows, 2) for x in range(column, columns, 2)], []
            for y, x in places:
                around = [(y + dy, x + dx) for _, dy, dx in offsets]
                if rows == 1:  # those in odd rows, of which there are none, are looked for one to the right or left
                    around = [(0, there if there % 2 == 0 else there + (1 if place > 0 else -1)) for place, there in around]
                if columns == 1:
                    around = [(there if there % 2 == 0 else there + (1 if place > 0 else -1), 0) for there, place in around]
                inputs, means, index = look([lattice[mirror(place, rows)][mirror(there, columns)] for place, there in around], level)
                looks.append((means, index, *((values[0] * 4096).long().tolist() for values in twin(number, torch.tensor([inputs], dtype=torch.int32)))))
            for c, colour in enumerate([1, 0, 2]):  # green, red, blue
                for (y, x), (means, index, alpha, log_scales, logits, beta) in zip(places, looks):
                    centres, residuals = [256 * means[colour]] * len(alpha[c]), [16 * lattice[y][x][i] - means[i] for i in (1, 0)]
                    for factors, value in zip(([], beta[:1], beta[1:])[c], residuals):
                        centres = [centre + (factor * value >> 4) for centre, factor in zip(centres, factors)]
                    cdf = mix(centres, index, alpha[c], log_scales[c], logits[c])
                    lattice[y][x][colour] = int(stack.pop(cdf)[0])
            known.add((row, column))
    return image


@pytest.mark.parametrize("shape", [(1, 9), (9, 1)])
def test_a_single_row_or_column_of_grey_is_expected_to_stay_grey(shape):
    number = 1 if shape[0] == 1 else 2
    _, means, scales = subsampled.surroundings(subsampled._known(torch.full((1, *shape, 3), 200, dtype=torch.int32), number), number, 0)
    assert len(means) == 4 and (means == 16 * 200).all() and (scales == subsampled.SMALLEST).all()


@pytest.mark.parametrize("shape", [(6, 5), (35, 2), (2, 11)])
def test_a_slow_decoder_reads_the_same_pixels(shape, twin):
    """Without a line of the model's code but the networks, in integers. (35, 2): more levels than they tell apart, and one column at all but the last."""
    image, stack = np.ascontiguousarray(CAT[:shape[0], :shape[1]]), BitStack.random(500, seed=5)
    before = stack.copy()
    subsampled_codec.codec(twin, image.shape).push(stack, image)
    with nn.arithmetic(twin, "int64"):
        assert slowly(twin, stack, *shape) == image.tolist() and stack == before


# --- training ---------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("bfloat", [False, True])
def test_it_learns(bfloat):
    """Against the network as it was, on the same images: crops differ far more from one another than thirty steps achieve."""
    recipe = dataclasses.replace(recipes.get("shvc-pixels-cifar10"), arguments={**SMALL, "bfloat": bfloat}, batch=4, steps=30, warmup=5, data="photographs", crop=16)
    run, images = train.Run(recipe), torch.from_numpy(data.patches([COFFEE], 24, 64, seed=0))
    assert run.model.noise(4, torch.Generator(), 16) == []
    before, gains = copy.deepcopy(run.model), []
    for step in range(recipe.steps):
        with torch.no_grad():
            rate, _ = before.loss(train.batch_at(recipe, images, step), [])
        gains.append(float(rate) - run.advance(images)["bits_per_dim"])
    assert abs(gains[0]) < 1e-3 and np.mean(gains[-10:]) > 0.3


def test_bfloat_is_for_training_alone(model):
    other, inputs = models.build("SubsampledSHVC", **SMALL, bfloat=True), subsampled.surroundings(torch.from_numpy(COFFEE[None, :32, :32]).int(), 0, 0)[0]
    other.load_state_dict(model.state_dict())
    with torch.no_grad():
        trained, used, expected = (torch.stack(way()(0, inputs)[:3]) for way in (other.train, other.eval, model.eval))
    assert torch.equal(used, expected) and trained.dtype == torch.float32
    assert 0 < (trained - expected).abs().max() and torch.allclose(trained, expected, rtol=0.05, atol=0.1)


def test_a_new_network_predicts_around_the_mean():
    """Mixtures around the mean of the nearest, narrower ones and wider ones, at a cost below that of the pixels."""
    torch.manual_seed(0)
    new = models.build("SubsampledSHVC", width=8, layers=1, components=3).eval()
    inputs = subsampled.surroundings(torch.from_numpy(COFFEE[None, :32, :32]).int(), 0, 0)[0]
    with torch.no_grad():
        offsets, log_scales, logits, factors = new(0, inputs)
    assert offsets.shape == log_scales.shape == logits.shape == factors.shape == (256, 3, 3)
    assert (log_scales.mean((0, 1)) - torch.tensor([-1, -0.15, 0.7])).abs().max() < 0.2 and max(x.mean().abs() for x in (offsets, logits, factors)) < 0.2
    assert 3 < bits_of(new, COFFEE)[0] / COFFEE.size < 6


def test_loud_channels_are_calmed_and_nothing_changes(model):
    """Channels far below zero, where ReLU shuts them, and far above it: more than an exact layer can return."""
    loud = copy.deepcopy(model)
    with torch.no_grad():
        for network in loud.passes:
            network.first.bias[0], network.layers[0].bias[1], network.first.bias[2] = -3000.0, -300.0, 500.0
            network.last.weight[:, 2] = 0.0
    lattice, before = torch.from_numpy(COFFEE[None, :16, :16]).int(), copy.deepcopy(loud.state_dict())
    twin = subsampled_codec.exact_twin(loud, COFFEE[None])  # would refuse outputs of 256 and more
    assert all(torch.equal(value, before[name]) for name, value in loud.state_dict().items())
    calm = copy.deepcopy(loud)
    for number, network in enumerate(calm.passes):
        inputs = subsampled.surroundings(lattice, number, 0)[0]
        subsampled_codec._calm(network, inputs.float() / 128)
        hidden = network.first(inputs.float() / 128)
        assert max(hidden.abs().max(), network.layers[0](hidden.relu()).abs().max()) <= 128
        assert all(torch.equal(own, other) for own, other in zip(calm(number, inputs), loud(number, inputs)))
    tensor = torch.from_numpy(CAT[None]).permute(0, 3, 1, 2)
    with torch.no_grad():
        assert float(twin.loss(tensor, [])[0]) == pytest.approx(float(loud.loss(tensor, [])[0]), rel=0.01)


# --- golden -----------------------------------------------------------------------------------------------------------------------------------

GOLDEN = {name: Path(__file__).parent / "golden" / file for name, file in (("shvc-pixels-cifar10", "shvc_pixels.shvc"), ("shvc-cifar10", "shvc_cifar10.shvc"))}


def golden_image():
    return np.ascontiguousarray(CAT[:29, 10:46])


def write_golden(name):
    header = container_small.header(name, golden_image().shape, 0 if name == "shvc-pixels-cifar10" else 3)
    GOLDEN[name].write_bytes(header + coders.small_stream(header, coders.get(name), golden_image(), container_small.unpack(header).draw))


@pytest.mark.parametrize("name", GOLDEN)
def test_a_golden_file_is_read_in_every_arithmetic_and_written_again(name):
    """The format is a promise, and so are the networks' numbers. One of the files is from before images were turned, and is as it is; the other is turned."""
    content, image, coder = GOLDEN[name].read_bytes(), golden_image(), coders.get(name)
    parts = container_small.unpack(content)
    assert parts.model == name and len(parts.header) == 5 and (parts.draw == 0) == (name == "shvc-pixels-cifar10")
    assert parts.header + coders.small_stream(parts.header, coder, image, parts.draw) == content, "other weights than when tests/golden was written"
    assert np.array_equal(shvc_lib.decode(content), image) and len(shvc_lib.encode(image, name)) <= len(content) < 0.55 * image.size
    for arithmetic in ("float32", "float64", "int64"):
        with nn.arithmetic(zoo.load(name), arithmetic) as net:
            stack = BitStack.from_bytes(parts.payload)
            assert np.array_equal(coders.turned(subsampled_codec.codec(net, image.shape).pop(stack), parts.draw), image)
            assert stack == coders.small_start(parts.header, coder, image)[0]


@pytest.mark.parametrize("name", GOLDEN)
def test_a_slow_decoder_reads_the_golden_file(name):
    parts = container_small.unpack(GOLDEN[name].read_bytes())
    with nn.arithmetic(zoo.load(name), "int64") as net:
        pixels = np.array(slowly(net, BitStack.from_bytes(parts.payload), 29, 36))
    assert np.array_equal(pixels[::-1 if parts.draw // 2 else 1, ::-1 if parts.draw % 2 else 1], golden_image())


# --- turned -----------------------------------------------------------------------------------------------------------------------------------

def test_turning_twice_is_nothing():
    pixels = CAT[:3, :5]
    for draw in container_small.DRAWS:
        once = coders.turned(pixels, draw)
        assert np.array_equal(coders.turned(once, draw), pixels) and once.flags.c_contiguous
        assert np.array_equal(once, [pixels, np.fliplr(pixels), np.flipud(pixels), np.rot90(pixels, 2)][draw])


@pytest.mark.parametrize("shape", [(1, 1, 3), (7, 5, 3), (32, 32, 3), (16, 30, 4)])
def test_the_shortest_of_four_ways_to_turn_an_image_is_kept(shape):
    """Every one of them can be read, the one that is written is the shortest, and another number in the header is noticed."""
    name, image = "shvc-pixels-cifar10", np.ascontiguousarray(np.concatenate([CAT, COFFEE[:CAT.shape[0], :CAT.shape[1], :1]], 2)[10:10 + shape[0], 20:20 + shape[1], :shape[2]])
    files = []
    for draw in container_small.DRAWS:
        header = container_small.header(name, shape, draw)
        files.append(header + coders.small_stream(header, coders.get(name), image, draw))
        assert np.array_equal(shvc_lib.decode(files[-1]), image)
        changed = bytes([*files[-1][:2], files[-1][2] ^ 64, *files[-1][3:]])
        with pytest.raises(CorruptFile):
            shvc_lib.decode(changed)
    assert shvc_lib.encode(image, name) == min(files, key=len) or len(min(files, key=len)) > image.size
    if shape == (32, 32, 3):
        assert len({len(file) for file in files}) > 1

"""The model `shvc-photo`: experts that travel with the image, latents that choose among them, and what bits-back coding makes of both."""

from pathlib import Path

import numpy as np
import pytest
import torch
from test_linear import SHAPES, picture

import shvc_lib
from shvc_lib import codec, coders, container_small, container_tiles, data, models, nn, zoo
from shvc_lib.coding import BitStack, ahead, bitstack, independent, logistic
from shvc_lib.errors import CorruptFile, InvalidInput, ShvcError
from shvc_lib.models import expert_compiled, expert_fit, expert_shvc, experts, linear, linear_fit, linear_net, linear_net_inputs
from shvc_lib.nn.exact_layer import REACH, SUM_LIMIT

NAME = "shvc-photo"
CAT = np.ascontiguousarray(data.photograph("chelsea")[60:172, 130:229])  # no multiple of anything
CUP = np.ascontiguousarray(data.photograph("coffee")[100:292, 200:392])


@pytest.fixture(scope="module")
def twin():
    """An exact twin whose weights are random all over: far from `linear`, so that experts have much to say."""
    torch.manual_seed(3)
    model = models.build("ExpertSHVC", width=6).eval()
    with torch.no_grad():
        for head in model.heads:
            torch.nn.init.normal_(head[4].weight, std=0.1)
    return linear_net.exact_twin(model, data.photograph("coffee")[None, 100:228, 200:328].repeat(3, 0))


def make_eager(patch):
    """Experts for the smallest images, whether they pay or not."""
    def sent(net, samples, own, posterior, context, before, share):
        return rounded(net, samples, own, posterior, context, np.inf, share)

    rounded = expert_fit._rounded
    patch.setattr(expert_fit, "_rounded", sent)
    patch.setattr(expert_fit, "LEAST", {1: 16, 2: 100, 4: 1000, 8: 10_000})


@pytest.fixture
def eager(monkeypatch):
    make_eager(monkeypatch)


@pytest.fixture(scope="module")
def levels(twin):
    """The three levels of the cat, each with its symbols."""
    with pytest.MonkeyPatch.context() as patch:
        make_eager(patch)
        return expert_shvc.levels(twin, CAT)


def stream(net, image):
    stack = BitStack()
    expert_shvc.codec(net, image.shape).push(stack, image)
    return stack.to_bytes()


# --- round trips ------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["noise", "black", "ramp", "photograph"])
@pytest.mark.parametrize("shape", [shape for shape in SHAPES if shape[2] != 4])
def test_round_trip_from_any_stack(kind, shape, twin, eager):
    """There are no initial bits; from an empty stack, where the third pass holds too few, the posterior's best guess is sent."""
    image, own = picture(kind, shape), expert_shvc.codec(twin, shape)
    for stack in (BitStack.random(333, seed=1), BitStack()):
        before = stack.copy()
        own.push(stack, image)
        assert np.array_equal(own.pop(stack), image) and stack == before


def test_experts_are_used_and_pay():
    """Without being forced to."""
    net = zoo.load(NAME)
    assert [level.count for level, _ in expert_shvc.levels(net, CUP)] == [2]
    assert 8 * len(stream(net, CUP)) < 0.999 * linear_net.codec(net, CUP.shape).bits(CUP)
    large = data.photograph("coffee")
    found = expert_shvc.levels(net, large)
    assert [(level.count, level.fine[0].step.stride) for level, _ in found] == [(1, 4), (2, 2), (4, 1)]
    assert 8 * len(stream(net, large)) < 0.99 * linear_net.codec(net, large.shape).bits(large)


def test_without_enough_pixels_it_is_linear_net(twin):
    """But for the choice of the number of experts, three times, and one product in float32 for an input."""
    image = CAT[:40, :50]
    assert expert_shvc.levels(twin, image) == []
    assert expert_shvc.codec(twin, image.shape).bits(image) == pytest.approx(linear_net.codec(twin, image.shape).bits(image) + 3 * np.log2(5), abs=0.01)


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 2), (8, 8, 4)])
def test_other_images_are_refused(shape, twin):
    with pytest.raises(InvalidInput, match="one or three channels"):
        expert_shvc.codec(twin, shape)
    with pytest.raises(InvalidInput, match="uint8 images of shape"):
        expert_shvc.codec(twin, (8, 8, 3)).push(BitStack(), np.zeros((8, 9, 3), np.uint8))


def test_an_expert_has_one_component():
    with pytest.raises(InvalidInput, match="one component"):
        models.build("ExpertSHVC", components=3)


# --- exactness --------------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("way", ["float64", "int64", "bands", "two threads", "compiled"])
def test_any_arithmetic_writes_and_reads_the_same_bytes(way, twin, eager, monkeypatch):
    content = stream(twin, CAT)
    if way == "bands":
        for module in (linear_net, experts):
            monkeypatch.setattr(module, "_BAND", 50)
        monkeypatch.setattr(linear, "_BAND", 70)
    if way == "compiled":
        for module in (linear, linear_net, linear_net_inputs):
            monkeypatch.setattr(module, "LARGE", 0)
        monkeypatch.setattr(ahead, "BAND", 500)
        monkeypatch.setattr(bitstack, "_MANY", 0)
    threads = torch.get_num_threads()
    torch.set_num_threads(2 if way == "two threads" else 1)
    try:
        with nn.arithmetic(twin, way if way[-2:] == "64" else "float32"):
            assert stream(twin, CAT) == content
            for helpers in (1, 2, 3):
                with ahead.on_threads(helpers):
                    assert np.array_equal(expert_shvc.codec(twin, CAT.shape).pop(BitStack.from_bytes(content)), CAT)
    finally:
        torch.set_num_threads(threads)


def test_compiled_code_says_what_numpy_says(levels):
    """All experts' means (within what counts), all scales, and the posterior, step by step."""
    for own in (levels, expert_shvc.levels(zoo.load(NAME), CUP)):
        for level, (first, _) in own:
            found = {}
            for fast in (False, True):
                level.fast, level._opinions = fast, {}
                level._nats = np.zeros((*level.sides, level.count), dtype=np.int64), set()
                found[fast] = [level._everyone(number) for number in range(len(level.fine))], level.posterior(first)
            for plain, compiled in zip(found[False][0], found[True][0]):
                assert np.array_equal(plain[0], compiled[0]) and np.array_equal(plain[2], compiled[2])
                assert np.array_equal(np.clip(plain[1], -1024, 5120), np.clip(compiled[1], -1024, 5120))
            assert np.array_equal(found[False][1], found[True][1])


def test_floats_are_refused():
    with pytest.raises(InvalidInput, match="exact networks"):
        stream(models.build("ExpertSHVC", width=6), CAT[:20, :20])


# --- experts ----------------------------------------------------------------------------------------------------------------------------------

def some_step(shape=(32, 40, 3), earlier=2):
    return next(step for step in linear.steps(shape) if step.stride == 1 and len(step.earlier) == earlier)


def test_an_expert_that_differs_in_nothing_says_what_the_trained_layer_says(twin):
    """But for the two bits of the weights that are given up."""
    step, rng = some_step(), np.random.default_rng(0)
    canvas = linear_net_inputs.NetCanvas((32, 40, 3))
    canvas.pixels[:] = CUP[:32, :40]
    size = step.rows.size * step.columns.size
    means, scales = rng.integers(0, 4080, size).astype(np.int32), rng.integers(30, 90, size).astype(np.int32)
    width = twin.heads[0][4].weight.shape[1]
    own_means, own_scales = experts.opinions(twin, canvas, step, means, scales, *experts.expert_layers(twin, step, np.zeros((1, 2, width + 2), np.int32)))
    trained = linear_net._mixture(linear_net._outputs(twin, canvas, step, means, scales), means, scales)
    assert np.abs(own_scales[:, 0] - trained._scales[0]).max() <= 1
    assert (np.abs(own_means[:, 0] - trained._means[0]) <= 1 + 0.02 * 16 * np.exp((scales - 48) / 16)).all()


def test_what_an_expert_adds(twin):
    """A bias of 16 sixteenths is one scale or one nat; a slope of 16 is one per four nats of the scale's logarithm; a weight of 16 one per unit of the input."""
    step, canvas = some_step(), linear_net_inputs.NetCanvas((32, 40, 3))
    canvas.pixels[:] = CUP[:32, :40]
    size = step.rows.size * step.columns.size
    means, scales = np.full(size, 2000, np.int32), np.full(size, 80, np.int32)  # two nats: a scale of 7.39
    width = twin.heads[0][4].weight.shape[1]
    own = np.zeros((5, 2, width + 2), np.int32)
    own[1, 0, -2], own[2, 1, -2], own[3, 1, -1], own[4, 0, 2] = 16, 16, 16, 16
    found_means, found_scales = (values.astype(int) for values in experts.opinions(twin, canvas, step, means, scales, *experts.expert_layers(twin, step, own)))
    assert np.abs(found_means[:, 1] - found_means[:, 0] - 16 * np.exp(2)).max() < 1
    assert (found_scales[:, 2] - found_scales[:, 0] == 16).all() and np.abs(found_scales[:, 3] - found_scales[:, 0] - 8).max() <= 1
    hidden = np.concatenate([values for _, values in experts.hidden_units(twin, canvas, step, means, scales)])[:, 2] / twin.heads[2][4].prepared()[3]
    assert hidden.max() > 0.05 and np.abs(found_means[:, 4] - found_means[:, 0] - 16 * np.exp(2) * hidden).max() < 1


def test_experts_whose_sums_could_be_inexact_are_refused(twin):
    step, width = some_step(), twin.heads[0][4].weight.shape[1]
    most = np.full((2, 2, width + 2), experts.WEIGHT_LIMIT - 1, np.int32)
    with pytest.raises(CorruptFile, match="larger than any"):
        for _ in range(20):  # of a narrow network even the largest may be small enough
            wide = zoo.load(NAME)
            experts.expert_layers(wide, step, np.full((1, 2, wide.heads[0][4].weight.shape[1] + 2), experts.WEIGHT_LIMIT - 1, np.int32))
    (weight, bias, *_), _ = experts.expert_layers(twin, step, most // 8)
    assert (np.abs(weight).sum(1) * REACH + np.abs(bias)).max() < SUM_LIMIT


def test_experts_too_large_to_be_exact_are_halved_until_they_are_not(twin, monkeypatch):
    """Even where weights count so little that no difference fits beside the trained ones."""
    sample = type("", (), {"step": some_step(), "spreads": np.ones(8), "first": True})
    tried = []

    def layers(net, step, experts):
        tried.append(experts.copy())
        if experts[..., :-2].any():
            raise CorruptFile("too large")

    monkeypatch.setattr(expert_fit, "expert_layers", layers)
    monkeypatch.setattr(expert_fit, "_posterior", lambda *arguments: (np.ones((1, 1)), np.zeros(1)))
    own = np.full((1, 2, 8), -0.5)
    _, (found,), _ = expert_fit._rounded(twin, [sample], [own], np.ones((1, 1)), np.zeros(1, int), np.inf, 1)
    assert not found[..., :-2].any() and (found[..., -2:] == -8).all() and [values[0, 0, 0] for values in tried] == [-8, -4, -2, -1, 0]


# --- latents ----------------------------------------------------------------------------------------------------------------------------------

def test_the_posterior_is_the_models(levels):
    """q(z | x) against p(z) p(x | z) of the integer tables themselves, in floats."""
    assert [level.count for level, _ in levels] == [2, 4, 8]
    level, (first, _) = levels[-1]
    logs = np.log(level.masses / (1 << 24)).reshape(*level.sides, level.count)
    for number, symbols in enumerate(first):
        step = level.fine[number].step
        rows, columns = expert_shvc.blocks_of(step)
        means, scales = (np.moveaxis(values, 1, 2) for values in level._everyone(number)[1:])
        masses = logistic(means, scales).intervals(np.repeat(symbols.reshape(means.shape[:2])[..., None], level.count, 2))[1] / (1 << 24)
        np.add.at(logs, (rows[:, None], columns), np.log(masses.reshape(means.shape)))
    want = np.exp(logs - logs.max(-1, keepdims=True))
    want = (want / want.sum(-1, keepdims=True)).reshape(-1, level.count)
    found = level.posterior(first)
    assert (found.sum(1) == 1 << 24).all() and found.min() > 0
    found = found / (1 << 24)
    lost = (want * np.log2(np.maximum(want, 1e-300) / found)).sum(1)  # bits a block, by what is rounded in the tables
    assert np.abs(found - want).max() < 0.08 and lost.mean() < 1e-3 and lost.max() < 0.02


def test_bits_back_makes_it_cost_the_mixture(levels):
    """Whatever z is drawn: -log p(x, z) + log q(z | x) is the same, for the posterior is exact; and it is the mixture's -log p(x)."""
    level, (first, second) = levels[-1]
    q = level.posterior(first) / (1 << 24)
    prior, likely = independent(shvc_lib.coding.Categorical(level.masses)), q > 0.02
    rng, costs = np.random.default_rng(0), []
    for _ in range(5):
        z = np.array([rng.choice(np.flatnonzero(own)) for own in likely])
        costs.append(prior.bits(z) + level.given(range(level.half), z).bits(first) + np.log2(q[np.arange(len(z)), z]).sum())
    best = q.argmax(1)
    assert np.ptp(costs) < 0.002 * np.mean(costs)
    sent = prior.bits(best) + level.given(range(level.half), best).bits(first)
    assert np.mean(costs) < sent - 0.02 * prior.bits(best)  # what a deterministic posterior would cost


def test_the_rest_does_not_see_z(levels):
    """It is coded before z is drawn: of two stacks that hold different bits, z is another and the rest's bits are the same."""
    level, (first, second) = levels[-1]
    pushed = []
    for seed in (1, 2):
        stack = BitStack.random(64, seed=seed)
        rest = level.given(range(level.half, len(level.fine)), level.posterior(first).argmax(1))
        pushed.append(rest.bits(second))
        rest.push(stack, second)
        z = independent(shvc_lib.coding.Categorical(level.posterior(first))).pop(stack)
        pushed.append(z)
    assert pushed[0] == pushed[2] and not np.array_equal(pushed[1], pushed[3])


def test_contexts_tell_flat_blocks_from_busy_ones():
    pixels = np.zeros((40, 50, 3), np.uint8)
    pixels[:, 24:] = np.random.default_rng(0).integers(0, 256, (40, 26, 3))
    found = expert_shvc.contexts(pixels)
    assert found.shape == (5, 7) and not found[:, :2].any() and (found[:4, 3:6] == expert_shvc.CONTEXTS - 1).all()
    odd = pixels.copy()
    odd[1::2], odd[:, 1::2] = 77, 99
    assert np.array_equal(expert_shvc.contexts(odd), found)  # it knows the coarse sub-block alone


def test_the_prior_is_what_was_sent():
    masses = expert_shvc.prior_masses(np.array([[256, 1, 1, 1], [1, 256, 256, 255]], np.int32))
    assert (masses.sum(1) == 1 << 24).all() and masses.min() >= 1
    assert masses[0] / (1 << 24) == pytest.approx([256 / 259, 1 / 259, 1 / 259, 1 / 259], abs=1e-6)


def test_logarithms():
    """Near to the true ones, and none of the table's lies where a last digit could round it to the other side."""
    masses = np.unique(np.concatenate([np.arange(1, 1 << 15), np.random.default_rng(0).integers(1, 1 << 24, 5000), [(1 << 24) - 1, 1 << 24]]))
    assert np.abs(expert_shvc.log_of(masses) / 4096 - np.log(masses)).max() < 0.003
    true = 4096 * np.log(np.arange(1, (1 << 14) + 1))
    assert np.abs(true - np.floor(true) - 0.5).min() > 1e-6
    table, many = expert_shvc.log_table(), np.array([1, 5000, 1 << 14, 1 << 19, (1 << 24) - 1])
    assert expert_shvc.log_of(many).tolist() == [0, table[5000], table[512] + table[32], table[512] + 2 * table[32], table[16383] + 2 * table[32]]


@pytest.fixture(scope="module")
def sample(twin):
    """Some rows of blocks of a step of the finest level."""
    canvas = linear_net_inputs.NetCanvas(CAT.shape)
    canvas.pixels[0, 0] = CAT[0, 0]
    choice = [choice for choice in linear_fit.choices(CAT, canvas) if choice[0].stride == 1][4]
    return expert_fit._Sample(twin, canvas, choice, np.arange(-(-CAT.shape[0] // 8)) % 3 == 0, -(-CAT.shape[1] // 8))


def test_derivatives_of_the_fit(sample):
    """Against differences of codelengths."""
    expert = np.random.default_rng(0).normal(0, 0.05, (2, sample.features.shape[1]))
    logs, slopes, curvatures = sample.says(expert)
    for row, slope in enumerate(slopes):
        shift = np.zeros_like(expert)
        shift[row, -2] = 1e-2  # the bias, which every pixel sees
        differences = (sample.says(expert + shift)[0] - sample.says(expert - shift)[0]) / 2e-2
        assert np.abs(differences - slope).mean() < 0.01 and np.corrcoef(differences, slope)[0, 1] > 0.999
    assert all((own > 0).all() for own in curvatures)


def test_every_step_of_the_fit_is_for_the_better(sample):
    rng, expert = np.random.default_rng(0), np.zeros((2, sample.features.shape[1]))
    weights, costs = rng.random(len(sample.symbols)), []
    for _ in range(4):
        costs.append(weights @ sample.says(expert)[0] - (expert**2).sum() / 2)
        expert = sample.improved(expert, weights, 1.0)
    assert all(b >= a for a, b in zip(costs, costs[1:])) and costs[1] > costs[0] + 1 and costs[-1] - costs[-2] < costs[1] - costs[0]


def test_what_the_fit_sees_is_what_the_coder_pays(twin, eager):
    """The evidence in floats of rounded experts against the bits of the level."""
    seen = []
    with pytest.MonkeyPatch.context() as patch:
        posterior = expert_fit._posterior
        patch.setattr(expert_fit, "_posterior", lambda *arguments: seen.append(posterior(*arguments)[1].sum()) or posterior(*arguments))
        level, (first, second) = expert_shvc.levels(twin, CAT)[-1]
    bits = level.codec().bits((first, second)) - level.given(range(level.half, 9), level.posterior(first).argmax(1)).bits(second)
    assert bits == pytest.approx(-seen[-1] / np.log(2), rel=0.004)


# --- files ------------------------------------------------------------------------------------------------------------------------------------

def test_files_do_not_depend_on_threads():
    written = [shvc_lib.encode(CUP, NAME, workers=workers) for workers in (1, 2, 3)]
    assert written[0] == written[1] == written[2] and codec.info(written[0])["model"] == NAME
    assert all(np.array_equal(shvc_lib.decode(written[0], workers=workers), CUP) for workers in (1, 2, 3))


@pytest.mark.parametrize("kind", ["grey", "RGBA", "tiles"])
def test_files_of_other_kinds(kind):
    image = {"grey": CUP[..., 0], "RGBA": np.concatenate([CUP, CUP[..., :1] // 2], -1), "tiles": CUP}[kind]
    file = shvc_lib.encode(image, NAME, tile=64 if kind == "tiles" else None)
    assert np.array_equal(shvc_lib.decode(file), image) and codec.info(file)["tiles"] == (9 if kind == "tiles" else 1)
    if kind == "tiles":
        assert np.array_equal(shvc_lib.decode(file, crop=(50, 60, 30, 20)), CUP[60:80, 50:80])


def test_damaged_streams_are_noticed():
    """Streams of experts with bits turned over and right checksums: an error of ours or other pixels, and never anything else."""
    file = container_tiles.unpack(GOLDEN.read_bytes())
    payload, rng, coder = bytes(file.tiles[0].payload), np.random.default_rng(0), coders.get(NAME)
    outcomes = {"error": 0, "pixels": 0}
    for _ in range(40):
        hurt = bytearray(payload)
        hurt[-rng.integers(1, 6000) if rng.random() < 0.7 else rng.integers(len(hurt))] ^= 1 << rng.integers(8)
        try:
            image, left = coders.tile(coder, bytes(hurt), CUP.shape)
            outcomes["pixels"] += image.shape == CUP.shape and not (np.array_equal(image, CUP) and left == BitStack())
        except ShvcError:
            outcomes["error"] += 1
    assert sum(outcomes.values()) == 40 and outcomes["error"] > 0


def test_files_that_know_a_network_by_its_former_name_are_read():
    image, old = CUP[:48, :40], coders.get(coders.LEARNED)
    payload = coders.stream(old, image)
    with pytest.MonkeyPatch.context() as patch:  # as it was written when that network had the name
        patch.setattr(coders, "get", lambda name, depth=8: old._replace(name=NAME))
        file = codec._encode(image, coders.get(NAME), 64, 1, False)
    assert codec.info(file)["model"] == NAME and codec.info(file)["revision"] == old.revision and payload in file
    assert np.array_equal(shvc_lib.decode(file), image)
    parts = container_tiles.unpack(file)
    other = container_tiles.pack(NAME, old.revision ^ 1, parts.shape, 8, parts.side, [(payload, False, parts.tiles[0].pixel_crc)])
    with pytest.raises(ShvcError, match="here is revision"):
        shvc_lib.decode(other)
    assert container_small.NETWORKS[3] == coders.LEARNED


GOLDEN = Path(__file__).parent / "golden" / "shvc_photo.shvc"


def write_golden():
    GOLDEN.write_bytes(shvc_lib.encode(CUP, NAME))


def test_a_golden_file_is_read_in_every_arithmetic(monkeypatch):
    """The format is a promise, and so are the network's numbers. It holds a level with two experts. (test_linear_net reads it under other instructions.)"""
    file = GOLDEN.read_bytes()
    assert codec.info(file)["revision"] == coders.get(NAME).revision, "other weights than when tests/golden was written: write it anew"
    payload = container_tiles.unpack(file).tiles[0].payload
    for arithmetic in ("float32", "float64", "int64", "compiled"):
        if arithmetic == "compiled":
            for module in (linear, linear_net, linear_net_inputs):
                monkeypatch.setattr(module, "LARGE", 0)
        with nn.arithmetic(zoo.load(NAME), arithmetic if arithmetic != "compiled" else "float32") as net:
            stack = BitStack.from_bytes(payload)
            assert np.array_equal(expert_shvc.codec(net, CUP.shape).pop(stack), CUP) and stack == BitStack()


def test_masses_are_looked_up_alike(monkeypatch):
    """The compiled sum of logarithms against numpy's, with symbols and means at both ends and beyond."""
    rng = np.random.default_rng(0)
    symbols, rows, columns = rng.choice([0, 1, 100, 254, 255], (9, 13)).astype(np.int32), np.arange(9) // 4, np.arange(13) // 4
    means, scales = rng.integers(-9000, 9000, (9, 3, 13)).astype(np.int16), rng.integers(0, 192, (9, 3, 13)).astype(np.int16)
    found = np.zeros((2, 3, 4, 3), np.int64)
    expert_compiled.add_log_masses(symbols, means, scales, rows, columns, *expert_shvc.log_masses(), found[0])
    expert_shvc.add_log_masses(symbols, means, scales, rows, columns, found[1], False)
    assert np.array_equal(*found) and found.any()

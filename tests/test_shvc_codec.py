"""Images through an SHVC: encoded in one pass or in a batch, decoded step by step and alone, from initial bits or from none."""

import contextlib

import numpy as np
import pytest
import torch
from conditions import WAYS
from test_shvc import TINY, batch_of, lively, noise_of, photographs

from shvc_lib import data, models, nn
from shvc_lib.coding import BitStack, independent
from shvc_lib.coding.arib import lend
from shvc_lib.coding.bits_back import push_chain
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits, ShvcError
from shvc_lib.models import shvc_codec

torch.set_num_threads(1)
ONE = (32, 32, 3)
KINDS = {"plain": {}, "split": {"split": 3}, "split early": {"split": 1}, "deterministic": {"deterministic": True}, "k = 1": {"k": 1},
         "k = 4, split": {"k": 4, "split": 9},
         "mixed": {"k": (4, 2, 1)}, "mixed, split": {"k": (2, 1, 4), "split": 2}, "channel": {"order": "channel"}, "not weak": {"weak": False, "split": 3},
         "one level": {"levels": 1, "split": 3}, "no skips": {"skips": "none", "deterministic": True}}
_twins = {}


def twin_of(kind):
    """(float model, its exact twin), made once."""
    if kind not in _twins:
        model = lively(**KINDS[kind])
        _twins[kind] = model, shvc_codec.exact_twin(model, photographs(32, names=data.PHOTOGRAPHS))
    return _twins[kind]


def needs_initial_bits(twin):
    return not twin.deterministic and twin.split == twin.ks[0] ** 2


def start(twin, count):
    """Lanes to begin with: random bits, other ones for each image, or none where none are needed."""
    return Lanes([BitStack.random(9000 + 100 * lane, lane) if needs_initial_bits(twin) else BitStack() for lane in range(count)])


@pytest.fixture(scope="module")
def images():
    return photographs(16, seed=5)


# --- there and back ---------------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", KINDS)
def test_a_batch_is_one_by_one_and_each_image_is_decoded_alone(kind, images):
    """Every kind: three lanes hold the words of each coded by itself; one of them, alone, comes back step by step; and all of them together."""
    _, twin = twin_of(kind)
    some, codec = images[:3], shvc_codec.codec(twin, ONE)
    lanes = start(twin, 3)
    shvc_codec.codec(twin, some.shape).push(lanes, some)
    for lane in (0, 2):
        alone = start(twin, 3).stacks[lane]
        codec.push(alone, some[lane])
        assert alone == lanes.stacks[lane]
    stack = lanes.stacks[1].copy()
    popped = codec.pop(stack)
    assert np.array_equal(popped, some[1]) and popped.dtype == np.uint8 and stack == start(twin, 3).stacks[1]
    assert np.array_equal(shvc_codec.codec(twin, some.shape).pop(lanes), some) and lanes == start(twin, 3)


def test_images_on_top_of_one_another(images):
    """A chain on one stack, and bytes between encoder and decoder."""
    for kind in ("plain", "split", "deterministic"):
        _, twin = twin_of(kind)
        codec, stack = shvc_codec.codec(twin, ONE), start(twin, 1).stacks[0]
        for image in images[:3]:
            codec.push(stack, image)
        stack = BitStack.from_bytes(stack.to_bytes())
        assert all(np.array_equal(codec.pop(stack), image) for image in images[2::-1]) and stack == start(twin, 1).stacks[0]


@pytest.mark.parametrize("kind", ["plain", "split", "deterministic"])
def test_a_larger_image_takes_no_more_evaluations(kind, monkeypatch):
    """64 x 40 with the same twin: one call of each conditional per sub-block to decode, whatever the size, and one pass to encode."""
    _, twin = twin_of(kind)
    counts = {}
    for shape in [(16, 8), (64, 40)]:
        image = photographs(1, 64, seed=3)[0, :shape[0], :shape[1]]
        codec, calls = shvc_codec.codec(twin, image.shape), {"forward": 0, "step": 0}
        with monkeypatch.context() as patch:
            for conditional in twin.conditionals:
                for name in calls:
                    def counted(*arguments, inner=getattr(conditional, name), name=name):
                        calls[name] += 1
                        return inner(*arguments)
                    patch.setattr(conditional, name, counted)
            stack = start(twin, 1).stacks[0]
            codec.push(stack, image)
            passes = dict(calls)
            assert np.array_equal(codec.pop(stack), image) and stack == start(twin, 1).stacks[0]
        counts[shape] = passes["forward"], passes["step"], calls["step"]
    expected = {"plain": (3, 0, 12), "split": (4, 0, 12), "deterministic": (3, 0, 12)}[kind]  # of x, z_1 and z_2; of x twice, known beforehand or not
    assert counts[16, 8][0] <= counts[64, 40][0] and counts[64, 40] == expected


def test_flat_images_are_overdrawn_and_come_back(monkeypatch):
    """ArIB on what has little to lend: black, white, grey, a ramp, stripes; and noise, which has plenty. What cannot be lent is the mode, as cheap as the best
    guesses of a deterministic posterior, and not the lowest bin, which the prior thinks impossible."""
    _, twin = twin_of("split")
    ramp = np.broadcast_to(np.linspace(0, 255, 32).astype(np.uint8)[:, None], (32, 32))
    planes = {"black": np.zeros((32, 32)), "white": np.full((32, 32), 255), "grey": np.full((32, 32), 128), "ramp": ramp,
              "stripes": np.arange(1024).reshape(32, 32) % 2 * 255, "noise": np.random.default_rng(0).integers(0, 256, (32, 32))}
    parts, overdrawn, cost = shvc_codec.Images(twin, ONE), {}, {}
    for way, turned in (("modes", shvc_codec.mode_first), ("lowest", independent)):
        monkeypatch.setattr(shvc_codec, "mode_first", turned)
        for name, plane in planes.items():
            image = np.ascontiguousarray(np.broadcast_to(plane.astype(np.uint8)[..., None], ONE))
            stack, (first, second) = BitStack(), parts.parts(image)
            loan = lend(parts.split(), stack, (first, second))
            overdrawn[name, way], cost[name, way] = loan.overdrawn, stack.bits
            assert loan.lent <= loan.rest + 32 and (loan.overdrawn or loan.lent <= loan.rest) and stack.bits >= 0 and not stack.overdraft, name
            stack = BitStack.from_bytes(stack.to_bytes())
            assert np.array_equal(parts.codec().pop(stack), image) and stack == BitStack() and not stack.overdraft
            below = parts.best(1, first)
            above = parts.best(2, below)
            cost[name, "best"] = (parts.rest(first).bits(second) + parts.likelihood(below).bits(first) + parts.latent(1, above).bits(below)
                                  + parts.latent(2, None).bits(above))
    for name in ("black", "white", "grey", "ramp"):
        assert overdrawn[name, "modes"] and cost[name, "modes"] < cost[name, "best"] + 40 and cost[name, "modes"] < 0.6 * cost[name, "lowest"], name
    assert not overdrawn["noise", "modes"]


# --- what it costs ----------------------------------------------------------------------------------------------------------------------------

def test_the_actual_bits_are_the_ideal_ones(images):
    """Net of a chain, or growth from an empty stack, against `bits` under the same integers: one z or another, less than 1 % and 100 bits an image apart;
    for the deterministic posterior there is one z only, and hardly anything is lost."""
    for kind, lost in [("plain", 0.01), ("split", 0.01), ("deterministic", 0.001)]:
        _, twin = twin_of(kind)
        codec, actual, ideal = shvc_codec.codec(twin, ONE), [], []
        for image in images[:4]:
            stack = start(twin, 1).stacks[0]
            before = stack.bits
            codec.push(stack, image)
            actual.append(stack.bits - before)
            ideal.append(codec.bits(image))
        assert sum(actual) == pytest.approx(sum(ideal), rel=lost), kind
        if kind == "deterministic":
            assert all(-1 < a - b < 40 for a, b in zip(actual, ideal))


def test_only_shvc_without_a_split_borrows(images):
    """The stack dips below its start for the plain model, by what z_1 and z_2 take; never for the others, which start from nothing."""
    for kind in ("plain", "split", "deterministic"):
        _, twin = twin_of(kind)
        ledger, = push_chain(shvc_codec.codec(twin, ONE), images[:1], BitStack.random(20_000))
        assert (ledger.initial > 500) == (kind == "plain") and ledger.initial >= 0 and ledger.net > 5000
    with pytest.raises(OutOfBits):
        shvc_codec.codec(twin_of("plain")[1], ONE).push(BitStack(), images[0])


@pytest.mark.parametrize("kind", ["plain", "split", "deterministic", "k = 4, split", "mixed"])
def test_the_elbo_under_integers_is_that_of_the_floats(kind, images):
    model, twin = twin_of(kind)
    batch = batch_of(images[:6])
    with torch.no_grad():
        floats, exact = (np.mean([float(m.loss(batch, noise_of(model, batch, seed))[0]) for seed in range(3)]) for m in (model, twin))
    assert exact == pytest.approx(floats, rel=0.002)
    codec = shvc_codec.codec(twin, ONE)
    integers = sum(codec.bits(image) for image in images[:6]) / images[:6].size
    assert integers == pytest.approx(floats, rel=0.015)  # one z of every image
    assert shvc_codec.codec(twin, (6, *ONE)).bits(images[:6]) / images[:6].size == pytest.approx(integers, rel=0.01)


def test_a_loan_is_what_the_parts_cost(images):
    """rest: the ideal bits of the second part; lent: those of z under its posterior, as far as they are there. The second part under its own codec is
    what the ELBO counts."""
    model, twin = twin_of("split")
    parts, enough = shvc_codec.Images(twin, ONE), []
    for image in images[:4]:
        first, second = parts.parts(image)
        loan = lend(parts.split(), BitStack(), (first, second))
        assert loan.rest == pytest.approx(parts.rest(first).bits(second), rel=0.002, abs=40)
        with torch.no_grad():
            _, report = model.loss(batch_of(image[None]), noise_of(model, batch_of(image[None])))
        assert loan.rest == pytest.approx(float(report["rest"]) * image.size, rel=0.01)
        asked = float(report["lent"]) * image.size
        assert loan.lent == pytest.approx(min(asked, loan.rest + 32), rel=0.05)
        enough.append(not loan.overdrawn)
        assert enough[-1] or asked > loan.rest
    assert any(enough)


# --- the same integers under other conditions -------------------------------------------------------------------------------------------------

@contextlib.contextmanager
def loaded(twin):
    """What travels are the integers: a fresh network filled with them."""
    tensors = nn.exact.exact_tensors(twin)
    assert not any("mask" in name for name in tensors)
    yield nn.exact.with_exact_tensors(models.build("SHVC", **TINY, split=twin.split, deterministic=twin.deterministic), tensors, "a test")


CONDITIONS = {**WAYS, "loaded": loaded}


@pytest.mark.parametrize("kind", ["plain", "split"])
@pytest.mark.parametrize("way", CONDITIONS)
def test_images_decode_in_another_way(kind, way, images):
    _, twin = twin_of(kind)
    some = images[:4, :16, :16]
    lanes = start(twin, 4)
    shvc_codec.codec(twin, some.shape).push(lanes, some)
    with CONDITIONS[way](twin) as other:
        codec = shvc_codec.codec(other, some[0].shape)
        for lane in (1, 3):
            stack = lanes.stacks[lane].copy()
            assert np.array_equal(codec.pop(stack), some[lane]) and stack == start(twin, 4).stacks[lane]


@pytest.mark.parametrize("kind", ["plain", "split"])
def test_floats_lose_images_and_the_exact_twin_none(kind, images):
    """Encoded in a batch of sixteen, in one pass; decoded one by one, step by step. The same codec, but for the twin."""
    model, twin = twin_of(kind)

    def wrong(network):
        lanes, lost = start(twin, 16), 0
        shvc_codec.codec(network, images.shape).push(lanes, images)
        codec = shvc_codec.codec(network, ONE)
        for stack, before, image in zip(lanes.stacks, start(twin, 16).stacks, images):
            try:
                lost += not (np.array_equal(codec.pop(stack), image) and stack == before)
            except ShvcError:
                lost += 1
        return lost

    assert wrong(twin) == 0
    careless = shvc_codec.float_twin(model)
    assert shvc_codec.codec(careless, ONE).bits(images[0]) == pytest.approx(shvc_codec.codec(twin, ONE).bits(images[0]), rel=0.03)  # another z
    if not wrong(careless):
        pytest.skip("this processor's kernels add in one order in one pass and step by step: floats happen to agree here")


def test_floats_are_refused_and_a_float_twin_leaves_its_model_alone(images):
    model, _ = twin_of("split")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    shvc_codec.float_twin(model)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and "posterior" not in vars(model)
    stack = BitStack()
    with pytest.raises(InvalidInput, match="exact"):
        shvc_codec.codec(model, ONE).push(stack, images[0])
    assert stack == BitStack()


# --- parts and refusals -----------------------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("kind", ["plain", "split", "k = 4, split", "channel"])
def test_parts_are_sub_blocks_and_put_together_again(kind, images):
    _, twin = twin_of(kind)
    k, split = twin.ks[0], twin.split
    for value, shape in [(images[0], ONE), (images[:2], (2, *ONE))]:
        codec = shvc_codec.Images(twin, shape)
        first, second = codec.parts(value)
        axis = len(shape) - 3
        assert first.dtype == second.dtype == np.int32 and first.shape[axis:] == (split, 3, 32 // k, 32 // k) and second.shape[axis] == k * k - split
        assert np.array_equal(codec.image(first, second), value)
        if kind != "channel":
            for i, block in enumerate(np.moveaxis(first, axis, 0)):
                assert np.array_equal(np.moveaxis(block, -3, -1), value[..., i // k::k, i % k::k, :])


@pytest.mark.parametrize("shape, says", [((31, 32, 3), "multiples of 8"), ((32, 36, 3), "multiples of 8"), ((4, 32, 28, 3), "multiples of 8"),
                                         ((32, 32), "one image"), ((32, 32, 4), "one image"), ((1, 2, 32, 32, 3), "one image"), ((0, 32, 3), "one image"),
                                         ((0, 32, 32, 3), "one image")])
def test_shapes_that_the_model_cannot_take(shape, says):
    with pytest.raises(InvalidInput, match=says):
        shvc_codec.codec(twin_of("split")[1], shape)


@pytest.mark.parametrize("spoil", [lambda x: x[:16], lambda x: x[None], lambda x: x.astype(np.int64), lambda x: x / 255, lambda x: x[..., :1]])
@pytest.mark.parametrize("kind", ["plain", "split", "deterministic"])
def test_images_that_are_not_of_the_codec(spoil, kind, images):
    _, twin = twin_of(kind)
    stack = BitStack.random(9000)
    before = stack.copy()
    with pytest.raises(InvalidInput, match="uint8 of shape"):
        shvc_codec.codec(twin, ONE).push(stack, spoil(images[0]))
    assert stack == before


@pytest.mark.parametrize("kind", ["split", "deterministic"])
def test_streams_that_end_too_early(kind, images):
    """Nothing, or half of a stream's words: an error, and the stack as it was."""
    _, twin = twin_of(kind)
    codec, stack = shvc_codec.codec(twin, ONE), BitStack()
    codec.push(stack, images[0])
    words = stack.to_bytes()
    for short in (BitStack(), BitStack.from_bytes(words[len(words) // 8 * 4:])):
        before = short.copy()
        with pytest.raises((OutOfBits, CorruptFile)):
            codec.pop(short)
        assert short == before


def test_codecs_of_other_sub_blocks_say_so(images):
    _, twin = twin_of("split")
    parts = shvc_codec.Images(twin, ONE)
    first, second = parts.parts(images[0])
    with pytest.raises(InvalidInput, match="sub-blocks of shape"):
        parts.rest(first).push(BitStack(), first)
    with pytest.raises(InvalidInput, match="pair"):
        parts._inner().push(BitStack(), first)


@pytest.mark.parametrize("kind", ["plain", "split", "deterministic"])
def test_a_batch_on_one_stack_comes_back_or_is_refused(kind, images):
    _, twin = twin_of(kind)
    codec, stack = shvc_codec.codec(twin, (2, 16, 16, 3)), BitStack.random(9000)
    before = stack.copy()
    try:
        codec.push(stack, images[:2, :16, :16])
    except InvalidInput:
        assert stack == before
        return
    assert np.array_equal(codec.pop(stack), images[:2, :16, :16]) and stack == before

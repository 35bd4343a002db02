"""The model `linear`: lossless on every shape, nothing unknown is looked at, and better than PNG on each photograph."""

import numpy as np
import pytest

from shvc_lib import anchors, data
from shvc_lib.coding import BitStack
from shvc_lib.models import linear, linear_fit

SHAPES = [(1, 1, 1), (1, 1, 3), (1, 2, 3), (2, 1, 4), (1, 9, 3), (9, 1, 1), (2, 2, 3), (3, 5, 3), (8, 8, 1), (17, 4, 3), (33, 31, 4)]


def picture(kind, shape, seed=0):
    rng = np.random.default_rng(seed)
    return {
        "noise": lambda: rng.integers(0, 256, shape),
        "black": lambda: np.zeros(shape),
        "white": lambda: np.full(shape, 255),
        "ramp": lambda: np.indices(shape).sum(0) * 3 % 256,
        "checkerboard": lambda: np.indices(shape).sum(0) % 2 * 255,
        "photograph": lambda: np.tile(data.photograph("chelsea")[100:, 100:], (1, 1, 2))[:shape[0], :shape[1], :shape[2]],
    }[kind]().astype(np.uint8)


@pytest.mark.parametrize("kind", ["noise", "black", "white", "ramp", "checkerboard", "photograph"])
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_from_any_stack(kind, shape):
    image, stack = picture(kind, shape), BitStack.random(333, seed=1)
    before, codec = stack.copy(), linear.codec(shape)
    codec.push(stack, image)
    assert stack.bits <= 333 + codec.bits(image) + 64
    assert np.array_equal(codec.pop(stack), image)
    assert stack == before


def test_steps_visit_every_pixel_once_and_only_look_back():
    """Offsets of a step, reflected at the borders, land on pixels already known: the corner or an earlier step's."""
    for shape in [(1, 7, 3), (6, 1, 3), (13, 10, 3), (16, 16, 1), (5, 8, 4)]:
        known = np.zeros(shape, dtype=int)
        known[0, 0] = 1
        for step in linear.steps(shape):
            where = step.rows[:, None], step.columns
            for dy, dx in step.offsets:
                rows = linear.reflect(step.rows + dy * step.stride, step.stride, shape[0])
                columns = linear.reflect(step.columns + dx * step.stride, step.stride, shape[1])
                assert rows.min() >= 0 and rows.max() < shape[0] and columns.min() >= 0 and columns.max() < shape[1]
                if min(shape[:2]) > 3 * step.stride:  # in a picture narrower than the neighbourhood a mirror image may be unknown (and is 0)
                    assert known[rows[:, None], columns, step.channel].all()
            assert all(known[(*where, channel)].all() for channel in step.earlier)
            assert not known[(*where, step.channel)].any()
            known[(*where, step.channel)] = 1
        assert known.all()


def test_a_fit_is_sent_only_where_it_pays():
    """The answers' flags: a large smooth picture sends fits, a small one none; and sending never costs more than the defaults."""
    small = linear_fit.requests(picture("photograph", (16, 16, 3)))
    assert len(small) == 1 + 2 * sum(1 for _ in linear.steps((16, 16, 3))) and not any(flag[0] for flag in small[1::2])
    grey = np.full((64, 64, 3), 77, dtype=np.uint8)  # the defaults predict it: nothing is left to gain
    assert not any(flag[0] for flag in linear_fit.requests(grey)[1::2])
    image = data.photograph("chelsea")[:128, :128]
    answers = linear_fit.requests(image)
    assert len(answers) > 1 + 2 * sum(1 for _ in linear.steps(image.shape))
    inner = linear.autoregressive(lambda: linear._model(linear.Canvas(image.shape)))
    plain = []
    for step in linear.steps(image.shape):
        plain += [np.array([0]), image[step.rows[:, None], step.columns, step.channel].reshape(-1)]
    assert inner.bits(answers) < inner.bits([image[0, 0], *plain])


def test_prediction_is_integer_arithmetic_that_cannot_overflow():
    """Extreme coefficients on extreme pixels stay inside int32, and the means inside the picture's range."""
    step = list(linear.steps((64, 64, 3)))[-1]
    default = linear.default_parameters(step)
    features = np.full((default.mean.size, 2), 255, dtype=np.int32)
    spreads = np.full((default.spread.size, 2), 16 * 255, dtype=np.int32)
    for sign in (-1, 1):
        extreme = linear.Parameters(np.full_like(default.mean, sign * (linear.MEAN_LIMIT - 1)),
                                    np.full_like(default.spread, linear.SPREAD_LIMIT - 1), default.scales)
        means, classes = linear._linear(extreme, features, spreads)
        assert means.dtype.kind == "i" and (means == (0 if sign < 0 else 16 * 255)).all() and (classes == linear.CLASSES - 1).all()
        assert abs(int(extreme.mean.astype(np.int64) @ features[:, 0])) < 2**31
        assert int(extreme.spread.astype(np.int64) @ spreads[:, 0]) < 2**31


def test_bands_and_sampled_fits_are_still_lossless(monkeypatch):
    """Large images are predicted band by band (the same numbers) and fitted on some of their rows (other numbers, still exact)."""
    image = data.photograph("chelsea")[:150, :140]
    whole = linear_fit.requests(image)
    monkeypatch.setattr(linear, "_BAND", 300)
    banded = linear_fit.requests(image)
    assert len(whole) == len(banded) and all(np.array_equal(a, b) for a, b in zip(whole, banded))
    monkeypatch.setattr(linear_fit, "_ENOUGH", 1000)
    codec, stack = linear.codec(image.shape), BitStack()
    codec.push(stack, image)
    assert np.array_equal(codec.pop(stack), image)
    assert codec.bits(image) < 1.1 * linear.autoregressive(lambda: linear._model(linear.Canvas(image.shape))).bits(whole)


def test_thresholds_are_what_the_comment_says():
    assert linear._THRESHOLDS.tolist() == [round(2 * 2 ** (b / 2.5)) for b in range(linear.CLASSES - 1)]


@pytest.mark.parametrize("name", data.PHOTOGRAPHS)
def test_beats_png_on_each_embedded_photograph(name):
    image, stack = data.photograph(name), BitStack()
    codec = linear.codec(image.shape)
    codec.push(stack, image)
    actual = len(stack.to_bytes())
    assert np.array_equal(codec.pop(stack), image) and stack.bits == 0
    assert actual < anchors.lossless(image, ["PNG"])[0].bytes

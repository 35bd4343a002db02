"""The model `linear` on 16-bit images: lossless on every shape, exact integers, no bit spent on levels that nobody uses."""

from zlib import crc32

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.ndimage import gaussian_filter

from shvc_lib import data
from shvc_lib.coding import BitStack
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits
from shvc_lib.models import linear, linear_deep, linear_deep_fit, linear_wide

SHAPES = [(1, 1, 1), (1, 1, 3), (2, 1, 4), (1, 9, 3), (9, 1, 1), (3, 5, 3), (17, 4, 3), (33, 31, 4), (50, 46, 1)]


def photograph(height, width, sigma=1.0):
    """A photograph of 65536 levels, uint16 (height, width, 3): an embedded one, blurred in floating point."""
    crop = data.photograph("chelsea")[100:100 + height, 100:100 + width]
    return np.rint(gaussian_filter(crop / 255, (sigma, sigma, 0)) * 65535).astype(np.uint16)


def picture(kind, shape, seed=0):
    rng = np.random.default_rng(seed)
    smooth = np.tile(photograph(96, 96), (1, 1, 2))[:shape[0], :shape[1], :shape[2]]
    return {
        "noise": lambda: rng.integers(0, 65536, shape),
        "black": lambda: np.zeros(shape),
        "white": lambda: np.full(shape, 65535),
        "extremes": lambda: rng.integers(0, 2, shape) * 65535,
        "ramp": lambda: np.indices(shape).sum(0) * 777 % 65536,
        "checkerboard": lambda: np.indices(shape).sum(0) % 2 * 65535,
        "one bright point": lambda: np.where(np.arange(np.prod(shape)).reshape(shape) == np.prod(shape) // 2, 65535, 3),
        "photograph": lambda: smooth,
        "10 bits low": lambda: smooth >> 6,
        "12 bits high": lambda: smooth >> 4 << 4,
        "8 bits times 257": lambda: (smooth >> 8) * 257,
    }[kind]().astype(np.uint16)


def size(image, depth=16):
    """Bytes of the stream; the image must come back and the stack be empty."""
    codec, stack = linear.codec(image.shape, depth), BitStack()
    codec.push(stack, image)
    data = stack.to_bytes()
    stack = BitStack.from_bytes(data)
    back = codec.pop(stack)
    assert back.dtype == image.dtype and np.array_equal(back, image) and stack.bits == 0
    return len(data)


@pytest.mark.parametrize("kind", ["noise", "black", "white", "extremes", "ramp", "checkerboard", "one bright point", "photograph", "10 bits low",
                                  "12 bits high", "8 bits times 257"])
@pytest.mark.parametrize("shape", SHAPES)
def test_round_trip_from_any_stack(kind, shape):
    image, stack = picture(kind, shape), BitStack.random(333, seed=1)
    before, codec = stack.copy(), linear.codec(shape, depth=16)
    codec.push(stack, image)
    assert stack.bits - 333 == pytest.approx(codec.bits(image), abs=64)
    back = codec.pop(stack)
    assert back.dtype == np.uint16 and np.array_equal(back, image)
    assert stack == before


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 8), st.integers(1, 8), st.sampled_from([1, 3, 4]), st.integers(0, 2**32 - 1), st.lists(st.integers(0, 65535), min_size=1, max_size=5))
def test_any_few_levels(height, width, channels, seed, levels):
    size(np.random.default_rng(seed).choice(levels, (height, width, channels)).astype(np.uint16))


def test_wrong_images_and_depths_are_refused():
    image = picture("photograph", (8, 8, 3))
    for depth, bad in [(16, image.astype(np.uint8)), (16, image.astype(np.int32)), (8, image), (16, image[:, :, :1]), (16, image / 2), (16, image[:4])]:
        codec, stack = linear.codec((8, 8, 3), depth), BitStack.random(99)
        before = stack.copy()
        for call in (lambda: codec.push(stack, bad), lambda: codec.bits(bad)):
            with pytest.raises(InvalidInput, match=f"takes uint{depth} images of shape"):
                call()
        assert stack == before
    with pytest.raises(InvalidInput, match="depth must be 8 or 16"):
        linear.codec((8, 8, 3), 12)


def test_golden_stream():
    """Small pictures are coded without fits, so nothing here depends on floating point; a change of these bytes needs a new revision of the model."""
    image = (np.indices((20, 24, 3)).sum(0) ** 3 * 7 % 65536).astype(np.uint16)
    stack = BitStack()
    linear.codec(image.shape, 16).push(stack, image)
    assert (len(stack.to_bytes()), crc32(stack.to_bytes())) == (1115, 56493107)


def test_smooth_photograph_is_much_smaller_than_png():
    png = pytest.importorskip("imagecodecs").png_encode
    for sigma, part in [(0.5, 0.9), (2, 0.6)]:
        image = photograph(112, 112, sigma)
        assert size(image) < part * len(png(image, level=9))


@pytest.mark.parametrize("spread", [lambda v: v.astype(np.uint16) * 257, lambda v: v.astype(np.uint16) << 8, lambda v: v.astype(np.uint16) << 3 | 5,
                                    lambda v: v.astype(np.uint16), lambda v: np.rint(65535 * (v / 255) ** 2.2).astype(np.uint16)],
                         ids=["times 257", "high byte", "middle and a pattern", "low byte", "curve"])
def test_8_bits_in_16_cost_what_8_bits_cost(spread):
    image = data.photograph("chelsea")[100:180, 100:180]
    table = 1000 * (np.unique(np.diff(np.unique(spread(image)))).size > 20)  # a list of the levels in use, sent for the curve alone
    assert size(spread(image)) < 1.015 * size(image, 8) + 100 + table


def test_10_and_12_bits_filled_up_either_way():
    for bits in (10, 12):
        low = photograph(48, 48, 0.5) >> 16 - bits
        best = size(low)
        for high in (low << 16 - bits, low << 16 - bits | low >> 2 * bits - 16, np.rint(low * (65535 / (2**bits - 1))).astype(np.uint16)):
            assert size(high) < best + 50


def test_an_opaque_alpha_channel_costs_nothing():
    image = photograph(64, 64)
    assert size(np.dstack([image, np.full((64, 64), 65535, np.uint16)])) < size(image) + 8


def test_levels_are_found_where_they_pay_only():
    rng = np.random.default_rng(0)
    cases = {  # values: (first, factor, top, whether there is a table)
        "full": (rng.integers(0, 65536, 70000), (0, 1, 65535, False)),
        "few pixels of many values": (rng.integers(0, 65536, 5000), (0, 1, 65535, False)),
        "about one pixel per value": (rng.integers(0, 40000, 40000), (0, 1, 65535, False)),
        "one value": (np.full(100, 777), (777, 1, 0, False)),
        "two": (rng.integers(0, 2, 100) * 65535, (0, 65535, 1, False)),
        "shifted": (rng.integers(0, 256, 9000) << 8, (0, 256, 255, False)),
        "shifted with a pattern": (rng.integers(3, 1024, 9000) * 64 + 21, (3 * 64 + 21, 64, 1020, False)),
        "ten bits filled up": ((lambda v: v << 6 | v >> 4)(rng.integers(0, 1024, 900)), (0, 1, 1023, True)),
        "fifteen bits stretched": (np.rint(rng.integers(0, 32768, 9000) * (65535 / 32767)), (0, 1, 32767, True)),
        "a curve": (np.rint(65535 * (rng.integers(0, 256, 9000) / 255) ** 2.2), (0, 1, 254, True)),
    }
    for name, (values, wanted) in cases.items():
        values = values.astype(np.uint16)
        found, answers = linear_wide.find_levels(values)
        assert (found.first, found.factor, found.top, found.table is not None) == wanted, name
        pixels = found.pixels(values)
        assert pixels.min() >= 0 and pixels.max() <= found.top and np.array_equal(found.values(pixels), values)
        codec, stack = linear.autoregressive(linear_wide.levels), BitStack()
        codec.push(stack, answers)
        assert all(np.array_equal(a, b) for a, b in zip(codec.pop(stack), answers, strict=True))


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 65535), st.integers(0, 2**32 - 1), st.integers(1, 60))
def test_wide_codes_every_symbol_under_every_logistic(top, seed, count):
    rng = np.random.default_rng(seed)
    means, scales = rng.integers(0, 16 * top + 1, count), rng.integers(0, linear_wide.WIDE_SCALES, count)
    symbols = rng.choice([0, top, top // 2, int(rng.integers(0, top + 1))], count)
    codec, stack = linear_wide.wide(means, scales, top), BitStack()
    codec.push(stack, symbols)
    assert stack.bits <= codec.bits(symbols) + 64 and codec.bits(symbols) < count * 41
    assert np.array_equal(codec.pop(stack), symbols) and stack.bits == 0


@pytest.mark.parametrize("scale", [0, 60, 81, 82, 93, 120, 169, 180])
def test_wide_is_a_discretised_logistic(scale):
    """Cutting bits costs at most 0.004 bits per symbol on average, and the scale is what `scale_of` says."""
    s, mean = float(linear_wide.scale_of(scale)), 30000.3
    levels = np.arange(65536)
    edges = (np.arange(65537) - 0.5 - mean) / s
    edges[0], edges[-1] = -np.inf, np.inf
    below = np.where(edges < 0, edges, -edges)
    tail = np.exp(below) / (1 + np.exp(below))
    mass = np.where(edges[:-1] > 0, tail[:-1] - tail[1:], np.where(edges[1:] <= 0, tail[1:] - tail[:-1], 1 - tail[1:] - tail[:-1]))
    drawn = np.random.default_rng(1).choice(levels, 20000, p=mass / mass.sum())
    bits = linear_wide.wide(np.full(drawn.size, round(16 * mean)), np.full(drawn.size, scale), 65535).bits(drawn)
    assert bits / drawn.size == pytest.approx(-np.log2(mass[drawn]).mean(), abs=0.005)


def test_wide_refuses_what_it_cannot_code():
    codec, stack = linear_wide.wide(np.full(3, 99), np.full(3, 90), 1000), BitStack()
    for bad in ([1, 2], [1, 2, 1001], [1, 2, -1], [1.0, 2.0, 3.0]):
        with pytest.raises(InvalidInput):
            codec.push(stack, np.array(bad))
        assert stack.bits == 0
    last = linear_wide.wide(np.full(3000, 16 * 1000), np.full(3000, 90), 1000)  # its last place is levels 1000 and 1001
    assert last.pop(BitStack.random(100_000)).max() == 1000


def test_dot_products_are_exact_whatever_the_order():
    """Extreme coefficients on extreme pixels: every sum stays below 2^53, and floating point gives the integers' result."""
    step = list(linear.steps((64, 64, 3)))[-1]
    default, rng = linear_deep.default_parameters(step), np.random.default_rng(3)
    count = default.mean.size
    for sign in (-1, 1):
        extreme = linear.Parameters(np.full(count, sign * (linear_deep.MEAN_LIMIT - 1)), np.full_like(default.spread, linear_deep.SPREAD_LIMIT - 1), default.scales)
        features = np.array([0]), np.full((count, 1), 4.0 * 65535), np.full((default.spread.size, 1), 16.0 * 65535)
        assert count * linear_deep.MEAN_LIMIT * 4 * 65535 < 2**53 and default.spread.size * linear_deep.SPREAD_LIMIT * 16 * 65535 < 2**53
        means, classes = linear_deep.linear(extreme, features, 65535)
        assert means[0] == (0 if sign < 0 else 16 * 65535) and classes[0] == linear_deep.CLASSES - 1
    random = default._replace(mean=rng.integers(-(1 << 15), 1 << 15, count), spread=rng.integers(0, 1 << 10, default.spread.size))
    base, centred, spreads = rng.integers(0, 4 * 65535, 50), rng.integers(-4 * 65535, 4 * 65535, (count, 50)), rng.integers(0, 16 * 65535, (default.spread.size, 50))
    means, classes = linear_deep.linear(random, (base, centred.astype(float), spreads.astype(float)), 65535)
    by_integers = np.clip(4 * base + ((random.mean @ centred + (1 << 10)) >> 11), 0, 16 * 65535)
    assert np.array_equal(means, by_integers) and means.dtype == classes.dtype == np.int32
    assert np.array_equal(classes, np.searchsorted(linear_deep._THRESHOLDS, random.spread @ spreads >> 8, side="right"))


def test_thresholds_are_what_the_comment_says():
    assert linear_deep._THRESHOLDS.tolist() == pytest.approx([2 * 2 ** (b / 2.5) for b in range(linear_deep.CLASSES - 1)], rel=1e-3, abs=0.5)
    assert (np.diff(linear_deep._THRESHOLDS) >= 0).all() and linear_deep._THRESHOLDS[-1] / 16 > 30000


def test_bands_and_sampled_fits_are_still_lossless_and_the_same_twice(monkeypatch):
    image = photograph(80, 75)
    whole = linear_deep_fit.requests(image)
    assert len(whole) > 2 * 3 + 2 * sum(1 for _ in linear.steps(image.shape))  # some fits are sent
    monkeypatch.setattr(linear_deep, "_BAND", 300)
    banded = linear_deep_fit.requests(image)
    assert len(whole) == len(banded) and all(np.array_equal(a, b) for a, b in zip(whole, banded))
    full = size(image)
    monkeypatch.setattr(linear_deep_fit, "_ENOUGH", 1000)
    assert size(image) < 1.1 * full


def test_damaged_streams_raise_what_the_codec_expects_or_give_other_pixels():
    image, rng = picture("12 bits high", (9, 8, 3)), np.random.default_rng(5)
    codec, stack = linear.codec(image.shape, 16), BitStack()
    codec.push(stack, image)
    whole = stack.to_bytes()
    for trial in range(24):
        changed = bytearray(whole)
        changed[-1 - trial % 12 if trial < 12 else int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        try:
            back = codec.pop(BitStack.from_bytes(bytes(changed)))
            assert back.shape == image.shape and back.dtype == np.uint16
        except (CorruptFile, InvalidInput, OutOfBits):
            pass

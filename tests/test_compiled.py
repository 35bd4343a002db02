"""Compiled code computes what numpy computes, number by number; and it is not even imported where there is little to do."""

import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

import shvc_lib
from shvc_lib import data, nn, parallel, zoo
from shvc_lib.coding import Ahead, BitStack, ahead, bitstack, discretized, laplace, logistic, logistic_mixture
from shvc_lib.errors import OutOfBits
from shvc_lib.models import linear, linear_fit, linear_net, linear_net_compiled, linear_net_inputs


def made(rng, number, components, size, extreme):
    """A distribution over `size` integers for each of `number` symbols, and symbols in and far out of its middle."""
    means = rng.integers(-20 * 16, (size + 20) * 16, (number, components)) if extreme else rng.integers(0, 16 * size, (number, 1)) + rng.integers(-99, 99, (number, components))
    scales = rng.integers(0, 192, (number, components)) if extreme else rng.integers(20, 90, (number, components))
    weights = rng.multinomial(4096, np.ones(components) / components, number)
    weights[::7] = 4096 * np.eye(components, dtype=int)[rng.integers(0, components, len(weights[::7]))]
    symbols = np.where(rng.random(number) < 0.2, rng.integers(0, size, number), np.clip(means[:, 0] // 16, 0, size - 1))
    return (logistic_mixture(means, scales, weights, size) if components > 1 else logistic(means[:, 0], scales[:, 0], size)), symbols


def both_ways(monkeypatch, stack, cdf):
    """What pop returns and what it leaves, tabulating and searching."""
    found = []
    for many in (1 << 60, 0):
        monkeypatch.setattr(bitstack, "_MANY", many)
        copy = stack.copy()
        found.append((copy.pop(cdf), copy))
    return found


@pytest.mark.parametrize("extreme", [False, True])
@pytest.mark.parametrize("components,size", [(1, 2), (1, 3), (1, 100), (1, 256), (2, 256), (5, 256), (3, 7), (1, 257), (1, 1 << 12), (1, 1 << 16)])
def test_searching_finds_what_tabulating_finds(monkeypatch, components, size, extreme):
    rng = np.random.default_rng(components * size)
    number = 3000 if size <= 256 else 60
    cdf, symbols = made(rng, number, components, size, extreme)
    stack = BitStack.random(777)
    stack.push(symbols, cdf)
    (tabulated, left), (searched, also_left) = both_ways(monkeypatch, stack, cdf)
    assert (searched == symbols).all() and (tabulated == symbols).all()
    assert searched.dtype == tabulated.dtype and left == also_left == BitStack.random(777)


@pytest.mark.parametrize("seed", range(5))
def test_random_bits_are_the_same_symbols(monkeypatch, seed):
    """Whatever is on the stack, also what no encoder would have left there."""
    rng = np.random.default_rng(seed)
    cdf, _ = made(rng, 2000, 1 + seed, 256, True)
    (tabulated, left), (searched, also_left) = both_ways(monkeypatch, BitStack.random(100_000, seed), cdf)
    assert (tabulated == searched).all() and left == also_left


def test_windows_families_and_blocks(monkeypatch):
    rng, number = np.random.default_rng(3), 1000
    lower = rng.integers(-500, 500, number).astype(np.int32)
    cdf = laplace(16 * lower + rng.integers(0, 16 * 40, number), rng.integers(0, 120, number), 40, lower)
    monkeypatch.setattr(bitstack, "_BLOCK", 64)
    (tabulated, left), (searched, also_left) = both_ways(monkeypatch, BitStack.random(50_000, 1), cdf)
    assert (tabulated == searched).all() and left == also_left and ((searched >= lower) & (searched < lower + 40)).all()


def test_a_deep_stack(monkeypatch):
    """Most words lie in chunks below the coder."""
    rng = np.random.default_rng(0)
    monkeypatch.setattr(bitstack, "_TOP", 8)
    stack, known = BitStack(), []
    for _ in range(6):
        cdf, symbols = made(rng, 500, 1, 256, False)
        stack.push(symbols, cdf)
        known.append((cdf, symbols))
    monkeypatch.setattr(bitstack, "_MANY", 0)
    for cdf, symbols in reversed(known):
        assert (stack.pop(cdf) == symbols).all()
    assert stack == BitStack()


def test_symbols_that_take_more_words_than_are_copied_first(monkeypatch):
    """Twenty-four bits a symbol, of which a quarter of a word is laid out to begin with: searched for again, not tabulated."""
    number = 3 << 14
    cdf, symbols = logistic(np.zeros(number, dtype=int), np.full(number, 10)), np.random.default_rng(8).integers(200, 256, number)
    stack = BitStack.random(99)
    stack.push(symbols, cdf)
    assert stack.bits > 20 * number
    monkeypatch.setattr(BitStack, "_tabulate", None)
    assert (stack.pop(cdf) == symbols).all() and stack == BitStack.random(99)


def test_running_out_leaves_the_stack_as_it_was(monkeypatch):
    cdf, _ = made(np.random.default_rng(0), 4000, 5, 256, True)
    for many in (0, 1 << 60):
        monkeypatch.setattr(bitstack, "_MANY", many)
        stack = BitStack.random(5000)
        with pytest.raises(OutOfBits, match="5000 bits, too few to pop 4000 symbols"):
            stack.pop(cdf)
        assert stack == BitStack.random(5000)


def test_overdrawn_stacks(monkeypatch):
    """A stack that may be overdrawn gives the same symbols, whether its words last or not, and so does one that is overdrawn already."""
    cdf, _ = made(np.random.default_rng(0), 300, 5, 256, True)
    for bits in (100_000, 500, 40, 3):
        stack = BitStack.random(bits)
        stack.overdraft = True
        copy = stack.copy()
        copy.overdraft = True
        for _ in range(2):
            found = []
            for many, own in ((0, stack), (1 << 60, copy)):
                monkeypatch.setattr(bitstack, "_MANY", many)
                found.append(own.pop(cdf))
            assert np.array_equal(*found) and np.array_equal(stack.words(), copy.words()) and stack.bits == copy.bits
        assert (stack.bits < 0) == (bits < 1000)


def test_exactly_enough_bits(monkeypatch):
    """The last symbol empties the stack, and one more is too many."""
    monkeypatch.setattr(bitstack, "_MANY", 0)
    cdf, symbols = made(np.random.default_rng(1), 300, 1, 256, False)
    stack = BitStack()
    stack.push(symbols, cdf)
    assert (stack.pop(cdf) == symbols).all() and stack.bits == 0
    with pytest.raises(OutOfBits):
        stack.pop(logistic(np.zeros(10, dtype=int), np.full(10, 191)))


@pytest.mark.parametrize("cdf", [made(np.random.default_rng(1), 20, 2, 1000, False)[0], logistic_mixture(*np.full((2, 20, 1), 50), np.full((20, 1), 4096))])
def test_other_mixtures_are_tabulated(monkeypatch, cdf):
    """Those over many levels, and those of one component. There is no search for them, and none is tried."""
    symbols = np.arange(20) * 7
    assert cdf.searched(0, 1) is None
    stack = BitStack()
    stack.push(symbols, cdf)
    monkeypatch.setattr(bitstack, "_MANY", 0)
    assert (stack.pop(cdf) == symbols).all()


def linear_case(rng, shape):
    """An image, part noise and part photograph, and one set of parameters per step, some of them the largest that a stream can say."""
    image = np.tile(data.photograph("chelsea")[100:, 100:], (1, 1, 2))[:shape[0], :shape[1], :shape[2]].copy()
    image[shape[0] // 2:] = rng.integers(0, 256, image[shape[0] // 2:].shape)

    def parameters(step):
        default = linear.default_parameters(step)
        if rng.random() < 0.3:
            return default
        most = rng.choice([300, linear.MEAN_LIMIT])
        return linear.Parameters(rng.integers(-most, most, default.mean.size, dtype=np.int32),
                                 rng.integers(0, rng.choice([100, linear.SPREAD_LIMIT]), default.spread.size, dtype=np.int32), default.scales)
    return image, parameters


@pytest.mark.parametrize("canvas_of", [linear.Canvas, linear_net_inputs.NetCanvas])
@pytest.mark.parametrize("shape", [*((5, width, 2) for width in range(3, 42)), (1, 1, 1), (1, 7, 3), (9, 1, 4), (2, 2, 3), (3, 5, 3), (8, 8, 1), (17, 4, 3), (40, 61, 3), (33, 130, 4)])
def test_means_and_classes_of_linear(monkeypatch, canvas_of, shape):
    rng = np.random.default_rng(sum(shape))
    image, parameters = linear_case(rng, shape)
    canvas = canvas_of(shape)
    canvas.pixels[0, 0] = image[0, 0]
    for step in linear.steps(shape):
        tried, found = [parameters(step), parameters(step)], []
        for large in (1 << 60, 0):
            monkeypatch.setattr(linear, "LARGE", large)
            found.append(linear.predict(canvas, step, *tried))
        for (means, classes), (compiled_means, compiled_classes) in zip(*found):
            assert np.array_equal(means, compiled_means) and np.array_equal(classes, compiled_classes)
            assert compiled_means.dtype == means.dtype and compiled_classes.dtype == classes.dtype
        canvas.write(step, image[step.rows[:, None], step.columns, step.channel].reshape(-1).astype(np.int32), found[0][0][0])


def narrow(components, lean):
    """A LinearNet of an odd width, as it is before any training, but with louder answers; its exact twin."""
    torch.manual_seed(components)
    model = linear_net.LinearNet(width=7, components=components, lean=lean)
    with torch.no_grad():
        for head in model.heads:
            head[-1].weight *= 10
    photograph = data.photograph("chelsea")
    return linear_net.exact_twin(model, np.stack([photograph[k:k + 64, k:k + 64] for k in (0, 50, 100)]))


@pytest.mark.parametrize("shape", [(1, 2, 3), (20, 33, 1), (70, 150, 3)])
@pytest.mark.parametrize("net", [None, (1, True), (2, True), (1, False)])
def test_mixtures_of_linear_net(net, shape):
    net, rng = narrow(*net) if net else zoo.load("linear-net"), np.random.default_rng(shape[1])
    image, _ = linear_case(rng, shape)
    canvas = linear_net_inputs.NetCanvas(shape)
    canvas.pixels[0, 0] = image[0, 0]
    for step, _, parameters, (means, classes), symbols in linear_fit.choices(image, canvas):
        scales = parameters.scales[classes]
        for tuning in (None, rng.integers(-linear_net.TUNING_LIMIT, linear_net.TUNING_LIMIT, 6 * net.components)):
            one = linear_net._mixture(linear_net._outputs(net, canvas, step, means, scales), means, scales, tuning)
            where = step.rows.size, step.columns.size
            sent = np.zeros(6 * net.components, int) if tuning is None else tuning
            fill, own_means, *found = linear_net_compiled.mixtures_by_rows(net, canvas, step, parameters, linear_net_compiled.layers_of(linear_net.head_of(net, step)),
                                                                          sent.astype(np.int64).reshape(2, -1) << 12 - linear_net.TUNING_BITS)
            for first in range(0, where[0], 5):  # in pieces, and not in order
                fill(first, min(first + 2, where[0]))
            for first in range(2, where[0], 5):
                fill(first, min(first + 3, where[0]))
            values = [own.reshape(-1, net.components) for own in found]
            other = logistic_mixture(*values) if net.components > 1 else logistic(values[0][:, 0], values[1][:, 0])
            assert all(np.array_equal(getattr(one, name), getattr(other, name)) for name in ("_means", "_scales", "_weights"))
            assert (found[2].sum(-1) == discretized.WEIGHT_TOTAL).all() and np.array_equal(own_means.reshape(-1), means)


@pytest.mark.parametrize("model", ["linear", "linear-net"])
def test_files_are_read_both_ways(monkeypatch, model):
    image = data.photograph("chelsea")[:150, :170]
    written = shvc_lib.encode(image, model=model)
    monkeypatch.setattr(ahead, "BAND", 500)
    for large, many in ((1 << 60, 1 << 60), (0, 0)):
        for module in (linear, linear_net, linear_net_inputs):
            monkeypatch.setattr(module, "LARGE", large)
        monkeypatch.setattr(bitstack, "_MANY", many)
        for workers in (1, 2, 3):
            assert np.array_equal(shvc_lib.decode(written, workers=workers), image)
        assert shvc_lib.encode(image, model=model) == written


@pytest.mark.parametrize("components", [1, 3])
@pytest.mark.parametrize("threads", [0, 1, 3])
def test_parameters_that_come_while_symbols_are_popped(monkeypatch, components, threads):
    """Band by band, by whichever thread, each row once; and as many as the symbols need that were asked for."""
    rng, shape, seen = np.random.default_rng(threads), (50, 30, components), []
    given = rng.integers(-2000, 6000, shape), rng.integers(0, 192, shape), rng.multinomial(4096, np.ones(components) / components, shape[:2])
    arrays = [np.full(shape, -1 << 30, dtype=np.int32) for _ in given]
    monkeypatch.setattr(ahead, "BAND", 100)
    monkeypatch.setattr(bitstack, "_BLOCK", 70)
    monkeypatch.setattr(bitstack, "_MANY", 0)

    def fill(first, last):
        seen.append((first, last))
        for to, values in zip(arrays, given):
            to[first:last] = values[first:last]

    flat = [values.reshape(-1, components) for values in given]
    plain = logistic_mixture(*flat) if components > 1 else logistic(flat[0][:, 0], flat[1][:, 0])
    stack = BitStack.random(40_000)
    other, want = stack.copy(), plain.intervals(np.arange(1500) % 256)
    with ThreadPoolExecutor(max(threads, 1)) as pool:
        cdf = Ahead(fill, *arrays[:2], arrays[2] if components > 1 else None, pool if threads else None)
        if not threads:
            cdf.searched(0, 100)
            assert seen == [(0, 3), (3, 6)]  # rows of thirty, three a band
        assert np.array_equal(stack.pop(cdf), other.pop(plain)) and stack == other
    seen = sorted(seen)
    assert [first for first, _ in seen] == [0, *(last for _, last in seen[:-1])] and seen[-1][1] == 50 and len(seen) == 15
    assert np.array_equal(cdf.intervals(np.arange(1500) % 256), want) and np.array_equal(cdf.masses(3, 9), plain.masses(3, 9))


def test_an_error_in_another_thread_is_raised_here():
    def fill(first, last):
        raise ValueError(f"row {first}")

    arrays = np.zeros((2, 600, 100, 1), dtype=np.int32)
    with ThreadPoolExecutor(2) as pool, pytest.raises(ValueError, match="row"):
        Ahead(fill, *arrays, None, pool).finish()


def test_who_may_use_how_many_threads():
    """Nobody by itself; the workers that are not needed for tiles help with these."""
    with ahead.helpers() as pool:
        assert pool is None

    def asked(_):
        with ahead.helpers() as pool:
            return bytes([pool._max_workers if pool else 0, threading.active_count() > 1])

    assert [own[0] for own in parallel.over(asked, [1], 4)] == [3] and [own[0] for own in parallel.over(asked, [1, 2], 4)] == [1, 1]
    assert [own[0] for own in parallel.over(asked, [1, 2, 3], 2)] == [0, 0, 0] and asked(0)[0] == 0


@pytest.mark.parametrize("arithmetic", ["float64", "int64"])
def test_who_asks_for_another_arithmetic_gets_it(monkeypatch, arithmetic):
    """The slow paths are there to check the fast ones."""
    image, net = data.photograph("chelsea")[:40, :50], zoo.load("linear-net")
    stack = BitStack()
    linear_net.codec(net, image.shape).push(stack, image)
    monkeypatch.setattr(linear_net, "LARGE", 0)
    monkeypatch.setattr(linear_net, "_compiled", None)
    with nn.arithmetic(net, arithmetic):
        assert np.array_equal(linear_net.codec(net, image.shape).pop(stack), image)


def test_small_images_are_decoded_without_numba():
    """Importing it takes longer than they do."""
    program = ("import sys, numpy as np, shvc_lib; image = np.arange(64 * 64 * 3).reshape(64, 64, 3) * 7 % 251; image = image.astype(np.uint8);"
               "assert (shvc_lib.decode(shvc_lib.encode(image, model='linear')) == image).all(); assert 'numba' not in sys.modules;"
               "image = np.tile(image, (5, 5, 1)); assert (shvc_lib.decode(shvc_lib.encode(image, model='linear')) == image).all(); assert 'numba' in sys.modules")
    subprocess.run([sys.executable, "-c", program], check=True)


def test_without_a_place_for_machine_code(monkeypatch):
    """Where nothing can be kept, it is compiled each time."""
    from numba.core import dispatcher

    from shvc_lib.coding.compiled import compiled

    def nowhere(*_):
        raise RuntimeError("cannot cache function: no locator available")

    monkeypatch.setattr(dispatcher, "FunctionCache", nowhere)
    assert compiled(nogil=True)(lambda x: x + 1)(2) == 3


def test_the_weights_of_a_mixture_reach_the_largest_entry():
    """What the search multiplies stays below 2^63, and so does what numpy adds up in int32."""
    assert discretized.WEIGHT_TOTAL * (1 << 24 >> 6) < 1 << 31

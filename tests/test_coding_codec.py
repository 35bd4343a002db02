"""Codecs: round trips in order, sums of bits, and nothing changed when anything fails."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shvc_lib.coding import BitStack, Categorical, Codec, Uniform, autoregressive, independent, logistic, sequence
from shvc_lib.errors import InvalidInput, OutOfBits
from strategies import coded, count_of, stacks


pytestmark = pytest.mark.filterwarnings("error")  # numpy's too


def check(codec, x, stack, equal):
    """The contract that every codec keeps: pop(push(x)) == x, the stack restored, at most bits(x) + 64."""
    before = stack.copy()
    codec.push(stack, x)
    assert stack.bits - before.bits <= codec.bits(x) + 64
    equal(codec.pop(stack), x)
    assert stack == before
    empty = BitStack()
    codec.push(empty, x)
    assert 8 * len(empty.to_bytes()) <= codec.bits(x) + 64


def same_groups(a, b):
    assert len(a) == len(b)
    for x, y in zip(a, b):
        np.testing.assert_array_equal(x, y)


@given(coded(), stacks())
@settings(max_examples=80, deadline=None)
def test_independent(model, stack):
    cdf, symbols = model
    check(independent(cdf, count_of(cdf, symbols.size)), symbols, stack, np.testing.assert_array_equal)


@given(st.lists(coded(most=15), min_size=1, max_size=5), stacks())
@settings(max_examples=50, deadline=None)
def test_sequence(models, stack):
    codec = sequence(*[independent(cdf, count_of(cdf, x.size)) for cdf, x in models])
    x = tuple(x for _, x in models)
    check(codec, x, stack, same_groups)
    assert codec.bits(x) == pytest.approx(sum(cdf.bits(x).sum() for cdf, x in models))


def test_sequence_pops_in_the_order_given():
    stack, codec = BitStack(), sequence(independent(Uniform(10), 2), independent(Uniform(7), 1))
    codec.push(stack, ([1, 2], [3]))
    assert stack.pop(Uniform(10), 2).tolist() == [1, 2] and stack.pop(Uniform(7), 1).tolist() == [3] and stack == BitStack()
    nested = sequence(codec, independent(Uniform(3), 1))
    nested.push(stack, (([9, 0], [6]), [2]))
    (a, b), c = nested.pop(stack)
    assert (a.tolist(), b.tolist(), c.tolist()) == ([9, 0], [6], [2]) and stack == BitStack()


def rows_of_differences():
    """Four rows of an image, each predicted from the row above: the means are arithmetic on what was received."""
    above = yield Categorical(np.ones((6, 256)))
    for _ in range(3):
        above = yield logistic(above * 16 + 3, 60 + above % 7)


@given(st.integers(0, 2**32), stacks())
@settings(max_examples=40, deadline=None)
def test_autoregressive(seed, stack):
    rng = np.random.default_rng(seed)
    check(autoregressive(rows_of_differences), list(rng.integers(0, 256, (4, 6))), stack, same_groups)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int64, list])
def test_autoregressive_sees_the_same_numbers_on_both_sides(dtype):
    """`above * 16` wraps around in uint8. Popping gives int32, so pushing must compute with int32 too."""
    rows = np.random.default_rng(0).integers(100, 256, (4, 6))
    x = [row.tolist() for row in rows] if dtype is list else list(rows.astype(dtype))
    stack, codec = BitStack(), autoregressive(rows_of_differences)
    codec.push(stack, x)
    same_groups(codec.pop(stack), rows)


def test_autoregressive_over_codecs_sees_the_same_numbers():
    def model():
        x = yield independent(Uniform(256), 3)
        yield logistic(x * 16, [30, 30, 30])

    stack, x = BitStack(), [np.array([200, 201, 255], np.uint8), np.array([200, 201, 255], np.uint8)]
    codec = autoregressive(model)
    codec.push(stack, x)
    same_groups(codec.pop(stack), x)


def test_a_model_may_not_change_what_was_given():
    def model():
        x = yield Categorical(np.ones((3, 16)))
        x += 1
        yield Categorical(np.ones((3, 16)))

    x = [np.array([1, 2, 3], np.int32), np.array([4, 5, 6], np.int32)]
    autoregressive(model).push(BitStack(), x)
    assert x[0].tolist() == [1, 2, 3]


def test_autoregressive_order_and_empty_model():
    stack, codec = BitStack(), autoregressive(rows_of_differences)
    x = list(np.full((4, 6), 9))
    codec.push(stack, x)
    assert stack.pop(Categorical(np.ones((6, 256)))).tolist() == [9] * 6  # the first request is answered first
    nothing = autoregressive(lambda: iter(()))
    nothing.push(stack, [])
    assert nothing.pop(BitStack()) == [] and nothing.bits([]) == 0


def failing(codec, x, action="push", error=InvalidInput):
    stack = BitStack.random(90, seed=4)
    before = stack.copy()
    with pytest.raises(error) as caught:
        codec.push(stack, x) if action == "push" else codec.pop(stack)
    assert stack == before and "\n" not in str(caught.value)
    if action == "push":
        with pytest.raises(error):
            codec.bits(x)


@pytest.mark.parametrize("x", [([1], [2]), ([1], [2], [3], [4]), ([1], [2], [300]), ([300], [2], [3]), ([1], [2.5], [3]), ([1, 1], [2], [3]),
                               ([], [2], [3]), 5, None, "abc", {0: [1], 1: [2], 2: [3]}])
def test_sequence_is_all_or_nothing(x):
    failing(sequence(*[independent(Uniform(256), 1)] * 3), x)


@pytest.mark.parametrize("x", [[], [np.zeros(6, int)] * 3, [np.zeros(6, int)] * 5, [np.zeros(5, int)] * 4, [np.zeros(6)] * 4,
                               [np.full(6, 256)] * 4, [*[np.zeros(6, int)] * 3, np.full(6, -1)], 3, None, [None] * 4])
def test_autoregressive_is_all_or_nothing(x):
    failing(autoregressive(rows_of_differences), x)


def test_pops_are_all_or_nothing():
    failing(sequence(independent(Uniform(256), 5), independent(Uniform(256), 50)), None, "pop", OutOfBits)
    failing(autoregressive(rows_of_differences), None, "pop", OutOfBits)


def test_a_model_that_raises_leaves_the_stack():
    def model():
        yield Categorical(np.ones((1, 4)))
        raise RuntimeError("broken model")

    stack = BitStack.random(90, seed=4)
    before = stack.copy()
    for action in (lambda: autoregressive(model).pop(stack), lambda: autoregressive(model).push(stack, [[1], [1]])):
        with pytest.raises(RuntimeError):
            action()
        assert stack == before


def test_bad_codecs():
    for make in (lambda: independent(None), lambda: independent([0.5, 0.5]), lambda: independent(Uniform(4)), lambda: independent(Uniform(4), 0),
                 lambda: independent(Uniform(4), 1.5)):
        with pytest.raises(InvalidInput):
            make()
    failing(independent(Uniform(4), 3), [1, 2])
    assert isinstance(independent(Uniform(4), 3), Codec)

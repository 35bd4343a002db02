"""Codecs: things that can be pushed onto a stack and popped again, and ways of building them from smaller ones.

A codec owns three functions. `push(stack, x)` and `pop(stack)` are inverses, `pop(push(x)) == x`, whatever lies below on the stack;
`bits(x)` is the ideal codelength under the very integers the coder uses. A push of anything
drawn from the model costs at most `bits(x)` + 64; a million repeats of one symbol can cost some hundred bits more, because integer
division then rounds the same way every time. A stack reverses order, so what is pushed in several steps is pushed backwards. Taught in
chapter 1, *Codes*.
"""

from contextlib import contextmanager
from typing import Any, Callable, NamedTuple

import numpy as np

from ..errors import InvalidInput
from .cdf import IntegerCDF
from .checks import integer, integers


@contextmanager
def all_or_nothing(stack):
    """Restore the stack when anything inside raises."""
    before = stack.copy()
    try:
        yield
    except BaseException:
        stack.restore(before)
        raise


class Codec(NamedTuple):
    """push(stack, x) -> None; pop(stack) -> x; bits(x) -> ideal codelength in bits (float)."""

    push: Callable[[Any, Any], None]
    pop: Callable[[Any], Any]
    bits: Callable[[Any], float]


def independent(cdf, count=None):
    """Symbols that are independent under one IntegerCDF; `count` for a model with a shared row."""
    if not isinstance(cdf, IntegerCDF):
        raise InvalidInput(f"cdf must be an IntegerCDF, got {type(cdf).__name__}")
    if cdf.shape is None:
        integer("count (this model has one row for any number of symbols)", count, 1)

    def check(x):
        x = integers("symbols", x)
        if cdf.shape is None and x.size != count:  # pop would return another number of symbols
            raise InvalidInput(f"{x.size} symbols were given to a codec of {count}")
        return x

    return Codec(lambda stack, x: stack.push(check(x), cdf), lambda stack: stack.pop(cdf, count), lambda x: float(cdf.bits(check(x)).sum()))


def sequence(*codecs):
    """Several codecs one after the other: x is a tuple with one entry per codec, popped in the order given."""

    def check(x):
        if not isinstance(x, (tuple, list)):
            raise InvalidInput(f"a sequence of codecs takes a tuple of values, got {type(x).__name__}")
        if len(x) != len(codecs):
            raise InvalidInput(f"{len(x)} values were given to a sequence of {len(codecs)} codecs")

    def push(stack, x):
        check(x)
        with all_or_nothing(stack):
            for codec, value in zip(reversed(codecs), reversed(x)):
                codec.push(stack, value)

    def pop(stack):
        with all_or_nothing(stack):
            return tuple(codec.pop(stack) for codec in codecs)

    def bits(x):
        check(x)
        return float(sum(codec.bits(value) for codec, value in zip(codecs, x)))

    return Codec(push, pop, bits)


def autoregressive(model):
    """A model p(x_1) p(x_2 | x_1) ... written as a Python generator in decoding order.

    `model()` is a generator that yields the codec of the next value (or the IntegerCDF of the next symbols) and receives that
    value; x is the list of what it received. To pop, the stack answers each request in turn. To push, the known values answer the requests
    first, so that every codec is known, and the pushes then happen in reverse (craystack's `from_generator`, Townsend et al. 2020;
    SHVC calls it local reverse encoding).
    """

    def as_codec(item):
        return independent(item) if isinstance(item, IntegerCDF) else item

    def as_popped(item, value):
        """The value as pop will return it: a generator that computes with it must not see uint8 on one side and int32 on the other."""
        if isinstance(item, IntegerCDF) and item.shape is not None:
            return (item.offsets(value).reshape(item.shape) + item.lower).astype(np.int32)
        if isinstance(value, np.ndarray) and value.dtype.kind in "iu":
            return value.astype(np.int32)
        return value

    def replay(x):
        if not isinstance(x, (tuple, list)):
            raise InvalidInput(f"an autoregressive codec takes a list of values, got {type(x).__name__}")
        generator, codecs = model(), []
        item = next(generator, None)
        for value in x:
            if item is None:
                break
            codecs.append(as_codec(item))
            try:
                item = generator.send(as_popped(item, value))
            except StopIteration:
                item = None
        if item is not None or len(codecs) != len(x):
            raise InvalidInput(f"{len(x)} values were given, which is not the number that the model asks for")
        return codecs

    def push(stack, x):
        codecs = replay(x)
        with all_or_nothing(stack):
            for codec, value in zip(reversed(codecs), reversed(x)):
                codec.push(stack, value)

    def pop(stack):
        generator, x = model(), []
        with all_or_nothing(stack):
            item = next(generator, None)
            while item is not None:
                x.append(as_codec(item).pop(stack))
                try:
                    item = generator.send(x[-1])
                except StopIteration:
                    item = None
        return x

    def bits(x):
        return float(sum(codec.bits(value) for codec, value in zip(replay(x), x)))

    return Codec(push, pop, bits)

"""The samplers of `sampling` behind one interface, for the table of `bench_sampling`: encode, decode, the codec of the indices, candidates looked at.

Indices of importance sampling and of the tree cost their plain bits. Those of the exact samplers and of ordered random coding cost their level in a tree, by
its frequency with another seed, and plain bits within it (`poisson.codec`); dithered cells cost the proposal's mass of them. Taught in chapter 3.
"""

import math
from contextlib import ExitStack
from typing import Callable, NamedTuple
from unittest import mock

import numpy as np

from .coding import TOTAL, Categorical, Codec, weight_index
from .sampling import dither, greedy, groups, importance, index_codes, ordered, poisson, rejection, tree

EXTRA_BITS = 3
SHARD_BITS, WIDTH = 8, 32  # of the greedy sampler
SEED = 7
_CELLS = 2048  # of dithered quantisation, on either side


class Sampler(NamedTuple):
    """encode(target, proposal, seed) -> index; decode(index, target, proposal, seed) -> samples in the target's shape (a receiver needs no more of
    the target than what its plan says, or its scale); codec(index, target, proposal) -> the index's Codec; looked_at(target, proposal, seed) ->
    candidates by sample."""

    name: str
    encode: Callable
    decode: Callable
    codec: Callable
    looked_at: Callable


def _counted(module, encode):
    """How many candidates of one dimension `encode` makes, by dimension: numbers of purpose 0 that `module` asks for."""
    def looked_at(target, proposal, seed):
        counts, known = [], {name: getattr(module, name) for name in ("uniforms", "uniform_rows") if hasattr(module, name)}

        def counting(function):
            def call(*arguments):
                numbers = function(*arguments)
                purpose = {"uniforms": 3, "uniform_rows": 4}[function.__name__]
                counts.append(np.size(numbers) if len(arguments) <= purpose or arguments[purpose] == 0 else 0)
                return numbers
            return call

        with ExitStack() as stack:
            for name, function in known.items():
                stack.enter_context(mock.patch.object(module, name, counting(function)))
            encode(target, proposal, seed)
        return sum(counts) / math.prod(target.shape)
    return looked_at


def _by_level(encode):
    """The codec of indices that are probably small, learned from other samples of the same targets."""
    return lambda index, target, proposal: poisson.codec(encode(target, proposal, SEED + 1), np.size(index))


def _plain(bits):
    return lambda index, target, proposal: index_codes.block(bits(target, proposal), np.size(index))


def _simple(name, module, encode, codec=None, decode=None, looked_at=None):
    decode = decode or (lambda index, target, proposal, seed: module.decode(index, proposal, seed))
    return Sampler(name, encode, decode, codec or _by_level(encode), looked_at or _counted(module, encode))


def _dithered():
    def encode(target, proposal, seed):
        return dither.encode(target, proposal, seed)

    def codec(index, target, proposal):
        cells = np.broadcast_to(np.arange(-_CELLS, _CELLS + 1)[:, None], (2 * _CELLS + 1, index.size))

        def model(part):
            bits = dither.bits(cells[:, part], proposal[part], SEED, target.scale[part], stream=np.arange(index.size)[part])
            return Categorical(1 + weight_index(2.0 ** -bits.T, TOTAL - len(cells)), -_CELLS)

        parts = [slice(first, first + 64) for first in range(0, index.size, 64)]

        def push(stack, values):
            for part in reversed(parts):
                stack.push(values[part], model(part))

        return Codec(push, lambda stack: np.concatenate([stack.pop(model(part)) for part in parts]).astype(np.int64),
                     lambda values: float(dither.bits(values, proposal, SEED, target.scale).sum()))

    return _simple("dithered quantisation", dither, encode, codec, lambda index, target, proposal, seed: dither.decode(index, proposal, seed, target.scale))


def _grouped():
    def encode(target, proposal, seed):
        return groups.encode(target, proposal, seed, extra_bits=EXTRA_BITS)

    return _simple(f"groups of 8 + {EXTRA_BITS} bits", groups, encode, lambda index, target, proposal: groups.codec(index.outliers.size, extra_bits=EXTRA_BITS),
                   looked_at=_counted(importance, encode))


def _greedy():
    def steps(target, proposal):
        return max(1, math.ceil(target.kl(proposal)[:WIDTH].sum() / SHARD_BITS - 1e-9))

    def encode(target, proposal, seed):
        return np.concatenate([greedy.encode(target[first:first + WIDTH], proposal[first:first + WIDTH], seed, steps(target, proposal), SHARD_BITS, first)
                               for first in range(0, target.mean.size, WIDTH)])

    def decode(index, target, proposal, seed):
        walks = index.reshape(-1, steps(target, proposal))
        return np.concatenate([greedy.decode(walk, proposal[WIDTH * i:WIDTH * (i + 1)], seed, SHARD_BITS, WIDTH * i) for i, walk in enumerate(walks)])

    return _simple(f"greedy, {WIDTH} at a time", greedy, encode, _plain(lambda target, proposal: SHARD_BITS), decode)


def _tree(survivors=128):
    def plan(target, proposal):
        return tree.plan(np.rint(target.kl(proposal) * 2**tree.WORTH_BITS).astype(np.int64), SEED)

    def looked_at(target, proposal, seed):
        chosen = plan(target, proposal)
        return tree.candidates(chosen, survivors) * len(chosen.dims) / target.mean.size

    return Sampler(f"tree, {survivors} survivors", lambda target, proposal, seed: tree.encode(target, proposal, seed, plan(target, proposal), survivors),
                   lambda index, target, proposal, seed: tree.decode(index, proposal, seed, plan(target, proposal)),
                   lambda index, target, proposal: tree.codec(plan(target, proposal)), looked_at)


def _ordered(rule):
    return lambda target, proposal, seed: ordered.encode(target, proposal, seed, EXTRA_BITS, rule)


def _searched(rule):
    return _simple("A*" if rule == "a_star" else "greedy Poisson", poisson, lambda target, proposal, seed: poisson.encode(target, proposal, seed, rule),
                   looked_at=lambda target, proposal, seed: poisson.search(target, proposal, seed, rule).visited.mean())


def one_by_one():
    """Samplers of many dimensions with an index for each, or for all."""
    def column(encode):
        return lambda target, proposal, seed: encode(target[:, None], proposal[:, None], seed)

    def line(index, target, proposal, seed):
        return ordered.decode(index, proposal[:, None], seed)[:, 0]

    def weighed(target, proposal, seed):
        sizes = np.ones(target.shape, int)
        return importance.encode(target, proposal, seed, importance.bits_for(target, proposal, EXTRA_BITS, sizes), sizes)

    def alone(index, target, proposal, seed):
        return importance.decode(index, proposal, seed, np.ones(target.shape, int))

    exact = _simple("rejection", rejection, lambda target, proposal, seed: rejection.encode(target, proposal, seed, None),
                    decode=lambda index, target, proposal, seed: rejection.decode(index, proposal, seed, None))
    functional = _simple("Poisson functional", ordered, column(_ordered("poisson")), decode=line)
    return [exact, functional, _searched("a_star"), _searched("greedy"), _dithered(),
            _simple(f"importance, t = {EXTRA_BITS}", importance, weighed,
                    _plain(lambda target, proposal: importance.bits_for(target, proposal, EXTRA_BITS, np.ones(target.shape, int))), alone),
            _simple(f"ordered, t = {EXTRA_BITS}", ordered, column(_ordered("ordered")), decode=line), _grouped(), _greedy(), _tree()]


def in_blocks():
    """Samplers with one index for the last axis of a target."""
    def sizes(target):
        return np.full(target.shape[0], target.shape[1])

    def weighed(target, proposal, seed):
        return importance.encode(target, proposal, seed, importance.bits_for(target, proposal, EXTRA_BITS, sizes(target)), sizes(target))

    return [_simple("Poisson functional", ordered, _ordered("poisson")),
            _simple(f"importance, t = {EXTRA_BITS}", importance, weighed,
                    _plain(lambda target, proposal: importance.bits_for(target, proposal, EXTRA_BITS, sizes(target))),
                    lambda index, target, proposal, seed: importance.decode(index, proposal, seed, sizes(target))),
            _simple(f"ordered, t = {EXTRA_BITS}", ordered, _ordered("ordered"))]

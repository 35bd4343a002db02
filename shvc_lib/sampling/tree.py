"""Tree-coded sampling: one long message instead of many short blocks, found by a beam of survivors.

A block of importance sampling with KL bits wants 2^(KL + t) candidates: more than 20 bits cannot be searched, and every block pays its t. Blocks can be long if the
candidates share beginnings. Take the dimensions one after another; where the divergence so far has grown by b bits, every path splits into 2^b. The
value of the next dimension is a candidate that belongs to the path, made by scrambling the whole path, so that different paths have different futures. All
2^(sum of b) leaves are candidates for the whole vector, and the weight of a leaf, q(x) / p(x), is a product along its path. The sender follows the best
`survivors` of them and drops the others, so that thousands of dimensions are searched in time proportional to their number. This is tree coding (Jelinek 1969)
with the weights of importance sampling; it makes good use of the bits because a dear dimension may borrow from a cheap one anywhere before it.
(Flamich, Havasi and Hernandez-Lobato 2020 search a beam, too, over sums of ever finer refinements of one block.)

The bits of every split are agreed upon beforehand: they follow `worth`, the divergence that both ends expect of each dimension, times a `rate` of a little more
than one. What a dimension really needs is known to the sender alone, and averages out along the path. At 1.05 bits for a bit of divergence the samples are as far from
their targets' means as exact ones; with fewer bits they are shrunk towards the proposal, with more they crowd the mode (measured in chapter 3).

Many paths run side by side, `chains`, each with the same number of dimensions of nearly the same worth, so that all of them split at the same time and numpy
can treat them as rows of one array. What lies between path and candidate are integers, the same on every machine. Taught in chapter 3.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from ..coding import Codec
from ..coding.checks import integer, integers
from ..errors import InvalidInput
from .distributions import Gaussian
from .index_codes import block

WORTH_BITS = 16  # worths are multiples of 2^-16 bits
RATE_STEPS = 64  # rates are multiples of 1 / 64
MOST_SPLIT = 9  # bits of one split; what is left over is spent on the next ones
GRID = 4096  # candidates of N(0, 1) are multiples of 1 / 4096
_NORMAL = np.rint(ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)) * GRID) / GRID
_NORMAL_FLOAT = _NORMAL.astype(np.float32)
_CHILDREN = 1 << 12  # of all survivors of a chain together, at most
_ODD = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


class Plan(NamedTuple):
    """Which dimensions the chains visit, and when they split. dims: int64 (chains, columns), positions in the flat vector; bits: int64 (columns,), of the
    split before each column; rest: int64 (n,), positions of the other dimensions, which are taken from the proposal."""

    dims: np.ndarray
    bits: np.ndarray
    rest: np.ndarray


def plan(worth, seed, rate=1.0625, chains=None, extra=3, least=1 / 256):
    """The Plan of a vector, the same for sender and receiver.

    worth: expected divergence of each dimension, integers in units of 2^-16 bits; rate: bits spent on a bit of worth, a multiple of 1 / 64; extra: bits that
    each chain gets beyond that, at its start; chains: by default one for every 1000 bits, at most 128; least: dimensions worth less than this many bits are not
    searched. Raises InvalidInput.
    """
    worth, steps = integers("worth", worth, 0, 1 << 40).reshape(-1).astype(np.int64), rate * RATE_STEPS
    if steps != int(steps) or steps < 1:
        raise InvalidInput(f"rate must be a positive multiple of 1/{RATE_STEPS}, got {rate!r}")
    order = np.argsort(-worth, kind="stable")
    order = order[: np.count_nonzero(worth >= least * (1 << WORTH_BITS))]
    chains = min(128, 1 + (int(worth[order].sum()) >> WORTH_BITS) // 1000) if chains is None else integer("chains", chains, 1)
    columns = order.size // chains
    kept = order[: columns * chains].reshape(columns, chains)
    kept = kept[np.argsort(_scrambled(np.arange(columns, dtype=np.uint32) * _ODD[1] + np.uint32(seed & 0xFFFFFFFF)), kind="stable")]
    rest = np.setdiff1d(np.arange(worth.size), kept.reshape(-1), assume_unique=True)
    due = (integer("extra", extra, 0, 62) << WORTH_BITS) + np.cumsum(worth[kept].sum(1) // chains) * int(steps) // RATE_STEPS
    bits, spent = np.zeros(columns, np.int64), 0
    for column, total in enumerate((due >> WORTH_BITS).tolist()):
        bits[column] = min(total - spent, MOST_SPLIT)
        spent += int(bits[column])
    return Plan(np.ascontiguousarray(kept.T), bits, rest)


def encode(target, proposal, seed, plan, survivors=128, threads=None):
    """The branch that each chain takes at each of its columns: int64 (chains, columns), below 2^bits.

    target, proposal: Gaussians of one flat shape (n,); survivors: paths that each chain keeps; threads: by default as many as there are processors (they do not
    change the result). Raises InvalidInput.
    """
    if not isinstance(target, Gaussian) or not isinstance(proposal, Gaussian) or target.shape != proposal.shape or len(target.shape) != 1:
        raise InvalidInput("target and proposal must be Gaussians of one flat shape")
    seen = target.relative_to(proposal)
    mean, precision = seen.mean[plan.dims], seen.scale[plan.dims] ** -2
    square, slope = (0.5 - 0.5 * precision).astype(np.float32), (mean * precision).astype(np.float32)  # log q / p = square g^2 + slope g + constant
    survivors, chains = integer("survivors", survivors, 1, _CHILDREN), len(plan.dims)
    threads = min(chains, (os.cpu_count() or 1) if threads is None else integer("threads", threads, 1))
    parts = np.array_split(np.arange(chains), max(1, threads))

    def run(rows):
        return _beam(square[rows], slope[rows], plan.bits, _roots(seed, rows), survivors) if rows.size else np.zeros((0, plan.bits.size), np.int64)

    with ThreadPoolExecutor(len(parts)) as pool:
        return np.concatenate(list(pool.map(run, parts)))


def decode(index, proposal, seed, plan):
    """The sample, float64 (n,). Follows one path per chain. Raises InvalidInput for an index that does not fit the plan."""
    return proposal.mean + proposal.scale * standard(index, seed, plan)


def standard(index, seed, plan):
    """The sample as `decode` returns it for the proposal N(0, 1): multiples of 1 / GRID, float64 (n,)."""
    index = integers("index", index, 0, (1 << MOST_SPLIT) - 1)
    if index.shape != plan.dims.shape or (index >> plan.bits).any():
        raise InvalidInput(f"these branches do not fit a plan of {plan.dims.shape[0]} chains and {plan.dims.shape[1]} columns")
    out, state = np.empty(plan.dims.size + plan.rest.size), _roots(seed, np.arange(len(plan.dims)))
    for column, dims in enumerate(plan.dims.T):
        state = _child(state, index[:, column].astype(np.uint32), column)
        out[dims] = _NORMAL[state >> np.uint32(16)]
    out[plan.rest] = _NORMAL[_scrambled(_roots(seed, plan.rest) ^ _ODD[2]) >> np.uint32(16)]
    return out


def codec(plan):
    """The codec of an index: all leaves are alike, so a split of b bits costs b bits."""
    chains, columns = plan.dims.shape
    splits = np.flatnonzero(plan.bits)
    inner = block(np.tile(plan.bits[splits], chains), chains * splits.size) if chains * splits.size else None

    def pop(stack):
        index = np.zeros((chains, columns), np.int64)
        if inner:
            index[:, splits] = inner.pop(stack).reshape(chains, -1)
        return index

    def flat(index):
        return np.ascontiguousarray(np.asarray(index)[:, splits]).reshape(-1)

    return Codec(lambda stack, index: inner.push(stack, flat(index)) if inner else None, pop, lambda index: inner.bits(flat(index)) if inner else 0.0)


def _scrambled(x):
    """32 bits, scrambled (uint32 array, not changed)."""
    x = x ^ x >> np.uint32(16)
    x *= _ODD[1]
    x ^= x >> np.uint32(13)
    x *= _ODD[2]
    x ^= x >> np.uint32(16)
    return x


def _roots(seed, rows):
    """The states in which chains begin."""
    low, high = np.uint32(seed & 0xFFFFFFFF), np.uint32(seed >> 32 & 0xFFFFFFFF)
    return _scrambled(_scrambled(rows.astype(np.uint32) * _ODD[0] + low) ^ high)


def _child(state, branch, column):
    """The state after a branch: what the path was, scrambled with where it went. The high bits of a state name its candidate."""
    return _scrambled(state * _ODD[0] + branch * _ODD[1] + np.uint32(column))


def _beam(square, slope, bits, roots, survivors):
    """Branches of the best path of each row; see `encode`."""
    rows, columns = square.shape
    state, score, history = roots[:, None], np.zeros((rows, 1), np.float32), []
    for column, b in enumerate(bits.tolist()):
        few = min(survivors, _CHILDREN >> b)
        parents = None
        if b and state.shape[1] > few:
            parents = np.argpartition(score, -few, 1)[:, -few:]
            state, score = np.take_along_axis(state, parents, 1), np.take_along_axis(score, parents, 1)
        state = _child(state[:, :, None], np.arange(1 << b, dtype=np.uint32), column).reshape(rows, -1)
        value = _NORMAL_FLOAT[state >> np.uint32(16)]
        gain = value * square[:, column, None]
        gain += slope[:, column, None]
        gain *= value
        gain -= gain.max(1, keepdims=True)
        if b:
            score = (gain.reshape(rows, -1, 1 << b) + score[:, :, None]).reshape(rows, -1)
            history.append((column, b, parents))
        else:
            score = score + gain
    chosen, index = score.argmax(1), np.zeros((rows, columns), np.int64)
    for column, b, parents in reversed(history):
        index[:, column] = chosen & (1 << b) - 1
        chosen = chosen >> b
        if parents is not None:
            chosen = parents[np.arange(rows), chosen]
    return index

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

A dear dimension is chosen from at most 8192 candidates: up to 8 bits it is found about as well as others, at 12 bits it lands several scales from its mean.

Many paths run side by side, `chains`, each with the same number of dimensions of nearly the same worth, so that all of them split at the same time and numpy
can treat them as rows of one array. What lies between path and candidate are integers, the same on every machine. Taught in chapter 3.
"""

import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import numpy as np
from scipy.special import ndtri

from ..coding import Codec
from ..coding.checks import array, integer, integers
from ..errors import InvalidInput
from .distributions import Gaussian
from .index_codes import block
from .randomness import LARGEST

WORTH_BITS = 16  # worths are multiples of 2^-16 bits
RATE_STEPS = 64  # rates are multiples of 1 / 64
MOST_SPLIT = 9  # bits of one split; what is left over is spent on the next ones
GRID = 4096  # candidates of N(0, 1) are multiples of 1 / 4096
_NORMAL = np.rint(ndtri((np.arange(1 << 16) + 0.5) / (1 << 16)) * GRID) / GRID
_NORMAL_FLOAT = _NORMAL.astype(np.float32)
_CHILDREN = 1 << 13  # of all survivors of a chain together, at most; a power of two
_FARTHEST = 2.0**16  # means beyond this, and scales below its inverse, make no difference among candidates
_CARRIED = 4  # times as many paths as there may be survivors are taken along where nothing splits
_ODD = np.uint32(0x9E3779B1), np.uint32(0x85EBCA6B), np.uint32(0xC2B2AE35)


class Plan(NamedTuple):
    """Which dimensions the chains visit, and when they split. dims: int64 (chains, columns), positions in the flat vector of `size` numbers, or `size` where
    a chain has none; bits: int64 (columns,), of the split before each column; rest: int64, positions of the other dimensions, which are taken from the proposal."""

    dims: np.ndarray
    bits: np.ndarray
    rest: np.ndarray
    size: int


def plan(worth, seed, rate=1.0625, chains=None, extra=3, least=1 / 256):
    """The Plan of a vector, the same for sender and receiver.

    worth: expected divergence of each dimension, integers in units of 2^-16 bits, below 2^30; rate: bits spent on a bit of worth, a multiple of 1 / 64 up to 16;
    extra: bits that each chain gets beyond that, at its start; chains: by default one for every 1000 bits, at most 128; least: dimensions worth less than this
    many bits are not searched. No column gets more than 9 bits, and what the last one leaves is not spent. Raises InvalidInput.
    """
    worth, seed = integers("worth", worth, 0, 1 << 30).reshape(-1).astype(np.int64), integer("seed", seed, 0, LARGEST)
    if not isinstance(rate, (int, float)) or not 0 < rate <= 16 or rate * RATE_STEPS % 1:
        raise InvalidInput(f"rate must be a multiple of 1/{RATE_STEPS} above 0 and at most 16, got {rate!r}")
    order = np.argsort(-worth, kind="stable")[: np.count_nonzero(worth >= least * (1 << WORTH_BITS))]
    most = min(128, 1 + (int(worth[order].sum()) >> WORTH_BITS) // 1000, max(1, order.size))
    chains = most if chains is None else integer("chains", chains, 1, 1 << 16)
    kept = np.append(order, np.full(-order.size % chains, worth.size)).reshape(-1, chains)
    columns = np.arange(len(kept), dtype=np.uint32)
    kept = kept[np.argsort(_scrambled(columns * _ODD[1] + np.uint32(seed & 0xFFFFFFFF)), kind="stable")]
    rest = np.setdiff1d(np.arange(worth.size), kept.reshape(-1), assume_unique=True)
    expected = np.cumsum(np.append(worth, 0)[kept].sum(1) // chains)
    due = (integer("extra", extra, 0, 62) << WORTH_BITS) + expected * int(rate * RATE_STEPS) // RATE_STEPS
    bits, spent = np.zeros(columns.size, np.int64), 0
    for column, total in enumerate((due >> WORTH_BITS).tolist()):
        bits[column] = min(total - spent, MOST_SPLIT)
        spent += int(bits[column])
    return Plan(np.ascontiguousarray(kept.T), bits, rest, worth.size)


def encode(target, proposal, seed, plan, survivors=128, threads=None):
    """The branch that each chain takes at each of its columns: int64 (chains, columns), below 2^bits.

    target, proposal: Gaussians of one flat shape (n,); survivors: paths that each chain keeps; threads: by default as many as there are processors (they do not
    change the result). Raises InvalidInput.
    """
    if not isinstance(target, Gaussian) or not isinstance(proposal, Gaussian) or not target.shape == proposal.shape == (plan.size,):
        raise InvalidInput(f"target and proposal must be Gaussians of shape ({plan.size},), as the plan is")
    seed, survivors = integer("seed", seed, 0, LARGEST), integer("survivors", survivors, 1, _CHILDREN)
    seen = target.relative_to(proposal)
    mean = np.clip(np.append(seen.mean, 0), -_FARTHEST, _FARTHEST)[plan.dims]
    precision = np.maximum(np.append(seen.scale, 1), 1 / _FARTHEST)[plan.dims] ** -2
    square, slope = (0.5 * precision - 0.5).astype(np.float32), (-mean * precision).astype(np.float32)  # log p / q = square g^2 + slope g + constant
    chains = len(plan.dims)
    threads = min(chains, (os.cpu_count() or 1) if threads is None else integer("threads", threads, 1))

    def run(rows):
        return _beam(square[rows], slope[rows], plan.bits, _roots(seed, rows), survivors)

    with ThreadPoolExecutor(threads) as pool:
        return np.concatenate(list(pool.map(run, np.array_split(np.arange(chains), threads))))


def candidates(plan, survivors=128):
    """How many candidates `encode` looks at for each chain."""
    width, total = 1, 0
    for b in plan.bits.tolist():
        width = _width(width, b, survivors) << b
        total += width
    return total


def decode(index, proposal, seed, plan):
    """The sample, float64 (n,). Follows one path per chain. Raises InvalidInput for an index that does not fit the plan."""
    if not isinstance(proposal, Gaussian) or proposal.shape != (plan.size,):
        raise InvalidInput(f"proposal must be a Gaussian of shape ({plan.size},), as the plan is")
    return proposal.mean + proposal.scale * standard(index, seed, plan)


def standard(index, seed, plan):
    """The sample as `decode` returns it for the proposal N(0, 1): multiples of 1 / GRID, float64 (n,)."""
    index, seed = _fitting(index, plan), integer("seed", seed, 0, LARGEST)
    out, state = np.empty(plan.size + 1), _roots(seed, np.arange(len(plan.dims)))
    for column, dims in enumerate(plan.dims.T):
        state = _child(state, index[:, column].astype(np.uint32), column)
        out[dims] = _NORMAL[state >> np.uint32(16)]
    out[plan.rest] = _NORMAL[_scrambled(_roots(seed, plan.rest) ^ _ODD[2]) >> np.uint32(16)]
    return out[: plan.size]


def codec(plan):
    """The codec of an index: all leaves are alike, so a split of b bits costs b bits."""
    chains, columns = plan.dims.shape
    splits = np.flatnonzero(plan.bits)
    inner = block(np.tile(plan.bits[splits], chains), chains * splits.size) if splits.size else None

    def pop(stack):
        index = np.zeros((chains, columns), np.int64)
        if inner:
            index[:, splits] = inner.pop(stack).reshape(chains, -1)
        return index

    def flat(index):
        return np.ascontiguousarray(_fitting(index, plan)[:, splits]).reshape(-1)

    def push(stack, index):
        index = flat(index)
        if inner:
            inner.push(stack, index)

    def cost(index):
        index = flat(index)
        return inner.bits(index) if inner else 0.0

    return Codec(push, pop, cost)


def _fitting(index, plan):
    """The branches of an index as int64 (chains, columns). Raises InvalidInput unless they are the plan's."""
    index = array("index", index)
    if index.shape != plan.dims.shape or (index.size and (integers("index", index, 0, (1 << MOST_SPLIT) - 1).astype(np.int64) >> plan.bits).any()):
        raise InvalidInput(f"these branches do not fit a plan of {plan.dims.shape[0]} chains and {plan.dims.shape[1]} columns")
    return index.astype(np.int64)


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


def _width(width, b, survivors):
    """How many of so many paths go on to a split of b bits. Where nothing splits, a few more than survivors may."""
    few = min(survivors, _CHILDREN >> b)
    return few if width > (few if b else _CARRIED * few) else width


def _beam(square, slope, bits, roots, survivors):
    """Branches of the best path of each row; see `encode`. A row's paths lie in one line: the first branch of every parent, then the second branches, ..."""
    rows, columns = square.shape
    state, other = np.empty((2, rows * _CHILDREN), np.uint32)
    loss, other_loss, value = np.empty((3, rows * _CHILDREN), np.float32)
    place, number, row = np.empty(rows * _CHILDREN, np.intp), np.arange(_CHILDREN, dtype=np.int32), np.arange(rows)[:, None]
    branch = np.arange(1 << MOST_SPLIT, dtype=np.uint32)[:, None] * _ODD[1]
    square, slope = (np.ascontiguousarray(table.T)[:, :, None, None] for table in (square, slope))
    parent, lost, width, history = roots[:, None], np.zeros((rows, 1), np.float32), 1, []
    for column, b in enumerate(bits.tolist()):
        few, kept = _width(width, b, survivors), None
        if width > few:  # the paths that have lost least; their numbers take the place of the last bits of what they have lost
            lost -= lost.min(1, keepdims=True)
            key = lost.view(np.int32) & -_CHILDREN
            key |= number[:width]
            key.partition(few - 1, 1)
            kept = key[:, :few] & _CHILDREN - 1
            flat = kept + row * width
            parent, lost, width = parent.reshape(-1)[flat], lost.reshape(-1)[flat], few
        x, y, at, g, gain = (buffer[: rows * width << b].reshape(rows, 1 << b, width) for buffer in (state, other, place, value, loss))
        np.add((parent * _ODD[0])[:, None], branch[: 1 << b] + np.uint32(column), out=x)  # _child, in place
        for shift, factor in ((16, _ODD[1]), (13, _ODD[2])):
            x ^= np.right_shift(x, np.uint32(shift), out=y)
            x *= factor
        at[...] = np.right_shift(x, np.uint32(16), out=y)
        x ^= y
        np.take(_NORMAL_FLOAT, at, out=g, mode="clip")
        np.multiply(g, square[column], out=gain)
        gain += slope[column]
        gain *= g
        gain += lost[:, None]
        history.append((kept, width))
        parent, lost, width = x.reshape(rows, -1), gain.reshape(rows, -1), width << b
        state, other, loss, other_loss = other, state, other_loss, loss
    chosen, index = lost.argmin(1), np.zeros((rows, columns), np.int64)
    for column, (kept, width) in reversed(list(enumerate(history))):
        index[:, column], chosen = np.divmod(chosen, width)
        if kept is not None:
            chosen = kept[row[:, 0], chosen]
    return index

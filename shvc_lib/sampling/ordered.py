"""Ordered random coding and the Poisson functional representation: importance sampling whose index is worth less than it could be.

A block of dimensions is one vector. Both ends know its candidates x_0, x_1, ..., drawn from the proposal p; the sender weighs them by w_i = q(x_i) / p(x_i) and
must pick one with probability proportional to w_i. A race does that: with exponential times E_i the smallest E_i / w_i wins. Plain `importance`
sampling (Havasi et al. 2019) lets independent times race, and then all N numbers are equally likely: log2 N bits.

Ordered random coding (Theis and Yosri 2022) gives the same N times to the candidates in rising order. The sample has the very same distribution and so the
same bias, but early candidates now win more often: the index costs fewer bits under a code that favours small numbers. With N going to infinity the sorted
times become the arrivals of a Poisson process, T_i = E_0 + ... + E_i, and the sample becomes exact: the Poisson functional
representation (Li and El Gamal 2018), KL + log2(KL + 1) + 4 bits at most. The sender may stop as soon as T_i / max w is beyond the best so far.

| in the papers | here |
| --- | --- |
| N, t | 2^(ceil(KL) + `extra_bits`), `extra_bits` |
| E_i, T_i | purpose 1 of the block's first stream: the sender's affair, the receiver needs no times |
| K, N* | `index`, from 0 |

Taught in chapter 3.
"""

import math

import numpy as np

from ..coding.checks import integer, integers
from ..errors import InvalidInput
from .distributions import layout
from .randomness import uniform_rows, uniforms

MOST_BITS = 24
_TIME = 1  # purpose of the random numbers that are times; candidates have purpose 0
_WORK = 1 << 19  # random numbers held at a time


def encode(target, proposal, seed, extra_bits=3, rule="ordered", stream=None):
    """Index of the chosen candidate of each block, int64 from 0, of shape (...) for targets of shape (..., dimensions).

    target, proposal: Gaussian or Discrete, shapes that broadcast; stream: an integer per dimension, by default 0, 1, 2, ... in raster order; with more
    streams than dimensions, one sample is drawn per row of streams. rule: "ordered" with 2^(ceil(KL) + extra_bits) candidates, KL being the
    block's, or "poisson" with as many as it takes to be exact. Raises InvalidInput, also for more than 2^24 candidates (for
    "poisson": on average).
    """
    if rule not in ("ordered", "poisson"):
        raise InvalidInput(f"rule must be ordered or poisson, not {rule!r}")
    stream, rows, shape = layout(target, proposal, stream)
    if not shape:
        raise InvalidInput("a block needs an axis of dimensions: shape (1,) for a single one")
    stream, rows = stream.reshape(-1, shape[-1]), rows.reshape(-1, shape[-1])
    own = np.broadcast_shapes(target.shape, proposal.shape)
    target, proposal = target.flat(own), proposal.flat(own)
    if rule == "poisson":
        bound = target.max_log_ratio(proposal)[rows].sum(1)
        if bound.max() > MOST_BITS * math.log(2):
            raise InvalidInput("the target exceeds 2^24 times the proposal somewhere: an exact choice would not end in reasonable time")
        index = _poisson(target, proposal, seed, rows, stream, bound)
    else:
        bits = np.ceil(target.kl(proposal)[rows].sum(1)) + integer("extra_bits", extra_bits, -MOST_BITS, MOST_BITS)
        if bits.max() > MOST_BITS:
            raise InvalidInput(f"a block would need 2^{bits.max():.0f} candidates, and 2^{MOST_BITS} are the limit: make the blocks smaller")
        index = _fixed(target, proposal, seed, rows, stream, np.maximum(bits, 0).astype(int))
    return index.reshape(shape[:-1])[()]


def decode(index, proposal, seed, stream=None):
    """The chosen candidates, of shape (..., dimensions) for indices of shape (...): one random number per dimension. Raises InvalidInput."""
    index = integers("index", index, 0, (1 << 63) - 1)
    stream, _, shape = layout(proposal, proposal, stream, index[..., None])
    if shape[:-1] != index.shape:
        raise InvalidInput(f"index has shape {index.shape}, proposal and streams have {shape}")
    return proposal.quantile(uniforms(seed, stream.reshape(shape), index[..., None]))


def _log_weights(target, proposal, seed, rows, stream, first, count):
    """log q / p of candidates first ... first + count - 1 of each block: (blocks, count)."""
    q, p = target[rows[..., None]], proposal[rows[..., None]]
    x = p.quantile(uniform_rows(seed, stream, first, count))
    return (q.log_density(x) - p.log_density(x)).sum(1)


def _fixed(target, proposal, seed, rows, stream, bits):
    index = np.empty(len(rows), np.int64)
    for each in np.unique(bits):
        size, members = 1 << int(each), np.flatnonzero(bits == each)
        step = max(1, _WORK // (size * rows.shape[1]))
        for first in range(0, members.size, step):
            block = members[first:first + step]
            gaps = -np.log(uniform_rows(seed, stream[block, 0], 0, size, _TIME)) / (size - np.arange(size))
            times = np.cumsum(gaps, 1)  # the gap before the (i + 1)-th smallest of N exponential numbers is exponential with mean 1 / (N - i)
            index[block] = (np.log(times) - _log_weights(target, proposal, seed, rows[block], stream[block], 0, size)).argmin(1)
    return index


def _poisson(target, proposal, seed, rows, stream, bound):
    index, best, time = np.zeros(len(rows), np.int64), np.full(len(rows), np.inf), np.zeros(len(rows))
    active, first = np.arange(len(rows)), 0
    while active.size:
        count = min(max(2, first), max(2, _WORK // rows.shape[1] // active.size))
        times = time[active, None] + np.cumsum(-np.log(uniform_rows(seed, stream[active, 0], first, count, _TIME)), 1)
        score = np.log(times) - _log_weights(target, proposal, seed, rows[active], stream[active], first, count)
        choice = score.argmin(1)
        score = np.take_along_axis(score, choice[:, None], 1)[:, 0]
        better = score < best[active]
        index[active[better]], best[active[better]] = first + choice[better], score[better]
        time[active], first = times[:, -1], first + count
        active = active[np.log(time[active]) - bound[active] < best[active]]
    return index

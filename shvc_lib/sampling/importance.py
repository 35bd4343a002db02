"""Importance sampling as a code: one index for a whole block of dimensions, at KL + t bits, and a bias that t buys down.

The sender draws N = 2^bits candidates from the proposal, weighs each by r = q(x) / p(x), picks one with probability proportional to its weight, and
sends its number. Any number of dimensions shares the index, so what coding costs beyond the KL is paid once per block. The price is
exactness: the sample comes from q only as N grows. N = 2^KL candidates contain about one worth having, and t bits more leave a bias that halves with
each further bit once N exceeds E_q[r] (Chatterjee and Diaconis 2018): to first order, for any function f,

    E[f(sample)] - E_q[f] = -Cov_q(f, r) / N.

Havasi, Peharz and Hernandez-Lobato (2019), MIRACLE; Flamich (2019), Algorithm 5, which takes t = 0: visibly biased. For a narrow target 2 to 3 bits are
the honest budget; a wide one far from the prior needs the spread of log2 r as well. The algorithm's comments swap prior and posterior: candidates
come from the prior, weights are q / p. Picking the largest weight instead of sampling, as the thesis' code does, is no remedy but
another bias: with more candidates the sample collapses onto the best ratio. Taught in chapter 3.

| in the paper | here |
| --- | --- |
| K of Algorithm 5 | 2^bits, with `bits_for` = ceil(KL) + t |
| w_i, p(w) | exp(`scores`); sampled by adding Gumbel noise to the logarithms and taking the maximum (Gumbel 1954) |
"""

import numpy as np

from ..coding.checks import integer, integers
from ..errors import InvalidInput
from .distributions import common_shape
from .randomness import LARGEST, uniform_rows, uniforms

MOST_BITS = 24
_CHOICE = 1  # purpose of the random numbers that choose; candidates have purpose 0
_WORK = 1 << 17  # numbers of candidates times dimensions in one go


def bits_for(target, proposal, extra_bits=3, sizes=None):
    """ceil(KL) + extra_bits for each block: int64, one number without `sizes`. Raises InvalidInput when the result exceeds 24."""
    shape = common_shape(target, proposal)
    kl = np.asarray(target.flat(shape).kl(proposal.flat(shape)))
    starts, _ = _blocks(sizes, kl.size)
    bits = np.ceil(np.add.reduceat(kl, starts) - 1e-9) + integer("extra_bits", extra_bits)  # 3.0000000000000004 bits are 3
    _affordable(bits)
    bits = np.maximum(bits, 0).astype(np.int64)
    return bits if sizes is not None else bits[0]


def encode(target, proposal, seed, bits, sizes=None, stream=None, largest=False):
    """The index of the chosen candidate of each block, 0 ... 2^bits - 1: int64, one number without `sizes`.

    target, proposal: Gaussian or Discrete, of shapes that broadcast. sizes: how many neighbouring dimensions (in raster order) each block
    has; by default all form one block. bits: an int, or one per block. stream: an integer per dimension, by default 0, 1, 2, ...; largest=True
    picks the largest weight, to see what that does. Raises InvalidInput.
    """
    shape = common_shape(target, proposal)
    target, proposal, stream = target.flat(shape), proposal.flat(shape), _streams(stream, shape)
    starts, lengths = _blocks(sizes, stream.size)
    bits = integers("bits", bits, 0)
    _affordable(bits)
    if bits.shape not in ((), starts.shape):
        raise InvalidInput(f"bits of shape {bits.shape} were given for {starts.size} blocks")
    bits = np.broadcast_to(bits, starts.shape)
    index = np.empty(starts.size, dtype=np.int64)
    for b in np.unique(bits).tolist():
        blocks = np.flatnonzero(bits == b)
        turns = np.cumsum(lengths[blocks]) * 2**b // _WORK
        for some in np.split(blocks, np.flatnonzero(np.diff(turns)) + 1):
            index[some] = _choose(target, proposal, seed, stream, starts[some], lengths[some], b, largest)
    return index if sizes is not None else index[0]


def decode(index, proposal, seed, sizes=None, stream=None):
    """The chosen samples, in the shape of the proposal. Looks at one candidate per block. Raises InvalidInput."""
    shape, index = proposal.shape, integers("index", index, 0, LARGEST)
    stream = _streams(stream, shape)
    starts, lengths = _blocks(sizes, stream.size)
    if index.size != starts.size:
        raise InvalidInput(f"{index.size} indices were given for {starts.size} blocks")
    x = proposal.flat(shape).quantile(uniforms(seed, stream, np.repeat(index.reshape(-1), lengths)))
    return x.reshape(shape)[()]


def _choose(target, proposal, seed, stream, starts, lengths, bits, largest):
    """The winners of some blocks of 2^bits candidates each, looked at in parts that fit into the cache."""
    within = np.cumsum(lengths) - lengths
    dims = np.repeat(starts - within, lengths) + np.arange(lengths.sum())
    target, proposal, first_streams, streams = target[dims[:, None]], proposal[dims[:, None]], stream[starts], stream[dims]
    best, winner = np.full(starts.size, -np.inf), np.full(starts.size, -1)
    width = min(1 << bits, max(2, _WORK // dims.size))
    for first in range(0, 1 << bits, width):
        count = min(width, (1 << bits) - first)
        x = proposal.quantile(uniform_rows(seed, streams, first, count))
        scores = np.add.reduceat(target.log_density(x) - proposal.log_density(x), within, axis=0)
        if not largest:  # the maximum of log w + Gumbel noise falls on each candidate with probability w / sum of w
            scores -= np.log(-np.log(uniform_rows(seed, first_streams, first, count, _CHOICE)))
        place = scores.argmax(1)
        score = scores[np.arange(starts.size), place]
        winner = np.where(score > best, first + place, winner)
        best = np.maximum(best, score)
    if winner.min() < 0:
        raise InvalidInput("none of the candidates is possible under the target: it needs more bits")
    return winner


def _blocks(sizes, dimensions):
    """(where each block starts, how long it is)."""
    lengths = integers("sizes", dimensions if sizes is None else sizes, 1).reshape(-1).astype(np.int64)
    if lengths.sum() != dimensions:
        raise InvalidInput(f"the sizes of the blocks sum to {lengths.sum()}, but there are {dimensions} dimensions")
    return np.cumsum(lengths) - lengths, lengths


def _affordable(bits):
    if bits.max() > MOST_BITS:
        raise InvalidInput(f"a block asks for 2^{bits.max():g} candidates, more than 2^{MOST_BITS}: make the blocks smaller")


def _streams(stream, shape):
    """One stream per dimension, flat."""
    size = int(np.prod(shape))
    stream = np.arange(size) if stream is None else integers("stream", stream, 0, LARGEST)
    if stream.size != size:
        raise InvalidInput(f"{stream.size} streams were given for {size} dimensions")
    return stream.reshape(-1)

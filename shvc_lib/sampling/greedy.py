"""The greedy sampler: a Gaussian vector as a sum of shards, each the best of 2^bits candidates. Any number of bits, and biased for almost all of them.

A standard Gaussian is the sum of K independent Gaussians of variance 1 / K. Of each of them both ends know 2^B candidates for the whole vector;
the sender adds to what it has the candidate that lies best under the target, and sends its number in B bits: a walk of K steps that is
guided to where the target is dense (Flamich 2019, Algorithm 2). Before, the prior is standardised (section 3.4.2): the target is
seen in units in which the proposal is N(0, 1), and the sum is scaled back at the end.

A maximum is not a sample. With too few bits the walk stays near the prior; with too many it ends at the target's mode instead of in its bulk;
only for one number of bits in between, which nobody knows beforehand, is the distance from the mode right on average. Few shards with many bits do
better than many shards with few at the same K B, and cost more time: K 2^B candidates. Taught in chapter 3.
"""

import math

import numpy as np
from scipy.special import ndtri

from ..coding.checks import integer, integers
from ..errors import InvalidInput
from .distributions import common_shape
from .randomness import LARGEST, gaussians, uniform_rows

MOST_BITS = 20
_WORK = 1 << 19  # numbers held at a time


def encode(target, proposal, seed, shards, bits, stream=0):
    """Indices 0 ... 2^bits - 1 of the best candidate of each shard: int64, shape (shards,), `shards` * `bits` bits in all.

    target, proposal: Gaussians whose shapes broadcast; all dimensions together are one vector, and dimension i of it reads random stream
    `stream` + i. Raises InvalidInput.
    """
    shards, bits = integer("shards", shards, 1), integer("bits", bits, 1, MOST_BITS)
    seen = target.flat(common_shape(target, proposal)).relative_to(proposal.flat(common_shape(target, proposal)))
    stream = _streams(seen.mean.size, stream)
    precision, missing = 1 / seen.scale**2, seen.mean.copy()  # from the sum so far to the target's mean
    size, index = 1 << bits, np.empty(shards, np.int64)
    rows = max(1, _WORK // size)
    for shard in range(shards):
        loss = np.zeros(size)  # of each candidate c: sum of precision * (c^2 - 2 c missing), what it changes in -2 log q
        for first in range(0, stream.size, rows):
            part = slice(first, first + rows)
            c = ndtri(uniform_rows(seed, stream[part], shard * size, size)) / math.sqrt(shards)
            loss += precision[part] @ c**2 - 2 * (precision[part] * missing[part]) @ c
        index[shard] = loss.argmin()
        missing -= gaussians(seed, stream, shard * size + index[shard]) / math.sqrt(shards)
    return index


def decode(index, proposal, seed, bits, stream=0):
    """The sum of the shards' candidates, scaled back: float64 of the proposal's shape, which must be the target's. Raises InvalidInput."""
    bits = integer("bits", bits, 1, MOST_BITS)
    index = integers("index", index, 0, (1 << bits) - 1).astype(np.int64)
    if index.ndim != 1:
        raise InvalidInput(f"index must have one axis, the shards, not shape {index.shape}")
    streams, shards = _streams(math.prod(proposal.shape), stream), np.arange(index.size)
    z = gaussians(seed, streams[:, None], (shards << bits) + index).sum(1) / math.sqrt(index.size)
    return proposal.mean + proposal.scale * z.reshape(proposal.shape)


def _streams(size, first):
    return np.uint64(integer("stream", first, 0, LARGEST - size)) + np.arange(size, dtype=np.uint64)

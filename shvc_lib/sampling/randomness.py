"""Shared randomness by counting: any number of any stream, alone, on any machine, in any order.

Sender and receiver of a coded sample need the same endless list of candidates, and the receiver wants only one of them. A generator with a
state would have to walk there. A counter-based generator is a function: it scrambles (seed, stream, index) into random bits, so
candidate number 10^12 costs as much as number 0. Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011) does that in ten rounds of
32-bit multiplications and exclusive ors. Here it is in numpy's integers, the same on every machine.

| in the paper | here |
| --- | --- |
| counter, 4 words of 32 bits | index (low, high), stream (low, high) |
| key, 2 words | seed (low, high); a key derived from the seed for purposes from 2 on |
| output, 4 words | two uniform numbers: purpose 2k has the first two words, purpose 2k + 1 the others |

Uniform numbers are exact: integers times 2^-53. What follows them, a logarithm or a Gaussian quantile, is rounded and may differ by a unit in
the last place between machines. That is harmless in coded sampling: the encoder alone chooses the index, and the decoder evaluates the
one candidate that it names. A sample may differ in its last digit, never by being another candidate. Taught in chapter 3.
"""

import math

import numpy as np
from scipy.special import ndtri

from ..coding.checks import integer, integers
from ..errors import InvalidInput

ROUNDS = 10
LARGEST = (1 << 64) - 1  # of a seed, a stream, an index
_MULTIPLIERS = np.uint64(0xD2511F53), np.uint64(0xCD9E8D57)
_KEY_STEPS = 0x9E3779B9, 0xBB67AE85
_WORD, _LOW = np.uint64(32), np.uint64(0xFFFFFFFF)
_BLOCK = 1 << 13  # numbers made at a time: the working arrays stay in the cache


def philox(counter, key):
    """Philox4x32-10. counter: four arrays of one shape of 32-bit words held in uint64 (not changed); key: two ints below 2^32.

    Returns the four output words, uint64 arrays below 2^32.
    """
    a, b, c, d = (word.copy() for word in counter)
    high, low = np.empty_like(a), np.empty_like(a)
    for turn in range(ROUNDS):
        left, right = (np.uint64(key[i] + turn * _KEY_STEPS[i] & 0xFFFFFFFF) for i in (0, 1))
        np.multiply(a, _MULTIPLIERS[0], out=high)
        np.multiply(c, _MULTIPLIERS[1], out=low)
        np.right_shift(low, _WORD, out=a)
        a ^= b
        a ^= left
        np.bitwise_and(low, _LOW, out=b)
        np.right_shift(high, _WORD, out=c)
        c ^= d
        c ^= right
        np.bitwise_and(high, _LOW, out=d)
    return a, b, c, d


def _halves(numbers):
    return numbers & _LOW, numbers >> _WORD


def _key(seed, purpose):
    """The seed's own two words for purposes 0 and 1; for a later pair the scramble of (seed, number of the pair)."""
    if purpose < 2:
        return seed & 0xFFFFFFFF, seed >> 32
    words = _halves(np.array([seed], dtype=np.uint64)) + _halves(np.array([purpose // 2], dtype=np.uint64))
    return tuple(int(word[0]) for word in philox(words, (0, 0))[:2])


def uniforms(seed, stream, index, purpose=0):
    """Uniform numbers in (0, 1), odd multiples of 2^-53: float64 of the common shape of `stream` and `index`.

    seed: an int; stream (a dimension or a block) and index (a candidate): ints or integer arrays that broadcast; purpose: an int, for
    algorithms that need several numbers per candidate. All from 0 to 2^64 - 1. Raises InvalidInput.
    """
    seed, purpose = integer("seed", seed, 0, LARGEST), integer("purpose", purpose, 0, LARGEST)
    stream, index = (integers(name, x, 0, LARGEST).astype(np.uint64) for name, x in (("stream", stream), ("index", index)))
    try:
        shape = np.broadcast_shapes(stream.shape, index.shape)
    except ValueError:
        raise InvalidInput(f"stream {stream.shape} and index {index.shape} do not broadcast") from None
    key, out = _key(seed, purpose), np.empty(math.prod(shape))
    streams, indices = (np.broadcast_to(x, shape).reshape(-1) for x in (stream, index))
    for first in range(0, out.size, _BLOCK):
        part = slice(first, first + _BLOCK)
        words = philox(_halves(indices[part]) + _halves(streams[part]), key)
        low, high = words[2 * (purpose % 2):][:2]
        out[part] = ((high << np.uint64(21) | low >> np.uint64(11)) | np.uint64(1)) * 2.0**-53
    return out.reshape(shape)[()]


def exponentials(seed, stream, index, purpose=0):
    """Exponential numbers of mean 1: -log of the `uniforms` with the same arguments. They are the gaps of a Poisson process."""
    return -np.log(uniforms(seed, stream, index, purpose))


def gaussians(seed, stream, index, purpose=0):
    """Standard Gaussian numbers: the quantile of the `uniforms` with the same arguments (within 8.3 standard deviations)."""
    return ndtri(uniforms(seed, stream, index, purpose))

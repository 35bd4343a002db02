"""Shared randomness by counting: any number of any stream, alone, on any machine, in any order.

Sender and receiver of a coded sample need the same endless list of candidates, and the receiver wants only one of them. A generator with a
state would have to walk there. A counter-based generator is a function: it scrambles (seed, stream, index) into random bits, so
candidate number 10^12 costs as much as number 0. Philox4x32-10 (Salmon, Moraes, Dror and Shaw 2011) does that in ten rounds of
32-bit multiplications and exclusive ors. Here it is in numpy's integers, the same on every machine.

| in the paper | here |
| --- | --- |
| counter, 4 words of 32 bits | index // 2 (low, high), stream (low, high) |
| key, 2 words | seed (low, high); for purposes other than 0 a key derived from seed and purpose |
| output, 4 words | two uniform numbers: the first two words for the even index, the others for the odd one |

Uniform numbers are exact: integers times 2^-53. What follows them, a logarithm or a Gaussian quantile, is rounded and may differ by a unit in
the last place between machines. That is harmless in coded sampling: the encoder alone chooses the index, and the decoder evaluates the
one candidate that it names. A sample may differ in its last digit, never by being another candidate. Taught in chapter 3.
"""

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
    """The seed's own two words for purpose 0; for another one, the scramble of (seed, purpose)."""
    if purpose == 0:
        return seed & 0xFFFFFFFF, seed >> 32
    words = _halves(np.array([seed], dtype=np.uint64)) + _halves(np.array([purpose], dtype=np.uint64))
    return tuple(int(word[0]) for word in philox(words, (0, 0))[:2])


def _fraction(low, high):
    """Two 32-bit words -> an odd multiple of 2^-53 in (0, 1), from their upper 53 bits with the last one set."""
    return ((high << np.uint64(21) | low >> np.uint64(11)) | np.uint64(1)) * 2.0**-53


def uniforms(seed, stream, index, purpose=0):
    """Uniform numbers in (0, 1), odd multiples of 2^-53: float64 of the common shape of `stream` and `index`.

    seed: an int; stream (a dimension or a block) and index (a candidate): ints or integer arrays that broadcast; purpose: an int, for
    algorithms that need several numbers per candidate. All from 0 to 2^64 - 1. Raises InvalidInput.
    """
    key = _key(integer("seed", seed, 0, LARGEST), integer("purpose", purpose, 0, LARGEST))
    stream, index = (integers(name, x, 0, LARGEST).astype(np.uint64) for name, x in (("stream", stream), ("index", index)))
    try:
        shape = np.broadcast_shapes(stream.shape, index.shape)
    except ValueError:
        raise InvalidInput(f"stream {stream.shape} and index {index.shape} do not broadcast") from None
    streams, indices = (np.broadcast_to(x, shape).reshape(-1) for x in (stream, index))
    out = np.empty(indices.size)
    for first in range(0, out.size, _BLOCK):
        part = slice(first, first + _BLOCK)
        a, b, c, d = philox(_halves(indices[part] >> np.uint64(1)) + _halves(streams[part]), key)
        odd = (indices[part] & np.uint64(1)).astype(bool)
        out[part] = _fraction(np.where(odd, c, a), np.where(odd, d, b))
    return out.reshape(shape)[()]


def uniform_rows(seed, stream, first, count, purpose=0):
    """`uniforms` of neighbouring candidates first ... first + count - 1, for every stream: float64 of shape (*stream.shape, count).

    The same numbers in half the time, since each block of random bits serves two neighbours. Raises InvalidInput.
    """
    key = _key(integer("seed", seed, 0, LARGEST), integer("purpose", purpose, 0, LARGEST))
    stream, count = integers("stream", stream, 0, LARGEST).astype(np.uint64), integer("count", count, 1, 1 << 32)
    first = integer("first", first, 0, LARGEST - count + 1)
    pairs = np.arange(first // 2, (first + count + 1) // 2, dtype=np.uint64)
    flat, out = stream.reshape(-1), np.empty((stream.size, pairs.size, 2))
    rows, columns = max(1, _BLOCK // pairs.size), min(pairs.size, _BLOCK)
    for top in range(0, flat.size, rows):
        for left in range(0, pairs.size, columns):
            part = slice(top, top + rows), slice(left, left + columns)
            grid = np.broadcast_arrays(pairs[None, part[1]], flat[part[0], None])
            a, b, c, d = philox(_halves(grid[0]) + _halves(grid[1]), key)
            out[(*part, 0)], out[(*part, 1)] = _fraction(a, b), _fraction(c, d)
    return out.reshape(*stream.shape, -1)[..., first % 2:first % 2 + count]


def exponentials(seed, stream, index, purpose=0):
    """Exponential numbers of mean 1: -log of the `uniforms` with the same arguments. They are the gaps of a Poisson process."""
    return -np.log(uniforms(seed, stream, index, purpose))


def gaussians(seed, stream, index, purpose=0):
    """Standard Gaussian numbers: the quantile of the `uniforms` with the same arguments (within 8.3 standard deviations)."""
    return ndtri(uniforms(seed, stream, index, purpose))

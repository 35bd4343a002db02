"""The inner loop of decoding, compiled: rANS and the search for a symbol in a mixture's CDF, one symbol after the other.

`BitStack.pop` with numpy tabulates all 257 edges of every symbol's CDF and has constriction search them. A symbol can be found by a few: those where
the quantile function would have it, then others twice as far, until one lies on the other side, then halves. That is a loop that depends on the data, so it is
compiled (by numba, the first time that it runs on a machine; afterwards from numba's cache). It computes what `rans.RANS.pop` and
`DiscretizedMixture.masses` say, on the same integers: the tests compare them symbol by symbol. Used where there are enough symbols to be worth it. Taught in
chapter 7.
"""

import numpy as np
from numba import njit

from .tables import MARGIN, MEAN_STEPS, POINTS, REACH, ROW, ROW_SIZE

_PRECISION, _WORD, _TOTAL = 24, 32, 1 << 24  # as in `rans`
_WEIGHT_SHIFT = 6  # as in `discretized`
QUANTILE_BITS = 12  # a quantile for every 2^-12 of the mass
_ZERO = REACH * POINTS << 16  # where a table of a CDF has the mean


def compiled(**options):
    """numba's `njit` with these options. The machine code is kept in a folder of the library's or the user's; where neither can be written to, every process
    compiles anew."""
    def decorate(function):
        try:
            return njit(cache=True, **options)(function)
        except RuntimeError:
            return njit(**options)(function)
    return decorate


_ONE, _MIXED, _WIDE = range(3)  # of one component, of several, of one over more than 256 levels


@njit(inline="always")
def _edge(kind, table, starts, weights, n, size, edge):
    """The n-th symbol's CDF at the lower side of level `edge`, with one count for each level below it."""
    if edge <= 0:
        return np.int64(0)
    if edge >= size:
        return np.int64(_TOTAL)
    if kind == _ONE:
        return np.int64(edge) + table[starts[n, 0] + edge]
    if kind == _MIXED:
        total = np.int64(0)
        for k in range(starts.shape[1]):
            total += np.int64(weights[n, k]) * table[starts[n, k] + edge]
        return edge + (total >> _WEIGHT_SHIFT)
    u = (MEAN_STEPS * np.int64(edge) - MEAN_STEPS // 2 - starts[n, 0]) * weights[n, 0] + _ZERO
    u = min(max(u, 0), 2 * _ZERO - 1)
    low = np.int64(table[u >> 16])
    return edge + low + ((table[(u >> 16) + 1] - low) * (u & 0xFFFF) >> 16)


@njit(inline="always")
def _popped(kind, head, words, left, table, starts, weights, guesses, spreads, quantiles, size, out):
    """`pop` for one kind. Its code is there three times, because `_edge` without a branch makes it twice as fast."""
    for n in range(out.size):
        target = np.int64(head & np.uint64(_TOTAL - 1))
        low = min(max(int(guesses[n] + spreads[n] * quantiles[target >> _PRECISION - QUANTILE_BITS]), 0), size - 1)
        high, step = low + 1, 1
        start, end = _edge(kind, table, starts, weights, n, size, low), _edge(kind, table, starts, weights, n, size, high)
        while start > target:  # downwards
            high, end, low, step = low, start, max(low - step, 0), 2 * step
            start = _edge(kind, table, starts, weights, n, size, low)
        while end <= target:  # upwards
            low, start, high, step = high, end, min(high + step, size), 2 * step
            end = _edge(kind, table, starts, weights, n, size, high)
        while high - low > 1:
            middle = low + high >> 1
            value = _edge(kind, table, starts, weights, n, size, middle)
            if value <= target:
                low, start = middle, value
            else:
                high, end = middle, value
        out[n] = low
        head = (head >> np.uint64(_PRECISION)) * np.uint64(end - start) + np.uint64(target - start)
        if head >> np.uint64(_WORD) == 0:
            if left == 0:
                head = np.uint64(0)
                break
            left -= 1
            head = head << np.uint64(_WORD) | np.uint64(words[left])
    return head, left


@compiled(nogil=True)
def pop(head, words, left, table, starts, weights, guesses, spreads, quantiles, size, out):
    """Pop out.size symbols, offsets from the support's first, from a message of a head (uint64) and the first `left` of the words (uint32) below it. Returns
    the new (head, left), or a head of 0 when the words ran out.

    guesses, spreads: float32 (N,), and quantiles, float32 (2^12,): a symbol is looked for at guess + spread * quantile first, which changes nothing
    but the time. size: of the support; out: int32 (N,). Supports of up to 256: table: int32, `tables.row_table`; starts: int32 (N, K),
    where in it each component's CDF begins; weights: int32 (N, K), which sum to 4096 (for K = 1 nobody looks at them). Larger ones, K = 1 alone: table:
    `tables.cdf_table`; starts: int32 (N, 1), means in 1/16 level from the support's first; weights: int32 (N, 1), `tables.inverse_scales`."""
    if size > ROW_SIZE:
        return _popped(_WIDE, head, words, left, table, starts, weights, guesses, spreads, quantiles, size, out)
    if starts.shape[1] == 1:
        return _popped(_ONE, head, words, left, table, starts, weights, guesses, spreads, quantiles, size, out)
    return _popped(_MIXED, head, words, left, table, starts, weights, guesses, spreads, quantiles, size, out)


@compiled(nogil=True)
def places(means, scales, weights, starts, guesses, spreads, levels):
    """What `DiscretizedMixture.searched` says of mixtures over 0 ... 255: fill in starts, int32 (N, K), guesses and spreads, float32 (N,).

    means, scales, weights: int32 (N, K), as in `DiscretizedMixture`; levels: `tables.scale_levels`."""
    for n in range(means.shape[0]):
        best = 0
        for k in range(means.shape[1]):
            mean = min(max(means[n, k], -MARGIN * MEAN_STEPS), (ROW_SIZE + MARGIN) * MEAN_STEPS - MEAN_STEPS) + MEAN_STEPS // 2
            starts[n, k] = (scales[n, k] * MEAN_STEPS + mean % MEAN_STEPS) * ROW + ROW_SIZE + MARGIN - mean // MEAN_STEPS
            if weights[n, k] > weights[n, best]:
                best = k
        guesses[n] = np.float32(means[n, best]) / np.float32(MEAN_STEPS) + np.float32(0.5)
        spreads[n] = levels[scales[n, best]]

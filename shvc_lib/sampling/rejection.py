"""Greedy rejection sampling: the index of an accepted candidate carries an exact sample of the target.

Sender and receiver look at the same candidates x_0, x_1, ... drawn from the proposal p. The sender accepts candidate i with a probability chosen so
that as much of the target q as possible is served as early as possible, and sends i; the receiver looks up x_i. After i steps the mass
min(q(x), L_i p(x)) has been served. What is left of q is the part that sticks out above the level L_i,

    S_i = integral of max(q - L_i p, 0) dx,      L_0 = 0,  S_0 = 1,  L_{i+1} = L_i + S_i,

and candidate i, reached with probability S_i, is accepted with probability min(r - L_i, S_i) / S_i where r = q(x_i) / p(x_i) exceeds L_i. So the whole
algorithm is one sequence of numbers, and for Gaussians each S_i is a difference of error functions: nothing is tabulated on a grid. The index
is i with probability S_i - S_{i+1}, its mean is the largest ratio q / p minus one, and coding it costs KL + 2 log2(KL + 1) + O(1) bits.
Harsha, Jain, McAllester and Radhakrishnan (2010), section 4; Flamich (2019), Algorithms 1 and 4.

Three things are not as the thesis prints them. beta_i divides by what was left before the step, 1 - p*_{i-1}, not after it. Candidates come from
the prior, which the decoder knows; the comments of Algorithm 4 call it the posterior. And when all 2^bits candidates are refused, the sample
must come from what is left of q, max(q - L p, 0) / S, not from q itself, which would serve the accepted part twice. Taught in chapter 3.

| in the paper | here |
| --- | --- |
| P (target), Q (proposal) of Algorithms 1 and 4 | `target`, `proposal` |
| 1 - p*_i, B | S_i (`left`), `bits` |
| p_i(x), alpha_i(x), beta_i(x) | min(q, L_i p), their difference, min(r - L, S) / S |
| I | the index; 2^bits + (16 bits) for refused dimensions |
"""

import math

import numpy as np

from ..coding.checks import integer, integers
from ..errors import InvalidInput
from .distributions import common_shape, layout
from .randomness import LARGEST, uniform_rows, uniforms

ESCAPE = 1 << 16  # values of a refused dimension
MOST_BITS = 24
_COIN, _RESIDUAL, _RESIDUAL_COIN = 1, 2, 3  # purposes of random numbers; candidates have purpose 0
_WORK = 1 << 14  # candidates looked at in one go


def encode(target, proposal, seed, bits=8, stream=None):
    """One index per dimension, int64: 0 ... 2^bits - 1, or 2^bits + c where all of these candidates were refused.

    target, proposal: Gaussian or Discrete, shapes that broadcast. stream: an integer per dimension, by default 0, 1, 2, ... in raster order; with more
    streams than dimensions, one sample is drawn per stream. c: the 16 bits of a sample of what is left of the target (`to_16_bits` of the
    proposal). bits=None looks at candidates for as long as it takes. Raises InvalidInput, also when it would take more than
    2^24 candidates on average.
    """
    stream, rows, shape = layout(target, proposal, stream)
    own = common_shape(target, proposal)
    target, proposal = target.flat(own), proposal.flat(own)
    limit = LARGEST if bits is None else 1 << integer("bits", bits, 0, MOST_BITS)
    if bits is None and np.max(target.max_log_ratio(proposal)) > MOST_BITS * math.log(2):
        raise InvalidInput("the target exceeds 2^24 times the proposal somewhere: no sample would be accepted in reasonable time; set a limit with bits=...")
    index, active, first = np.full(rows.size, -1), np.arange(rows.size), 0
    level, left = np.zeros(target.shape), np.ones(target.shape)
    while active.size and first < limit:
        count = min(limit - first, max(2, first), max(2, _WORK // active.size))
        live, row = np.unique(rows[active], return_inverse=True)
        levels, lefts = _schedule(target[live], proposal[live], level[live], left[live], count)
        _, ratio = _candidates(proposal, target, proposal, rows[active], uniform_rows(seed, stream[active], first, count))
        accepted = uniform_rows(seed, stream[active], first, count, _COIN) * lefts[row, :count] < ratio - levels[row, :count]
        done = accepted.any(1)
        index[active[done]] = first + accepted[done].argmax(1)
        level[live], left[live] = levels[:, count], lefts[:, count]
        active, first = active[~done], first + count
    if active.size:
        x = _residual(target, proposal, level, rows[active], seed, stream[active])
        index[active] = limit + proposal[rows[active]].to_16_bits(x)
    return index.reshape(shape)[()]


def decode(index, proposal, seed, bits=8, stream=None):
    """The samples that `encode` chose, in the shape of `index`. Looks at one candidate per dimension. Raises InvalidInput."""
    limit = None if bits is None else 1 << integer("bits", bits, 0, MOST_BITS)
    index = integers("index", index, 0, LARGEST if limit is None else limit + ESCAPE - 1)
    stream, rows, shape = layout(proposal, proposal, stream, index)
    if shape != index.shape:
        raise InvalidInput(f"index has shape {index.shape}, proposal and streams have {shape}")
    proposal, index = proposal.flat(proposal.shape)[rows], index.reshape(-1)
    refused = np.zeros(index.shape, bool) if limit is None else index >= limit
    x = proposal.quantile(uniforms(seed, stream, np.where(refused, 0, index)))
    if refused.any():
        x[refused] = proposal[refused].from_16_bits(index[refused] - limit)
    return x.reshape(shape)[()]


def index_probabilities(target, proposal, count):
    """Probability of each index 0 ... count - 1: float64 of shape (..., count), S_i - S_{i+1}. What is missing to 1 is refused so far."""
    shape = common_shape(target, proposal)
    target, proposal = target.flat(shape), proposal.flat(shape)
    _, left = _schedule(target, proposal, np.zeros(target.shape), np.ones(target.shape), integer("count", count, 1, 1 << MOST_BITS))
    return -np.diff(left).reshape(*shape, -1)


def _schedule(target, proposal, level, left, count):
    """Levels L and remaining masses S before each of `count` steps, and after the last: two arrays (targets, count + 1)."""
    mass, steps = target.hockey_stick(proposal), [(level, left)]
    for _ in range(count):
        level = level + left
        left = np.minimum(mass(level), left)
        steps.append((level, left))
    return np.moveaxis(np.array(steps), 0, -1)


def _candidates(source, target, proposal, rows, u):
    """Samples of `source` made from u (dimensions, candidates), and their ratios q(x) / p(x)."""
    rows = rows[:, None]
    x = source[rows].quantile(u)
    with np.errstate(over="ignore"):  # a ratio beyond 1e308 is as good as infinite
        return x, np.exp(target[rows].log_density(x) - proposal[rows].log_density(x))


def _residual(target, proposal, level, rows, seed, stream):
    """Samples of max(q - L p, 0) / S: from q, accepted with probability 1 - L / r. That takes 1 / S candidates, but a
    dimension gets here with probability S: one candidate per dimension of the whole target, on average."""
    x, active, first = target[rows].quantile(np.full(rows.size, 0.5)), np.arange(rows.size), 0
    while active.size:
        count = min(max(2, first), max(2, _WORK // active.size))
        value, ratio = _candidates(target, target, proposal, rows[active], uniform_rows(seed, stream[active], first, count, _RESIDUAL))
        coin = uniform_rows(seed, stream[active], first, count, _RESIDUAL_COIN)
        with np.errstate(divide="ignore"):
            accepted = coin < 1 - level[rows[active], None] / ratio  # right for infinite ratios, too
        done = accepted.any(1)
        x[active[done]] = value[done, accepted[done].argmax(1)]
        active, first = active[~done], first + count
    return x

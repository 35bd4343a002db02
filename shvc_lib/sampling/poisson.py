"""A* coding and greedy Poisson rejection sampling: exact samples of a Gaussian in O(KL) steps, because a tree is searched and not a list.

Candidates x with arrival times t form a Poisson process: x is drawn from the proposal p, t counts upwards. Two rules pick one of them such that its
x is distributed as the target q, whose density ratio is r = q / p:

    A* coding             the smallest t / r(x)                   Maddison et al. 2014; Flamich, Markou and Hernandez-Lobato 2022
    greedy Poisson        the first with t <= sigma(r(x))         Flamich 2023; sigma as in eq (1) below

A list of candidates would be some 2^KL long. But the process unfolds as a tree: the root is the first arrival anywhere, its children are the next
arrivals in the lower and in the upper half (of the proposal's mass), and so on. In one dimension the places where a candidate could still be
picked form an interval or two tails, so on every level all but a few nodes are dropped with everything below them. The index is one less than the
node's number (the root is 1, the children of n are 2n and 2n + 1). It names a candidate by itself: node n of level d lies in part n - 2^d
of 2^d parts of equal mass, and one number of the shared randomness says where. The times are the sender's affair.

With w_p(h) and w_q(h), the masses of {x : r(x) >= h} under p and q, nothing has been picked by the time sigma(h) with probability
S(h) = w_q(h) - h w_p(h), and

    sigma(h) = integral from 0 to h of 1 / S(eta) d eta,        S(h) = integral from h on of w_p(eta) d eta.                   (1)

Both integrals are tabulated for each dimension. A* needs a bounded r, a target that is narrower than the proposal; the greedy rule does not.
The papers split an interval at its candidate; halves of equal mass let the receiver do without the path to the node. Taught in chapter 3.
"""

import math
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from scipy.special import ndtr, ndtri

from ..coding import Codec, autoregressive, independent
from ..coding.checks import integers
from ..errors import InvalidInput
from .distributions import layout
from .index_codes import block, smoothed
from .randomness import exponentials, uniforms

MAX_DEPTH = 62  # levels of the tree: the index must fit into an int64
MOST_BITS = 50  # largest divergence
_NEAR = 1e-7  # scales within this of the proposal's count as a little narrower: the limit has formulas of its own, and not another result
_POINTS, _NEIGHBOURS = 129, 6  # of the tables: grid points, and points per quadrature rule
_LOW, _HIGH, _TOP, _TAIL = -16.0, 60.0, 1e-5, 6.0  # where the tables end: log ratios, distance from a peak, standard deviations
_CHUNK = 1024  # targets at a time, so that the tables stay small
_TIME = 1  # purpose of the random numbers that are arrival times; candidates have purpose 0


class Search(NamedTuple):
    """`index`: of the picked nodes, int64 from 0; `visited`: how many nodes the sender looked at, int64; both of the target's shape."""

    index: np.ndarray
    visited: np.ndarray


class _Ratio:
    """log r(z) = peak -+ bend (z - centre)^2 / 2 of each dimension, where the proposal is N(0, 1): a hill if the target is narrower, else a valley."""

    def __init__(self, mean, scale):
        self.mean, self.scale = mean, np.where(np.abs(scale - 1) < _NEAR, 1 - _NEAR, scale)
        gap = (1 - self.scale) * (1 + self.scale)
        self.hill, self.bend, self.centre = gap > 0, np.abs(gap) / self.scale**2, mean / gap
        self.peak = mean**2 / (2 * gap) - np.log(self.scale)

    def distance(self, dim, z):
        return self.bend[dim] * (z - self.centre[dim]) ** 2 / 2

    def log(self, dim, z):
        return self.peak[dim] + np.where(self.hill[dim], -1, 1) * self.distance(dim, z)

    def highest(self, dim, low, high):
        """Where r is largest between low and high."""
        centre = self.centre[dim]
        return np.where(self.hill[dim], np.clip(centre, low, high), np.where(centre - low > high - centre, low, high))


@lru_cache(maxsize=1)
def _rule():
    """Quadrature over each step of an even grid through its nearest points: (first point, weights), exact for polynomials of degree 5."""
    steps, powers = np.arange(_POINTS - 1), np.arange(_NEIGHBOURS)
    first = np.clip(steps - _NEIGHBOURS // 2 + 1, 0, _POINTS - _NEIGHBOURS)
    positions = (first - steps)[:, None] + powers
    right = np.broadcast_to((1 / (powers + 1.0))[:, None], (*positions.shape, 1))
    return first, np.linalg.solve(positions[:, None, :] ** powers[:, None].astype(float), right)[..., 0]


def _integral(f):
    """Integral of each row of f, in units of its grid's step, from the first point to every point."""
    first, weights = _rule()
    steps = sum(weights[:, i] * f[:, first + i] for i in range(_NEIGHBOURS))
    return np.concatenate([np.zeros_like(f[:, :1]), np.cumsum(steps, 1)], 1)


class _Stretch:
    """log sigma(r(z)) from tables. The grid of a dimension runs over e, the distance of log r from its peak (or bottom), from where r is so low
    or the tail so thin that w_p = 1, to where r is so high that S = 0 nearly; it is even in a function of e that keeps sigma smooth."""

    def __init__(self, ratio):
        self.ratio = ratio
        hill, bend, peak, scale = (x[:, None] for x in (ratio.hill, ratio.bend, ratio.peak, ratio.scale))
        mean, centre = np.abs(ratio.mean)[:, None], np.where(hill, 1, -1) * np.abs(ratio.centre)[:, None]  # mirrored if the mean was negative

        def distance(z):
            return bend * (z - centre) ** 2 / 2

        def mass(half, mean, scale):  # of {r >= h}, inside or outside of centre -+ half; only small tails are subtracted from each other
            near, far = np.where(hill, half - centre + mean, mean - centre - half), np.where(hill, mean - centre - half, centre - half - mean)
            return ndtr(near / scale) + np.where(hill, -1, 1) * ndtr(far / scale)

        thin, tail = -_TAIL, mean + _TAIL * scale
        start = np.where(hill, np.minimum(peak - _LOW, distance(thin)), np.where(centre < thin, distance(thin), 0))
        end = np.where(hill, np.maximum(distance(np.minimum(tail, centre)), np.minimum(_TOP, _TOP * 100 * start)), np.minimum(distance(tail), _HIGH - peak))
        self.first, last = self._grid(hill, start), self._grid(hill, end)
        self.step = (last - self.first) / (_POINTS - 1)
        x = self.first + self.step * np.arange(_POINTS)
        size = np.abs(x)
        e = np.where(hill, np.logaddexp(0, x), size * size / (1 + size))
        slope = np.where(hill, 1 / (1 + np.exp(-np.maximum(x, -500))), size * (size + 2) / (1 + size) ** 2) * np.abs(self.step)
        h, half = np.exp(peak + np.where(hill, -e, e)), np.sqrt(2 * e / bend)
        masses = mass(half, 0.0, 1.0)
        top = mass(half[:, -1:], mean, scale)
        rest = top - h[:, -1:] * masses[:, -1:]
        rest = np.where(rest > 1e-4 * top, rest, top * 2 / 3 * e[:, -1:])  # on a hilltop the first order, since the difference is rounding
        steps = _integral(masses * h * slope)
        survival = rest + steps[:, -1:] - steps
        times = _integral(h * slope / survival) - np.log1p(-h[:, :1])
        self.log_time, self.slope = np.log(times), h * slope / survival / times

    @staticmethod
    def _grid(hill, e):
        """log(e) on a hilltop, sqrt(e) at a valley's bottom, and e far from both."""
        with np.errstate(divide="ignore"):
            return np.where(hill, e + np.log(-np.expm1(-e)), (e + np.sqrt(e * e + 4 * e)) / 2)

    def __call__(self, dim, z):
        """Cubic through the two nearest points with the exact slopes; straight on above the table, and S = 1 - h below it."""
        hill, e = self.ratio.hill[dim], self.ratio.distance(dim, z)
        position = (self._grid(hill, e) - self.first[dim, 0]) / self.step[dim, 0]
        k = np.clip(np.nan_to_num(position), 0, _POINTS - 2).astype(np.int64)
        f = np.clip(position - k, 0, 1)
        left, right = self.log_time[dim, k], self.log_time[dim, k + 1]
        cubic = left + f * f * (3 - 2 * f) * (right - left) + f * (1 - f) * ((1 - f) * self.slope[dim, k] - f * self.slope[dim, k + 1])
        above = np.maximum(position - (_POINTS - 1), 0) * self.slope[dim, -1]
        below = np.log(-np.log1p(-np.exp(np.clip(self.ratio.log(dim, z), -700, -1e-15))))
        return np.where(position < 0, below, cubic + above)


def _greedy_rule(ratio):
    """Score of a candidate at z that arrives at `time`: its time if it may be picked."""
    stretch = _Stretch(ratio)
    return lambda dim, z, time: np.where(np.log(time) <= stretch(dim, z), time, np.inf)


def _a_star_rule(ratio):
    return lambda dim, z, time: np.log(time) - ratio.log(dim, z)


_RULES = {"greedy": _greedy_rule, "a_star": _a_star_rule}


def _quantile(part, share, depth):
    """ndtri((part + share) / 2^depth), from the nearer end so that the upper tail is as fine as the lower."""
    count = 1 << depth
    lower = 2 * part < count
    return np.where(lower, 1, -1) * ndtri(np.where(lower, part + share, (count - 1 - part) + (1 - share)) / count)


def _walk(ratio, rule, row, seed, stream):
    """Level by level: a node is kept while the best that its part may still hold is better than the best found. row: the target of each stream."""
    best, picked, visited = np.full(stream.size, np.inf), np.zeros(stream.size, np.int64), np.zeros(stream.size, np.int64)
    live, node, time = np.arange(stream.size), np.ones(stream.size, np.int64), np.zeros(stream.size)
    for depth in range(MAX_DEPTH):
        visited += np.bincount(live, minlength=stream.size)
        part = node - (1 << depth)
        time = time + exponentials(seed, stream[live], node, _TIME) * (1 << depth)  # arrivals in a part of mass 2^-depth are this far apart
        score = rule(row[live], _quantile(part, uniforms(seed, stream[live], node), depth), time)
        np.minimum.at(best, live, score)
        found = (score == best[live]) & (score < np.inf)
        picked[live[found]] = node[found]
        edges = _quantile(part, 0.0, depth), _quantile(part, 0.5, depth), -_quantile((1 << depth) - 1 - part, 0.0, depth)
        live, time, low, high = np.tile(live, 2), np.tile(time, 2), np.concatenate(edges[:2]), np.concatenate(edges[1:])
        keep = rule(row[live], ratio.highest(row[live], low, high), time) < best[live]
        live, node, time = live[keep], np.concatenate([2 * node, 2 * node + 1])[keep], time[keep]
        if not live.size:
            return picked - 1, visited
    raise InvalidInput(f"a target is too far from its proposal: {np.unique(live).size} samples would need more than 2^{MAX_DEPTH} candidates")


def search(target, proposal, seed, rule="greedy", stream=None):
    """Search(index, visited) of independent dimensions.

    target, proposal: Gaussians, shapes that broadcast; rule: "greedy" or "a_star"; stream: an integer per dimension, by default 0, 1, 2, ... in raster
    order; with more streams than dimensions, one sample is drawn per stream. Raises InvalidInput where "a_star" meets a target that is
    not narrower than its proposal, for divergences above 50 bits, and when a sample comes to lie where the proposal has less than 2^-62 of its mass.
    """
    if rule not in _RULES:
        raise InvalidInput(f"rule must be one of {', '.join(_RULES)}, not {rule!r}")
    stream, rows, shape = layout(target, proposal, stream)
    if rule == "a_star" and np.max(target.max_log_ratio(proposal)) > MAX_DEPTH * math.log(2):
        raise InvalidInput("A* needs a bounded density ratio: a target that is narrower than its proposal, and not by a hair")
    if np.max(target.kl(proposal)) > MOST_BITS:
        raise InvalidInput(f"a target is too far from its proposal: more than {MOST_BITS} bits")
    seen = target.relative_to(proposal)
    mean, scale = seen.mean.reshape(-1), seen.scale.reshape(-1)
    index, visited = np.empty(rows.size, np.int64), np.empty(rows.size, np.int64)
    for first in range(0, mean.size, _CHUNK):
        part = slice(first, first + _CHUNK)
        members = np.flatnonzero((rows >= first) & (rows < first + _CHUNK))
        ratio = _Ratio(mean[part], scale[part])
        index[members], visited[members] = _walk(ratio, _RULES[rule](ratio), rows[members] - first, seed, stream[members])
    return Search(index.reshape(shape)[()], visited.reshape(shape)[()])


def encode(target, proposal, seed, rule="greedy", stream=None):
    """Index of a sample of every dimension, int64 from 0: `search` without the count. `codec` is a code for it."""
    return search(target, proposal, seed, rule, stream).index


def decode(index, proposal, seed, stream=None):
    """The samples that the indices name, float64 in the shape of `index`: one random number each, whichever rule has picked. Raises InvalidInput."""
    index = integers("index", index, 0, (1 << MAX_DEPTH) - 2).astype(np.int64)
    stream, _, shape = layout(proposal, proposal, stream, index)
    if shape != index.shape:
        raise InvalidInput(f"index has shape {index.shape}, proposal and streams have {shape}")
    level = depth(index)
    z = _quantile(index + 1 - (1 << level), uniforms(seed, stream.reshape(shape), index + 1), level)
    return proposal.mean + proposal.scale * z


def depth(index):
    """Level of a node in the tree, floor(log2(index + 1)): int64."""
    return np.searchsorted(1 << np.arange(MAX_DEPTH), np.asarray(index) + 1, side="right") - 1


def codec(observed, count):
    """The codec of `count` indices: each one's level, by its frequency among `observed` indices, and then as many plain bits as the level has.

    Within a level nodes are equally likely before the target is known, and levels spread little: about KL + 1.5 bits for KL from 1 to 8, where
    Zipf's law needs KL + 2 to KL + 3.5. Good for the indices of `ordered` and `rejection`, too."""
    levels = smoothed(depth(integers("observed", observed, 0, (1 << MAX_DEPTH) - 2)), MAX_DEPTH)

    def model():
        level = yield independent(levels, count)
        yield block(level, count)

    parts = autoregressive(model)

    def split(index):
        index = integers("indices", index, 0, (1 << MAX_DEPTH) - 2).reshape(-1).astype(np.int64)
        return [depth(index), index + 1 - (1 << depth(index))]

    def pop(stack):
        level, rest = parts.pop(stack)
        return (1 << level.astype(np.int64)) + rest - 1

    return Codec(lambda stack, index: parts.push(stack, split(index)), pop, lambda index: parts.bits(split(index)))

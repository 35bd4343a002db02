"""Scalar quantisers of one real number, and the additive uniform noise that stands for them in training.

A quantiser cuts the line into cells, sends the cell's number at the price of its entropy, and rebuilds the source's mean in that cell. Its points
(rate, distortion) lie above Shannon's R(D): at high rate by 1/2 log2(2 pi e / 12) = 0.2546 bits (Gish and Pierce 1968), for a Gaussian by less and less
towards rate zero. The best quantiser for a given trade-off is found by iteration, as Blahut-Arimoto finds R(D) (Chou, Lookabaugh and Gray 1989).

The noise channel y = x + step * u, u uniform on (-1/2, 1/2), has the rate I[x : y] = h(y) - log2 step. With shared randomness it is a codec, dithered
quantisation: I[x : y] = H[round(x / step - u) | u], the mean over all offsets of the entropies of quantisers (Zamir and Feder 1992). Taught in chapter 4.

Sources are frozen distributions of scipy.stats (or anything with cdf, pdf, ppf, mean, std), symmetric or not; rates are in bits, distortions are
mean squared errors in the source's units, squared.
"""

from dataclasses import dataclass

import numpy as np

from ..errors import InvalidInput
from ._checks import scalar, whole
from .entropy import entropy

_TAIL = 1e-12  # probability that is cut off at either end
_NODES = 1 << 15  # points of the integrals
_MOST = 1 << 20  # cells that anybody may ask for


@dataclass(frozen=True)
class Quantiser:
    """Cells of the line, edges[k] to edges[k + 1], and what they cost. The outermost edges stand where hardly any mass is left."""

    rate: float  # bits: entropy of the cell's number
    distortion: float  # mean squared error
    edges: np.ndarray  # (n + 1,)
    masses: np.ndarray  # (n,) sum to 1
    points: np.ndarray  # (n,) the mean of the source in each cell


def uniform_quantiser(source, step, offset=0.0, dead_zone=1.0):
    """Rounding to multiples of `step`: cells of that width around step * (k + offset); the cell k = 0 is `dead_zone` times as wide.

    offset: in steps. Returns a Quantiser. Raises InvalidInput.
    """
    step, dead_zone = scalar(step, "step", positive=True), scalar(dead_zone, "dead_zone", positive=True)
    offset = scalar(offset, "offset")
    low, high = _ends(source)
    half = dead_zone / 2
    below = int(max(1, np.ceil(offset - half - low / step))) if np.isfinite(low) else 1
    above = int(max(1, np.ceil(high / step - offset - half)))
    if below + above > _MOST:
        raise InvalidInput(f"step {step:g} cuts this source into more than {_MOST} cells")
    return _quantiser(source, step * (offset + np.concatenate([-half - np.arange(below, -1, -1), half + np.arange(above + 1)])))


def best_quantiser(source, slope, step=None, iterations=2000):
    """The entropy-constrained quantiser that minimises rate + slope * distortion, by alternating: points to the means of the cells, prices to
    -log2 of their masses, edges to where two neighbours cost the same. A local optimum, begun at the uniform quantiser of `step`.

    slope: bits per unit of squared error. Chou, Lookabaugh and Gray (1989). Returns a Quantiser. Raises InvalidInput.
    """
    slope = scalar(slope, "slope", positive=True)
    now = uniform_quantiser(source, step or np.sqrt(6 / (slope * np.log(2))))  # at high rate, step^2 = 6 / (slope ln 2)
    for _ in range(whole(iterations, "iterations", minimum=1)):
        kept = now.masses > _TAIL
        points, price = now.points[kept], -np.log2(now.masses[kept])
        while len(points) > 1:  # a cell that would be empty between its neighbours' edges goes
            edges = (points[1:] + points[:-1]) / 2 + np.diff(price) / (2 * slope * np.diff(points))
            empty = np.flatnonzero(np.diff(edges) <= 0) + 1
            if not len(empty):
                break
            points, price = np.delete(points, empty[0]), np.delete(price, empty[0])
        low, high = _ends(source)
        edges = edges if len(points) > 1 else np.zeros(0)
        inside = edges[(edges > low) & (edges < high)]
        before, now = now, _quantiser(source, np.concatenate([[low], inside, [high]]))
        if before.rate + slope * before.distortion - now.rate - slope * now.distortion < 1e-9:
            break
    return now


def noise_channel(source, step):
    """(rate, distortion) of y = x + step * u, u uniform on (-1/2, 1/2): I[x : y] in bits, and the error of the best estimate E[x | y].

    The error of y itself is step^2 / 12. Raises InvalidInput.
    """
    step = scalar(step, "step", positive=True)
    low, high = _ends(source)
    y = np.linspace(low - step / 2, high + step / 2, _NODES)
    left, right, moment = y - step / 2, y + step / 2, _moment(source)
    mass = np.maximum(source.cdf(right) - source.cdf(left), 1e-300)  # step times the density of y
    mean = (moment(right) - moment(left)) / mass
    weight = mass * (y[1] - y[0]) / step
    return float(max(-(weight * np.log2(mass)).sum(), 0.0)), float(max(_square(source) - (weight * mean**2).sum(), 0.0))


def _ends(source):
    return float(source.ppf(_TAIL)), float(source.ppf(1 - _TAIL))


def _square(source):
    return source.std() ** 2 + source.mean() ** 2


def _moment(source):
    """t -> the integral of x p(x) up to t."""
    x = np.linspace(*_ends(source), _NODES)
    values = np.append(0.0, np.cumsum((x[1:] + x[:-1]) / 2 * np.diff(source.cdf(x))))
    return lambda t: np.interp(t, x, values)


def _quantiser(source, edges):
    masses, moments = np.diff(source.cdf(edges)), np.diff(_moment(source)(edges))
    means = np.where(masses > _TAIL, moments / np.maximum(masses, _TAIL), (edges[1:] + edges[:-1]) / 2)
    points = np.clip(means, edges[:-1], edges[1:])
    masses = masses / masses.sum()
    return Quantiser(float(entropy(masses)), float(max(_square(source) - (masses * points**2).sum(), 0.0)), edges, masses, points)

"""Random models and symbols, shared by the tests of the coding package."""

import numpy as np
from hypothesis import strategies as st

from shvc_lib.coding import TOTAL, BitStack, Categorical, Uniform, gaussian, laplace, logistic, logistic_mixture, weight_index
from shvc_lib.coding.cdf import Bernoulli

KINDS = ("uniform", "categorical", "rows", "windows", "logistic", "laplace", "gaussian", "mixture", "bernoulli", "shifted")
SINGLE = {"logistic": logistic, "laplace": laplace, "gaussian": gaussian}


def random_masses(rng, rows, size):
    """Integer masses with a few heavy entries and many of one count, (rows, size)."""
    weights = rng.exponential(size=(rows, size)) ** rng.uniform(0.5, 12)
    masses = 1 + np.floor(weights / weights.sum(-1, keepdims=True) * (TOTAL - size)).astype(np.int64)
    masses[np.arange(rows), rng.integers(0, size, rows)] += TOTAL - masses.sum(-1)
    return masses


def random_model(rng, kind, size, number):
    """An IntegerCDF for `number` symbols (over `size` values; bits are over 2)."""
    lower = int(rng.integers(-300, 300))
    if kind == "uniform":
        return Uniform(size, lower)
    if kind == "categorical":
        return Categorical(random_masses(rng, 1, size)[0], lower)
    if kind == "rows":
        return Categorical(random_masses(rng, number, size), lower)
    if kind == "windows":
        return Categorical(random_masses(rng, number, size), rng.integers(-1000, 1000, number))
    if kind == "bernoulli":
        return Bernoulli(random_masses(rng, number, 2)[:, 1])
    components = () if kind != "mixture" else (int(rng.integers(1, 6)),)
    shape = (number, *components)
    means = rng.integers(16 * (lower - 100), 16 * (lower + size + 100), shape)
    scales = rng.integers(0, 192, shape)
    if kind == "mixture":
        return logistic_mixture(means, scales, weight_index(rng.exponential(size=shape)), size, lower)
    if kind == "shifted":  # a support of its own for every symbol
        return logistic(means, scales, size, lower + rng.integers(-300, 300, number))
    return SINGLE[kind](means, scales, size, lower)


def random_symbols(rng, cdf, number):
    """Half of them anywhere in the support, half at its two ends."""
    offsets = np.where(rng.random(number) < 0.5, rng.integers(0, cdf.size, number), rng.choice([0, cdf.size - 1], number))
    return (offsets + cdf.lower).astype(np.int32)


def count_of(cdf, number):
    """What `BitStack.pop` needs to be told."""
    return number if cdf.shape is None else None


@st.composite
def coded(draw, sizes=(1, 2, 3, 17, 255, 256, 257, 2000), most=40):
    """(cdf, symbols): any kind of model, any size of support."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    kind, size, number = draw(st.sampled_from(KINDS)), draw(st.sampled_from(sizes)), draw(st.integers(1, most))
    cdf = random_model(rng, kind, size, number)
    return cdf, random_symbols(rng, cdf, number)


def stacks():
    """Stacks with anything on them: nothing, a few bits, many."""
    return st.builds(BitStack.random, st.one_of(st.just(0), st.integers(0, 70), st.integers(0, 5000)), st.integers(0, 2**32))

"""Groups of dimensions with one index each: the partition of Algorithm 3, samples near the target, and files that hold all of it."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from shvc_lib.coding import BitStack
from shvc_lib.errors import CorruptFile, InvalidInput
from shvc_lib.sampling import groups, importance
from shvc_lib.sampling.distributions import Discrete, Gaussian
from shvc_lib.sampling.groups import Coded, partition

pytestmark = pytest.mark.filterwarnings("error")
RNG = np.random.default_rng(0)
D = 600
PRIOR = Gaussian(RNG.normal(size=D), RNG.uniform(0.5, 2, D))
SEEN = Gaussian(RNG.normal(size=D), RNG.uniform(0.3, 1, D))  # in the prior's units
TARGET = Gaussian(PRIOR.mean + PRIOR.scale * np.where(np.arange(D) % 97 == 5, 6, SEEN.mean), PRIOR.scale * SEEN.scale)


def algorithm_3(kl, budget, most):
    """The loop of the thesis, with a group that is not empty where the first dimension alone exceeds the budget by rounding."""
    sizes, size, total = [], 0, 0.0
    for bits in kl:
        if size and (total + bits > budget or size + 1 > most):
            sizes.append(size)
            size, total = 0, 0.0
        size, total = size + 1, total + bits
    return sizes + [size] * bool(size)


@given(st.lists(st.integers(0, 80), min_size=1, max_size=60), st.integers(1, 12), st.integers(1, 9), st.booleans())
@settings(max_examples=200, deadline=None)
def test_the_partition_is_algorithm_3(eighths, budget, most, strict):
    """KLs in eighths of a bit, so that sums are exact."""
    kl, outlier = np.array(eighths) / 8, budget / 2 if strict else None
    outliers, sizes = partition(kl, budget, most, outlier)
    assert (outliers == (kl > (budget / 2 if strict else budget))).all()
    assert sizes.tolist() == algorithm_3(kl[~outliers], budget, most)


def test_groups_respect_budget_and_size():
    kl = TARGET.kl(PRIOR)
    outliers, sizes = partition(kl, 6, 10)
    ends = np.cumsum(sizes)
    totals = np.add.reduceat(kl[~outliers], ends - sizes)
    assert sizes.sum() + outliers.sum() == D and outliers.sum() >= 6 and totals.max() <= 6 + 1e-9 and sizes.max() <= 10
    assert (totals[:-1] + kl[~outliers][ends[:-1]] > 6).any() and sizes.min() >= 1


@pytest.mark.parametrize("make", ["mixed", "all outliers", "no outliers", "discrete"])
def test_file_round_trip(make):
    """Encode, push, pop, decode: the same sample; the stack grew by what `bits` says."""
    target, prior, limits = TARGET, PRIOR, dict(budget=5, most=9, extra_bits=1)
    if make == "all outliers":
        limits["outlier"] = 0
    if make == "no outliers":
        target = Gaussian(PRIOR.mean + 0.2, PRIOR.scale * 0.9)
    if make == "discrete":
        target, prior = Discrete(RNG.dirichlet(np.full(4, 0.3), D)), Discrete(np.full((D, 4), 0.25))
    coded = groups.encode(target, prior, 3, **limits)
    x = groups.decode(coded, prior, 3)
    outlier = limits.pop("outlier", None)
    assert (coded.outliers == (target.kl(prior) > (5 if outlier is None else outlier))).all()
    assert coded.outliers.any() == (make in ("mixed", "all outliers")) and bool(coded.sizes.size) == (make != "all outliers")
    for observed in (None, np.arange(1, 10)) + ((coded.sizes,) if coded.sizes.size else ()):
        codec, stack = groups.codec(D, observed=observed, **limits), BitStack.random(40)
        before = stack.copy()
        codec.push(stack, coded)
        assert abs(stack.bits - 40 - codec.bits(coded)) < 3
        popped = codec.pop(stack)
        assert all((a == b).all() for a, b in zip(popped, coded, strict=True)) and stack == before
        assert (groups.decode(popped, prior, 3) == x).all()


def test_what_a_file_costs():
    """By hand: Elias-coded counts, positions, 16 bits per outlier, log2(most) and budget + extra bits per group; sizes are cheaper when seen before."""
    coded = groups.encode(TARGET, PRIOR, 3, 5, 16, 2)
    outliers, number = int(coded.outliers.sum()), coded.sizes.size
    share = outliers / D
    positions = -outliers * math.log2(share) - (D - outliers) * math.log2(1 - share)
    counts = 2 * math.floor(math.log2(outliers + 1)) + 1 + 2 * math.floor(math.log2(number + 1)) + 1
    expected = counts + positions + 16 * outliers + number * (4 + 7)
    assert groups.codec(D, 5, 16, 2).bits(coded) == pytest.approx(expected, abs=0.01)
    learned = groups.encode(TARGET, PRIOR, 4, 5, 16, 2).sizes
    assert groups.codec(D, 5, 16, 2, observed=learned).bits(coded) < expected - 0.5 * number


def test_bias_against_extra_bits():
    """Thirty dimensions, 1000 samples: outliers exact (to 16 bits), the others' means off by some 0.2 scales without extra bits, by far less with three."""
    rng, copies, size = np.random.default_rng(0), 1000, 30
    means, scales = np.append(rng.normal(size=size - 1), 8.0), np.append(rng.uniform(0.3, 0.9, size - 1), 0.5)
    target, prior = Gaussian(np.tile(means, copies), np.tile(scales, copies)), Gaussian(np.zeros(copies * size), 1)
    errors = []
    for extra in (0, 3):
        coded = groups.encode(target, prior, 5, budget=5, most=8, extra_bits=extra)
        z = ((groups.decode(coded, prior, 5) - target.mean) / target.scale).reshape(copies, size)
        assert coded.outliers.reshape(copies, size)[:, -1].all() and stats.kstest(z[:, -1], "norm").pvalue > 0.01
        errors.append(math.sqrt((z[:, :-1].mean(0) ** 2).mean()))
    assert errors[0] > 0.2 and errors[1] < 0.07


def test_the_groups_are_importance_samples():
    """Each group alone, through `importance`, has the same index: streams are the dimensions' places before outliers were taken out."""
    coded = groups.encode(TARGET, PRIOR, 6, 6, 7, 2)
    rest, start = np.flatnonzero(~coded.outliers), 0
    for size, index in zip(coded.sizes[:20], coded.index):
        dims = rest[start:start + size]
        assert importance.encode(TARGET[dims], PRIOR[dims], 6, 8, stream=dims) == index
        start += size


def test_shapes_are_kept():
    target, prior = Gaussian(TARGET.mean.reshape(20, 30), 0.4), Gaussian(PRIOR.mean.reshape(20, 30), 1)
    assert groups.decode(groups.encode(target, prior, 1, 4, 9, 0), prior, 1).shape == (20, 30)


def test_bits_that_are_no_groups():
    """A sample of other dimensions, on the stack: its sizes do not add up. The stack is left as it was."""
    stack = BitStack.random(3000)
    groups.codec(D, 5, 16, 2).push(stack, groups.encode(TARGET, PRIOR, 3, 5, 16, 2))
    for dimensions in (20, 599, 601):
        before = stack.copy()
        with pytest.raises(CorruptFile):
            groups.codec(dimensions, 5, 16, 2).pop(stack)
        assert stack == before


def coded_with(**parts):
    coded = Coded(np.array([False, True, False, False]), np.array([5]), np.array([2, 1]), np.array([3, 4]))
    return coded._replace(**{name: np.array(value) for name, value in parts.items()})


@pytest.mark.parametrize("parts", [dict(sizes=[2, 2]), dict(sizes=[3]), dict(index=[3]), dict(escaped=[]), dict(outliers=[0, 1, 0, 0]), dict(outliers=[False]),
                                   dict(sizes=[4, -1]), dict(index=[-1, 4]), dict(escaped=[70000])])
def test_samples_that_do_not_fit(parts):
    assert groups.decode(coded_with(), Gaussian(np.zeros(4), 1), 0).shape == (4,)
    stack = BitStack()
    for call in (lambda: groups.decode(coded_with(**parts), Gaussian(np.zeros(4), 1), 0), lambda: groups.codec(4, 5, 3, 1).push(stack, coded_with(**parts))):
        with pytest.raises(InvalidInput) as error:
            call()
        assert "\n" not in str(error.value) and stack == BitStack()


@pytest.mark.parametrize("call", [
    lambda: partition([1, 2], 3, 0), lambda: partition([1, 2], 3, 4, 5), lambda: partition([], 3, 4), lambda: partition([np.inf], 3, 4),
    lambda: partition([1], 3, 4, -1),
    lambda: groups.encode(TARGET, PRIOR, 0, 20, 5, 5), lambda: groups.encode(TARGET, PRIOR, 0, 4.5), lambda: groups.codec(0), lambda: groups.codec(5, 60),
    lambda: groups.codec(5, 4.5), lambda: groups.codec(5, most=0), lambda: groups.codec(5, most=4, observed=[5])])
def test_bad_arguments(call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert "\n" not in str(error.value)

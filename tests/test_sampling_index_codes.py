"""Codes of indices: what goes in comes out, at the lengths of the textbooks, through the coder's own integers."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import zeta as riemann

from shvc_lib.coding import TOTAL, BitStack
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits
from shvc_lib.sampling import index_codes, rejection
from shvc_lib.sampling.distributions import Gaussian
from shvc_lib.sampling.index_codes import MOST, block, elias_delta, elias_gamma, empirical, smoothed, zeta, zipf_exponent

pytestmark = pytest.mark.filterwarnings("error")
SEEN = np.repeat([0, 1, 2, 200, 256 + 7, 256 + 9000], [500, 300, 100, 50, 1, 2])
CODES = {"block": lambda n: block(62, n), "gamma": elias_gamma, "delta": elias_delta, "zeta": lambda n: zeta(1.2, n), "steep zeta": lambda n: zeta(4, n),
         "empirical": lambda n: empirical(SEEN, 8, n)}


def most(name):
    return {"empirical": 256 + 65535, "block": 2**62 - 1}.get(name, MOST)


@pytest.mark.parametrize("name", CODES)
@given(data=st.data())
@settings(max_examples=40, deadline=None)
def test_every_code(name, data):
    """pop inverts push on any stack, `bits` is what the stack grew by, and an array may have any shape."""
    octaves = st.integers(0, most(name).bit_length()).map(lambda k: 1 << k)
    near = st.tuples(octaves, st.integers(-2, 2)).map(sum)
    values = data.draw(st.lists(st.one_of(near, st.integers(0, 300), st.integers(0, most(name))), min_size=1, max_size=30))
    x = np.clip(np.array(values, dtype=np.int64), 0, most(name))
    codec, stack = CODES[name](x.size), BitStack.random(data.draw(st.integers(0, 200)), 1)
    before = stack.copy()
    codec.push(stack, x[None])
    assert abs(stack.bits - before.bits - codec.bits(x)) < 2 + 1e-5 * codec.bits(x)
    popped = codec.pop(stack)
    assert popped.dtype == np.int64 and popped.tolist() == x.tolist() and stack == before


@pytest.mark.parametrize("n, gamma, delta", [(1, 1, 1), (2, 3, 4), (3, 3, 4), (4, 5, 5), (7, 5, 5), (8, 7, 8), (15, 7, 8), (16, 9, 9), (17, 9, 9),
                                             (1000, 19, 16), (2**16, 33, 25), (2**40, 81, 51), (2**53 - 1, 105, 63), (2**53, 107, 64), (2**62 - 1, 123, 72)])
def test_elias_lengths(n, gamma, delta):
    """The code lengths in Elias's table, and for all n by the printed formulas."""
    assert elias_gamma(1).bits([n - 1]) == gamma == 2 * (n.bit_length() - 1) + 1
    assert elias_delta(1).bits([n - 1]) == delta == n.bit_length() - 1 + 2 * (n.bit_length().bit_length() - 1) + 1


@pytest.mark.parametrize("code", [elias_gamma, elias_delta])
def test_elias_codes_are_complete(code):
    """Kraft: the lengths of 2^16 - 1 numbers leave as much room as the larger ones need."""
    lengths = [code(1).bits([x]) for x in (1 << np.arange(16)) - 1]  # one number of each octave; all in it have its length
    used = sum(2.0 ** (k - length) for k, length in enumerate(lengths))
    rest = {elias_gamma: 2.0**-16, elias_delta: 1 - sum(2.0 ** -(2 * math.floor(math.log2(k + 1)) + 1) for k in range(16))}[code]
    assert used == 1 - rest


def test_block_takes_a_width_for_each():
    codec = block([3, 0, 20, 9], 4)
    assert codec.bits([7, 0, 2**20 - 1, 0]) == 32
    stack = BitStack()
    codec.push(stack, [7, 0, 2**20 - 1, 300])
    assert codec.pop(stack).tolist() == [7, 0, 2**20 - 1, 300]
    for bad in ([8, 0, 0, 0], [0, 1, 0, 0], [0, 0, 2**20, 0]):
        with pytest.raises(InvalidInput):
            codec.push(stack, bad)
    assert stack == BitStack()


@pytest.mark.parametrize("exponent", [1.125, 1.5, 2, 5])
def test_zeta_is_zipfs_law(exponent):
    """Against -log2(n^-s / zeta(s)): to a thousandth of a bit where masses are exact and not tiny, to 0.15 bits inside a sixteenth of an octave."""
    cut = sum(riemann(exponent, [2.0**62]))  # the law ends at 2^62
    for n in (1, 2, 3, 10, 255, 256, 1000, 2**20 + 12345, 2**45):
        ideal = math.log2(riemann(exponent) - cut) + exponent * math.log2(n)
        mass = 24 - ideal + max(0, n.bit_length() - 5) * (n > 255)  # log2 of the bucket's mass in units of the coder
        if mass > 6:
            assert abs(zeta(exponent, 1).bits([n - 1]) - ideal) < (0.001 + 2**(1.5 - mass) if n < 256 else 0.15 + 2**(1.5 - mass)), n
    assert mass < 6 or exponent < 2


def test_zeta_costs_what_li_and_el_gamal_promise():
    """E bits <= m + log2(m + 1) + 1 for indices with E log2 n = m; here numbers whose logarithm is exponential, or uniform."""
    rng = np.random.default_rng(0)
    for logarithm in (*rng.exponential([[0.5], [2], [4]], (3, 20_000)), *rng.uniform(0, [[20], [50]], (2, 20_000))):
        n = np.floor(2**logarithm).astype(np.int64)
        mean = np.log2(n).mean()
        bits = zeta(zipf_exponent(mean), n.size).bits(n - 1) / n.size
        assert mean < bits <= mean + math.log2(mean + 1) + 1


def test_empirical_by_hand():
    """(count + 1) / (all + 257) of 2^24, and 16 bits more for an escape."""
    codec, total = empirical(SEEN, 8, 1), SEEN.size + 257
    for index, count in ((0, 500), (1, 300), (200, 50), (3, 0), (255, 0)):
        assert codec.bits([index]) == pytest.approx(-math.log2((count + 1) / total), abs=1e-3)
    assert codec.bits([256]) == codec.bits([256 + 65535]) == pytest.approx(-math.log2(4 / total) + 16, abs=1e-3)


def test_empirical_of_rejection_indices():
    """Trained on the indices of one image's worth of dimensions, it codes another's near the entropy of both, and beats the thesis' 8-bit blocks."""
    target, prior = Gaussian(np.tile([0.1, 0.5, 1.0], 2000), np.tile([0.9, 0.7, 0.4], 2000)), Gaussian(0, 1)
    train, test = (rejection.encode(target, prior, seed, 8) for seed in (1, 2))
    codec, stack = empirical(train, 8, test.size), BitStack()
    codec.push(stack, test)
    symbols = np.bincount(np.minimum(test, 256)) / test.size
    entropy = -sum(p * math.log2(p) for p in symbols if p) + 16 * symbols[256:].sum()
    assert entropy < codec.bits(test) / test.size < 1.05 * entropy < 4 and stack.bits < codec.bits(test) + 64
    assert (codec.pop(stack) == test).all()


@pytest.mark.parametrize("kl, scale", [(0.5, 0.7), (1, 0.6), (2, 0.5), (4, 0.4), (6, 0.3), (8, 0.1)])
def test_rejection_costs_what_harsha_et_al_promise(kl, scale):
    """Actual bits of 1000 samples' indices, pushed onto a stack: below KL + 2 log2(KL + 1) + 5 each, and not below KL - 1."""
    target = Gaussian(math.sqrt(2 * math.log(2) * kl + 1 - scale**2 + 2 * math.log(scale)), scale)
    assert target.kl(Gaussian(0, 1)) == pytest.approx(kl)
    index = rejection.encode(target, Gaussian(0, 1), 10, None, np.arange(1000))
    for codec in (elias_delta(1000), zeta(zipf_exponent(kl + 1), 1000)):
        stack = BitStack()
        codec.push(stack, index)
        assert kl - 1 < stack.bits / 1000 < kl + 2 * math.log2(kl + 1) + 5
        assert (codec.pop(stack) == index).all()


@pytest.mark.parametrize("name", CODES)
def test_bad_indices(name):
    codec, stack = CODES[name](3), BitStack.random(100)
    before = stack.copy()
    for bad in ([0, 1], [0, 1, 2, 3], [0, -1, 2], [0, 1, most(name) + 1], [0.0, 1, 2], "abc", [], [True, False, True]):
        for action in (lambda: codec.push(stack, bad), lambda: codec.bits(bad)):
            with pytest.raises(InvalidInput) as error:
                action()
            assert "\n" not in str(error.value)
    assert stack == before


@pytest.mark.parametrize("name", CODES)
def test_pops_that_fail_leave_the_stack(name):
    codec, stack = CODES[name](2000), BitStack.random(50, 5)
    before = stack.copy()
    with pytest.raises(OutOfBits):
        codec.pop(stack)
    assert stack == before


@pytest.mark.parametrize("code", [elias_gamma, elias_delta])
def test_bits_that_are_no_index(code):
    """A run of 'at least 16' that never ends."""
    stack = BitStack()
    for _ in range(5):
        stack.push([16], index_codes._unary())
    before = stack.copy()
    with pytest.raises(CorruptFile):
        code(1).pop(stack)
    assert stack == before


def test_masses_of_zeta_are_pinned():
    """Files depend on them: a few masses, and their sum."""
    table = index_codes._zeta_model(64).frequencies()
    assert table.sum() == TOTAL and table.min() >= 1 and table[[0, 1, 2, 254, 255, 500, 1000]].tolist() == PINNED
    assert zipf_exponent(4) == 1.25 and zipf_exponent(1e9) == 1 + 1 / 256 and zipf_exponent(1e-9) == 16


PINNED = [3651485, 1535026, 924702, 3583, 55048, 2932, 12]


@pytest.mark.parametrize("call", [
    lambda: block(63, 1), lambda: block(-1, 1), lambda: block(3, 0), lambda: block([1, 2], 3), lambda: zeta(1, 1), lambda: zeta(17, 1), lambda: zeta("2", 1),
    lambda: zeta(float("nan"), 1), lambda: elias_gamma(0), lambda: elias_delta(1.5), lambda: empirical([0, 1], 16, 1), lambda: empirical([256 + 65536], 8, 1),
    lambda: empirical([], 8, 1), lambda: smoothed([0], 1, 1), lambda: smoothed([3], 3), lambda: zipf_exponent(0)])
def test_bad_codes(call):
    with pytest.raises(InvalidInput) as error:
        call()
    assert "\n" not in str(error.value)

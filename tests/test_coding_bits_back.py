"""Bits-back coding on small models where every probability can be enumerated."""

import numpy as np
import pytest

from shvc_lib.coding import BitStack, Categorical, Uniform, independent
from shvc_lib.coding.bits_back import Ledger, bb_ans, bit_swap, bits_back, push_chain
from shvc_lib.errors import CorruptFile, InvalidInput, OutOfBits

STATES = 8  # of every variable


class Chain:
    """x <- z_1 <- ... <- z_L: `dims` independent copies of a Markov chain of finite variables, with exact posteriors."""

    def __init__(self, levels, dims=200, noise=0.35, seed=0):
        rng = np.random.default_rng(seed)
        self.dims = dims
        self.joint_prior = [rng.dirichlet(np.ones(STATES))]  # marginals from the top down
        self.down = []
        for _ in range(levels):
            table = (1 - noise) * np.eye(STATES)[rng.permutation(STATES)] + noise * rng.dirichlet(np.ones(STATES), STATES)
            self.down.append(table)
            self.joint_prior.append(self.joint_prior[-1] @ table)
        self.up = []  # exact p(parent | child), by Bayes' rule
        for marginal, table in zip(self.joint_prior, self.down):
            joint = marginal[:, None] * table
            self.up.append((joint / joint.sum(0)).T)

    def parts(self):
        rows = lambda table: lambda parent: independent(Categorical(table[parent]))  # noqa: E731
        prior = independent(Categorical(np.tile(self.joint_prior[0], (self.dims, 1))))
        return prior, [rows(t) for t in self.down[::-1]], [rows(t) for t in self.up[::-1]]

    def sample(self, count, seed=1):
        rng = np.random.default_rng(seed)
        return [rng.choice(STATES, self.dims, p=self.joint_prior[-1]) for _ in range(count)]

    def exact_bits(self, x):
        return float(-np.log2(self.joint_prior[-1][x]).sum())


@pytest.mark.parametrize("levels", [1, 2, 4])
@pytest.mark.parametrize("schedule", [bit_swap, bb_ans])
def test_exact_posterior_costs_exactly_the_evidence(levels, schedule):
    """With q = p(z | x) the net cost is -log2 p(x) whatever z was drawn, and decoding returns images and initial bits."""
    chain = Chain(levels)
    codec, images = schedule(*chain.parts()), chain.sample(30)
    stack = BitStack.random(60_000, seed=5)
    before = stack.copy()
    ledgers = push_chain(codec, images, stack)
    ideal = sum(chain.exact_bits(x) for x in images)
    assert abs(sum(ledger.net for ledger in ledgers) - ideal) < 0.001 * ideal
    assert stack.bits - before.bits == sum(ledger.net for ledger in ledgers)
    decoded = [codec.pop(stack) for _ in images][::-1]
    assert all(np.array_equal(a, b) for a, b in zip(decoded, images))
    assert stack == before
    assert abs(codec.bits(images[0]) - chain.exact_bits(images[0])) < 1


def test_a_wrong_posterior_costs_its_divergence():
    """With another q the mean net cost exceeds -log2 p(x) by KL(q || p(z | x)): the ELBO's gap, enumerated."""
    chain = Chain(1, dims=400)
    prior, likelihoods, _ = chain.parts()
    wrong = 0.5 * chain.up[0] + 0.5 / STATES
    codec = bits_back(prior, likelihoods[0], lambda x: independent(Categorical(wrong[x])))
    images = chain.sample(60)
    stack = BitStack.random(10_000)
    net = sum(ledger.net for ledger in push_chain(codec, images, stack))
    gap = (wrong * np.log2(wrong / chain.up[0])).sum(1)
    expected = sum(chain.exact_bits(x) + gap[x].sum() for x in images)
    assert gap.max() > 0.1
    assert net == pytest.approx(expected, rel=0.01)
    assert net > 1.05 * sum(chain.exact_bits(x) for x in images)


def test_bit_swap_borrows_for_one_level_only():
    """BB-ANS borrows for every level at once, so its initial bits grow with L; Bit-Swap's stay within one level's."""
    initial = {}
    for levels in (1, 2, 4, 8):
        chain = Chain(levels, noise=0.8)
        for schedule in (bit_swap, bb_ans):
            stack = BitStack.random(40_000)
            initial[schedule, levels] = push_chain(schedule(*chain.parts()), chain.sample(1), stack)[0].initial
    assert initial[bit_swap, 1] == initial[bb_ans, 1] > 200
    assert initial[bb_ans, 2] < initial[bb_ans, 4] < initial[bb_ans, 8] and initial[bb_ans, 8] > 5 * initial[bb_ans, 1]
    assert initial[bit_swap, 8] < 1.5 * initial[bit_swap, 1]


def test_initial_bits_are_the_least_that_suffice():
    """A stack with about the reported initial bits carries the value (other bits choose other latents, which cost a little
    more or less); one with half of them runs out, unharmed."""
    chain = Chain(3, noise=0.8)
    codec, (image,) = bb_ans(*chain.parts()), chain.sample(1)
    initial = push_chain(codec, [image], BitStack.random(40_000))[0].initial
    codec.push(BitStack.random(initial * 5 // 4), image)
    poor = BitStack.random(initial // 2)
    before = poor.copy()
    with pytest.raises(OutOfBits):
        codec.push(poor, image)
    with pytest.raises(OutOfBits):
        push_chain(codec, [image], poor)
    assert poor == before


def test_ledger_adds_up():
    assert Ledger(net=1000, initial=300).total == 1300


def uniform(count, dims=5):
    return independent(Uniform(count), dims)


@pytest.mark.parametrize("x_bits, schedule, initial", [(4, bb_ans, 16), (4, bit_swap, 12), (12, bb_ans, 16), (12, bit_swap, 8)])
def test_the_ledger_worked_out_by_hand(x_bits, schedule, initial):
    """Two latents of 8 bits each, and x. BB-ANS borrows 16 bits; Bit-Swap pushes x before it borrows the second 8, so 4 bits of x
    save 4 and 12 bits save all 8. Exactly these initial bits suffice, one less does not, and decoding returns them."""
    codec = schedule(uniform(256, 1), [lambda z: uniform(2**x_bits, 1), lambda z: uniform(256, 1)], [lambda x: uniform(256, 1), lambda z: uniform(256, 1)])
    ledgers = push_chain(codec, [[3], [15]], BitStack.random(1000))
    assert ledgers == [Ledger(x_bits, initial)] * 2 and ledgers[0].total == x_bits + initial
    assert all(type(number) is int for ledger in ledgers for number in ledger)
    stack, poor = BitStack.random(initial), BitStack.random(initial - 1)
    codec.push(stack, [7])
    assert stack.bits == initial + x_bits and codec.pop(stack).tolist() == [7] and stack == BitStack.random(initial)
    with pytest.raises(OutOfBits):
        codec.push(poor, [7])
    assert poor == BitStack.random(initial - 1)


def test_a_push_or_pop_that_fails_halfway_changes_nothing():
    """push: z is popped, then x is no symbol of the likelihood. pop: z is there, x is not. In a chain: the third value fails."""
    codec = bits_back(uniform(4), lambda z: uniform(8), lambda x: uniform(4))
    for attempt, error, bits in [(lambda stack: codec.push(stack, [1, 2, 3, 4, 8]), InvalidInput, 100), (codec.pop, OutOfBits, 12),
                                 (lambda stack: push_chain(codec, [[1] * 5, [2] * 5, [8] * 5], stack), InvalidInput, 100)]:
        stack = BitStack.random(bits)
        before = stack.copy()
        with pytest.raises(error):
            attempt(stack)
        assert stack == before


def test_a_latent_that_no_push_can_have_drawn_is_corrupt():
    """The prior allows eight values of z, the posterior four: from random bits, pop soon finds one of the others, and says so."""
    codec = bits_back(uniform(8), lambda z: uniform(16), lambda x: uniform(4))
    stack = BitStack.random(1000)
    before = stack.copy()
    with pytest.raises(CorruptFile, match="codec has not written.*outside the model's support of 4"):
        codec.pop(stack)
    assert stack == before


def test_bits_of_a_large_latent_need_a_larger_scratch_stack(monkeypatch):
    """1.6 million bits of latents: more than the first scratch stack holds. The net cost is that of x alone here."""
    codec = bits_back(uniform(256, 200_000), lambda z: uniform(4, 10), lambda x: uniform(256, 200_000))
    assert codec.bits([3] * 10) == pytest.approx(20)
    monkeypatch.setattr("shvc_lib.coding.bits_back._SCRATCH_BITS", [8, 16, 32])
    with pytest.raises(OutOfBits, match="holds 32 bits"):
        codec.bits([3] * 10)


@pytest.mark.parametrize("schedule", [bit_swap, bb_ans])
def test_bad_hierarchies_are_refused(schedule):
    prior, likelihoods, posteriors = Chain(2).parts()
    for wrong in [([], []), (likelihoods, posteriors[:1])]:
        with pytest.raises(InvalidInput):
            schedule(prior, *wrong)

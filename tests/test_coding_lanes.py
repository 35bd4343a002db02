"""Lanes: one push for a batch, and on every stack what its member alone would have left there."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shvc_lib.coding import BitStack, Categorical, Uniform, autoregressive, independent, logistic, logistic_mixture, sequence, weight_index
from shvc_lib.coding.bits_back import bb_ans, bit_swap, push_chain
from shvc_lib.coding.lanes import Lanes
from shvc_lib.errors import InvalidInput, OutOfBits
from strategies import random_masses
from test_coding_bits_back import Chain

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too

KINDS = ("uniform", "one row", "rows", "windows", "logistic", "mixture")
SIZES = (1, 2, 3, 100, 256, 700)


def models(rng, kind, lanes, shape, size):
    """A model for a batch of symbols (lanes, *shape), and the list of its members' models, built from the same integers."""
    whole, table = (lanes, *shape), random_masses(rng, lanes * int(np.prod(shape)), size).reshape(lanes, *shape, size)
    means, scales = rng.integers(-500, 16 * size + 500, (*whole, 3)), rng.integers(0, 192, (*whole, 3))
    weights, windows, row = weight_index(rng.exponential(size=means.shape)), rng.integers(-1000, 1000, whole), table.reshape(-1, size)[0]
    build, arguments = {
        "uniform": (lambda: Uniform(size, -7), ()), "one row": (lambda: Categorical(row, 3), ()),
        "rows": (lambda t: Categorical(t, 5), (table,)), "windows": (Categorical, (table, windows)),
        "logistic": (lambda m, s: logistic(m, s, size), (means[..., 0], scales[..., 0])),
        "mixture": (lambda *part: logistic_mixture(*part, size), (means, scales, weights))}[kind]
    return build(*arguments), [build(*(values[lane] for values in arguments)) for lane in range(lanes)]


def pair(count, bits=0):
    """Two equal lists of stacks with something on each: one to use as lanes, one to use alone."""
    stacks = [BitStack.random(bits + 100 * lane, lane) for lane in range(count)]
    return Lanes([stack.copy() for stack in stacks]), stacks


@given(st.sampled_from(KINDS), st.sampled_from(SIZES), st.integers(1, 5), st.sampled_from([(1,), (4,), (2, 3, 2)]), st.integers(0, 2**32))
@settings(max_examples=150, deadline=None)
def test_a_lane_holds_what_its_member_alone_would_leave(kind, size, lanes, shape, seed):
    rng = np.random.default_rng(seed)
    whole, parts = models(rng, kind, lanes, shape, size)
    symbols = (rng.integers(0, size, (lanes, *shape)) + whole.lower).astype(np.int32)
    together, alone = pair(lanes)
    before, number = together.copy(), symbols[0].size if whole.shape is None else None
    together.push(symbols, whole)
    for stack, part, own in zip(alone, parts, symbols):
        stack.push(own.reshape(-1), part)
    assert together == Lanes(alone) and together.bits.tolist() == [stack.bits for stack in alone]
    assert alone[-1].pop(parts[-1], number).reshape(-1).tolist() == symbols[-1].reshape(-1).tolist()
    popped = together.pop(whole, None if number is None else number * lanes)
    assert popped.dtype == np.int32 and popped.reshape(symbols.shape).tolist() == symbols.tolist() and len(popped) == lanes
    assert together == before


def test_the_stacks_are_used_not_copied():
    stacks = [BitStack(), BitStack()]
    lanes = Lanes(stacks)
    copied = lanes.copy()
    lanes.push([[1, 2], [3, 4]], Uniform(256))
    assert [stack.bits for stack in stacks] == [16, 16] and stacks[1].pop(Uniform(256), 2).tolist() == [3, 4]
    assert copied.bits.tolist() == [0, 0] and copied != lanes and "2 stacks, 16 bits" in repr(lanes)
    lanes.restore(copied)
    lanes.push([[1], [2]], Uniform(256))
    assert stacks[0].bits == 8 and copied.bits.tolist() == [0, 0]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("poor", [0, 2, 3])
def test_a_lane_that_runs_out_is_named_and_nothing_has_changed(kind, poor):
    whole, _ = models(np.random.default_rng(poor), kind, 4, (60,), 256)
    lanes = Lanes([BitStack.random(8 if lane == poor else 5000, lane) for lane in range(4)])
    before = lanes.copy()
    with pytest.raises(OutOfBits, match=f"lane {poor}: the stack holds 8 bits"):
        lanes.pop(whole, 240 if whole.shape is None else None)
    assert lanes == before


@pytest.mark.parametrize("schedule", [bit_swap, bb_ans])
@pytest.mark.parametrize("levels", [1, 3])
def test_bits_back_runs_over_lanes_and_counts_each_of_them(schedule, levels):
    """Stacks, net and initial bits of a chain of three batches, lane by lane, against each lane's chain alone; then everything comes back."""
    chain, count = Chain(levels, dims=60), 5
    prior, likelihoods, posteriors = chain.parts()
    batch_prior = independent(Categorical(np.tile(chain.joint_prior[0], (count, chain.dims, 1))))
    codec, single = schedule(batch_prior, likelihoods, posteriors), schedule(prior, likelihoods, posteriors)
    batches = [np.stack(chain.sample(count, seed)) for seed in range(3)]
    lanes, stacks = pair(count, 3000)
    before = lanes.copy()
    ledgers = push_chain(codec, batches, lanes)
    alone = [push_chain(single, [batch[lane] for batch in batches], stack) for lane, stack in enumerate(stacks)]
    assert lanes == Lanes(stacks)
    for field in ("net", "initial", "total"):
        assert [getattr(ledger, field).tolist() for ledger in ledgers] == [[getattr(own[i], field) for own in alone] for i in range(3)]
    assert single.pop(stacks[4]).tolist() == batches[2][4].tolist()
    assert [codec.pop(lanes).tolist() for _ in batches][::-1] == [batch.tolist() for batch in batches]
    assert lanes == before


@pytest.mark.parametrize("schedule", [bit_swap, bb_ans])
def test_one_poor_lane_undoes_the_whole_batch(schedule):
    """The lanes before it were popped and, with Bit-Swap, pushed to, when the last one runs out at the second level."""
    chain = Chain(2, dims=60, noise=0.8)
    _, likelihoods, posteriors = chain.parts()
    codec = schedule(independent(Categorical(np.tile(chain.joint_prior[0], (3, chain.dims, 1)))), likelihoods, posteriors)
    batch, lanes = np.stack(chain.sample(3)), Lanes([BitStack.random(3000, lane) for lane in range(3)])
    need = int(push_chain(codec, [batch], lanes.copy())[0].initial[2])
    lanes = Lanes([*lanes.stacks[:2], BitStack.random(need // 3, 2)])
    before = lanes.copy()
    for attempt in (lambda: codec.push(lanes, batch), lambda: push_chain(codec, [batch], lanes)):
        with pytest.raises(OutOfBits, match="lane 2"):
            attempt()
        assert lanes == before


def test_other_codecs_run_over_lanes():
    row, rows = Uniform(10), Categorical(np.ones((2, 3, 4)))

    def model():
        first = yield independent(row, 6)
        yield Categorical(1.0 + first[..., None] * np.arange(5))

    symbols = np.array([[1, 2, 3], [3, 2, 1]])
    for codec, value in [(independent(row, 6), symbols), (sequence(independent(rows), independent(row, 6)), (symbols, symbols)),
                         (autoregressive(model), [symbols, symbols]), (independent(Categorical(np.ones((2, 4)))), symbols[:, 0])]:
        lanes, _ = pair(2)
        before = lanes.copy()
        codec.push(lanes, value)
        assert np.array_equal(codec.pop(lanes), value) and lanes == before


ROWS = Categorical(np.ones((2, 3, 4)))


@pytest.mark.parametrize("attempt", [
    lambda lanes: lanes.push([[0], [0], [0]], ROWS), lambda lanes: lanes.push(np.zeros((3, 2, 1), int), ROWS),
    lambda lanes: lanes.push(np.full((2, 3), 4), ROWS), lambda lanes: lanes.push(np.zeros((2, 3)), ROWS),
    lambda lanes: lanes.push([0, 0, 0], Categorical(np.ones((3, 4)))), lambda lanes: lanes.push(0, Categorical(np.ones(4))),
    lambda lanes: lanes.push([[0, 0]], Uniform(4)), lambda lanes: lanes.push([[], []], Uniform(4)),
    lambda lanes: lanes.push([[0], [9]], Uniform(4)), lambda lanes: lanes.push([[0, 1], [2]], Uniform(4)), lambda lanes: lanes.push([0, 0], "a model"),
    lambda lanes: lanes.push([0], logistic(np.int32(16), np.int32(50))), lambda lanes: lanes.pop(logistic(np.int32(16), np.int32(50))),
    lambda lanes: lanes.pop(Categorical(np.ones((3, 4)))), lambda lanes: lanes.pop(ROWS, 3), lambda lanes: lanes.pop(ROWS, 6.0),
    lambda lanes: lanes.pop(Uniform(4)), lambda lanes: lanes.pop(Uniform(4), 3), lambda lanes: lanes.pop(Uniform(4), 0),
    lambda lanes: lanes.pop(Uniform(4), 2.0), lambda lanes: lanes.pop(None)])
def test_mistakes_are_refused_and_change_nothing(attempt):
    lanes, _ = pair(2, 1000)
    before = lanes.copy()
    with pytest.raises(InvalidInput) as caught:
        attempt(lanes)
    assert lanes == before and "\n" not in str(caught.value)


@pytest.mark.parametrize("stacks", [[], [BitStack(), None], [BitStack()] * 2, [Lanes([BitStack()])]])
def test_lanes_are_made_of_different_stacks(stacks):
    with pytest.raises(InvalidInput):
        Lanes(stacks)

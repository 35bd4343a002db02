"""IS-GS: two levels end to end, in bytes."""

import numpy as np
import pytest

from shvc_lib.coding import BitStack
from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import Gaussian, composite, greedy, groups

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too
UPPER, LOWER, SEED = (4, 6), (10, 20), 8


def ladder(seed=0):
    """A two-level model with posteriors: (q2, p2), z2 -> p1, z2 -> (q1, p1)."""
    rng = np.random.default_rng(seed)
    mixing, scale = rng.normal(size=(200, 24)) / 5, rng.uniform(0.3, 0.9, LOWER)
    q2, p2, noise = Gaussian(rng.normal(size=UPPER), rng.uniform(0.1, 0.5, UPPER)), Gaussian(np.zeros(UPPER), 1.0), rng.normal(size=LOWER)

    def prior(z2):
        return Gaussian((mixing @ z2.reshape(-1)).reshape(LOWER), 2.0)

    return q2, p2, prior, lambda z2: (Gaussian(prior(z2).mean + noise, scale), prior(z2))


def test_round_trip_in_bytes():
    q2, p2, prior, lower = ladder()
    coded = composite.encode(q2, p2, lower, SEED, extra_bits=2)
    codec = composite.codec(24, 200, extra_bits=2)
    stack = BitStack()
    codec.push(stack, coded)
    size = 8 * len(stack.to_bytes())
    assert codec.bits(coded) <= size <= codec.bits(coded) + 64
    read = codec.pop(BitStack.from_bytes(stack.to_bytes()))
    z2, z1 = composite.decode(read, p2, prior, SEED)
    assert (z2 == groups.decode(coded.upper, p2, SEED)).all() and z1.shape == LOWER
    target, proposal = lower(z2)
    assert np.sqrt(np.mean(((z1 - target.mean) / target.scale) ** 2)) < 1.6 < np.sqrt(np.mean(((proposal.mean - target.mean) / target.scale) ** 2))
    steps = coded.shards.sum() * 8
    assert target.kl(proposal).sum() <= steps < target.kl(proposal).sum() + 8 * coded.shards.size


def test_blocks_walk_by_themselves():
    """The second block, by hand: its own dimensions, its own steps, and streams that follow the upper level's."""
    q2, p2, prior, lower = ladder()
    coded = composite.encode(q2, p2, lower, SEED, bits=6, width=50)
    z2, z1 = composite.decode(coded, p2, prior, SEED, bits=6, width=50)
    target, proposal = (g.flat(LOWER)[50:100] for g in lower(z2))
    steps = int(np.ceil(target.kl(proposal).sum() / 6))
    walk = greedy.encode(target, proposal, SEED, steps, 6, stream=24 + 50)
    first = coded.shards[0]
    assert coded.shards[1] == steps and (coded.index[first:first + steps] == walk).all()
    assert (greedy.decode(walk, proposal, SEED, 6, 24 + 50) == z1.reshape(-1)[50:100]).all()


def test_more_bits_come_closer():
    q2, p2, prior, lower = ladder()
    errors = []
    for rate in (0.5, 1.0, 2.0, 4.0):
        z2, z1 = composite.decode(composite.encode(q2, p2, lower, SEED, rate=rate), p2, prior, SEED)
        errors.append(np.sqrt(np.mean(((z1 - lower(z2)[0].mean) / lower(z2)[0].scale) ** 2)))
    assert all(np.diff(errors) < 0) and errors[0] > 1.3 and errors[-1] < 1


@pytest.mark.parametrize("change", [{"shards": [1]}, {"index": [3]}, {"index": np.full(200, 256)}, {"shards": np.zeros(7, int)}])
def test_damaged_parts_are_refused(change):
    q2, p2, prior, lower = ladder()
    coded = composite.encode(q2, p2, lower, SEED)
    if len(np.shape(change.get("index", []))) and np.size(change.get("index", [])) > 1:
        change = {"index": np.full(coded.index.size, 256)}
    with pytest.raises(InvalidInput) as error:
        composite.decode(coded._replace(**change), p2, prior, SEED)
    assert "\n" not in str(error.value)


def test_rate_must_be_positive():
    q2, p2, prior, lower = ladder()
    with pytest.raises(InvalidInput, match="rate"):
        composite.encode(q2, p2, lower, SEED, rate=0.0)

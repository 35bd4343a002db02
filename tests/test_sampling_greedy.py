"""The greedy sampler: its definition, and its bias on both sides."""

import math

import numpy as np
import pytest

from shvc_lib.errors import InvalidInput
from shvc_lib.sampling import Gaussian, gaussians, greedy

pytestmark = pytest.mark.filterwarnings("error")  # numpy's too


def targets(runs, dimensions=20, scale=0.5):
    """Means from N(0, 1 - scale^2), what a prior N(0, 1) expects of them."""
    return [Gaussian(m, scale) for m in np.random.default_rng(0).normal(size=(runs, dimensions)) * math.sqrt(1 - scale**2)]


def distance(shards, bits, runs=60):
    """(rms of (z - mean) / scale over dimensions and runs, which is 1 for exact samples; how far z is drawn towards the prior, in scales)."""
    proposal, errors, drawn = Gaussian(np.zeros(20), 1.0), [], []
    for seed, target in enumerate(targets(runs)):
        z = greedy.decode(greedy.encode(target, proposal, seed, shards, bits), proposal, seed, bits)
        errors.append((z - target.mean) / target.scale)
        drawn.append(-errors[-1] * np.sign(target.mean))
    return float(np.sqrt(np.mean(np.square(errors)))), float(np.mean(drawn))


def test_the_definition():
    """Against Algorithm 2 with log-densities, one candidate at a time, in the original units."""
    rng = np.random.default_rng(3)
    proposal = Gaussian(rng.normal(size=4) * 100, rng.exponential(size=4) * 0.01)
    target = Gaussian(proposal.mean + proposal.scale * rng.normal(size=4), proposal.scale * [0.1, 0.3, 0.6, 0.9])
    shards, bits, seed, streams = 3, 4, 11, np.arange(4) + 50
    z, index = proposal.mean.copy(), []
    for shard in range(shards):
        steps = [proposal.scale * gaussians(seed, streams, shard * 2**bits + i) / math.sqrt(shards) for i in range(2**bits)]
        index.append(int(np.argmax([target.log_density(z + step).sum() for step in steps])))
        z = z + steps[index[-1]]
    assert greedy.encode(target, proposal, seed, shards, bits, stream=50).tolist() == index
    assert np.allclose(greedy.decode(index, proposal, seed, bits, stream=50), z, rtol=1e-12)


def test_the_bias_has_two_sides():
    """Too few bits leave the sample at the prior, too many put it on the mode; the divergence is about 16 bits."""
    rms, drawn = zip(*(distance(shards, bits) for shards, bits in ((2, 4), (4, 5), (5, 8), (10, 8))))
    assert rms[0] > 1.4 and rms[-1] < 0.6 and all(np.diff(rms) < 0)
    assert drawn[0] > 0.5 and all(np.diff(drawn) < 0) and drawn[-1] < 0.15
    assert min(abs(np.array(rms) - 1)) < 0.25  # in between it is about right, by no merit of its own


def test_few_shards_with_many_bits_waste_less():
    """At the same 32 bits each comes closer to its target's mode than the one before."""
    rms = [distance(shards, bits)[0] for shards, bits in ((32, 1), (16, 2), (8, 4), (4, 8))]
    assert all(np.diff(rms) < -0.1)


def test_one_shard_is_the_best_of_all_candidates():
    target, proposal = Gaussian([0.8], 0.1), Gaussian([0.0], 1.0)
    index = greedy.encode(target, proposal, 5, 1, 10)
    assert index == [np.abs(gaussians(5, 0, np.arange(1024)) - 0.8).argmin()]


def test_units_do_not_matter():
    """The thesis standardises because its walk depends on the prior's scale: here both are seen in the proposal's units."""
    target, proposal = targets(1)[0], Gaussian(np.zeros(20), 1.0)
    far = [Gaussian(g.mean * 1e-3 + 7, g.scale * 1e-3) for g in (target, proposal)]
    index = greedy.encode(target, proposal, 9, 4, 6)
    assert (greedy.encode(*far, 9, 4, 6) == index).all()
    assert np.allclose(greedy.decode(index, far[1], 9, 6), greedy.decode(index, proposal, 9, 6) * 1e-3 + 7, rtol=0, atol=1e-12)


def test_shapes_and_work_in_parts(monkeypatch):
    rng = np.random.default_rng(1)
    target, proposal = Gaussian(rng.normal(size=(3, 5, 7)), 0.4), Gaussian(np.zeros((3, 5, 7)), 1.0)
    index = greedy.encode(target, proposal, 6, 4, 5)
    assert index.dtype == np.int64 and greedy.decode(index, proposal, 6, 5).shape == (3, 5, 7)
    monkeypatch.setattr(greedy, "_WORK", 100)  # three dimensions at a time
    assert (greedy.encode(target, proposal, 6, 4, 5) == index).all()


def test_indices_are_pinned():
    target, proposal = Gaussian([-2.0, -0.3, 0.0, 0.4, 2.5], [0.1, 0.9, 0.02, 0.5, 0.3]), Gaussian(np.zeros(5), 1.0)
    index = greedy.encode(target, proposal, 2024, 4, 6)
    assert index.tolist() == [1, 19, 24, 23]
    z = [-1.9609980501643833, -0.8077014338920836, 0.03217508483295667, 0.33663406902455606, 1.6805579997883084]
    assert np.allclose(greedy.decode(index, proposal, 2024, 6), z, rtol=1e-12)


@pytest.mark.parametrize("call, message", [
    (lambda t, p: greedy.encode(t, p, 1, 0, 4), "shards"),
    (lambda t, p: greedy.encode(t, p, 1, 4, 0), "bits"),
    (lambda t, p: greedy.encode(t, p, 1, 4, 21), "bits"),
    (lambda t, p: greedy.encode(t, p, 1, 4, 4.0), "bits"),
    (lambda t, p: greedy.encode(t, Gaussian(np.zeros(3), 1.0), 1, 4, 4), "broadcast"),
    (lambda t, p: greedy.decode([16], p, 1, 4), "index"),
    (lambda t, p: greedy.decode([-1], p, 1, 4), "index"),
    (lambda t, p: greedy.decode([[1]], p, 1, 4), "axis"),
    (lambda t, p: greedy.decode([1], p, 1, 4, stream=-1), "stream"),
])
def test_errors_are_one_line(call, message):
    with pytest.raises(InvalidInput, match=message) as error:
        call(targets(1)[0], Gaussian(np.zeros(20), 1.0))
    assert "\n" not in str(error.value)

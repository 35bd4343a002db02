"""MIRACLE: the budget is met, the shuffle and the files are the same everywhere, and what is coded is a sample of the posterior."""

import math
import struct
import subprocess
import sys

import numpy as np
import pytest
import torch
from scipy.stats import norm

from shvc_lib.errors import CorruptFile, InvalidInput
from shvc_lib.models import bnn, weights
from shvc_lib.sampling import Gaussian

torch.set_num_threads(1)
SIZES = (6, 5, 3)  # 53 weights
RULES = bnn.RULES


def task(count=400, seed=0):
    """Three classes of points in six dimensions that a small network tells apart."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, count)
    return (rng.normal(0, 0.5, (count, 6)) + np.eye(6)[labels]).astype(np.float32), labels


@pytest.fixture(scope="module")
def model():
    model = bnn.BayesianMLP(SIZES, 60, block=6, extra_bits=3, seed=5)
    bnn.fit(model, *task(), 500)
    return model


def flat(matrices):
    return np.concatenate([matrix.ravel() for matrix in matrices])


def test_the_shuffle_is_a_permutation_and_stays_what_it_is():
    for sizes, blocks in ((SIZES, 10), ((64, 32, 10), 134), ((1, 1), 2)):
        slots = bnn.layout(sizes, blocks, 3)
        count = flat([np.zeros(shape) for shape in weights.shapes(sizes)]).size
        assert slots.shape == (blocks, -(-count // blocks)) and np.array_equal(np.sort(slots.ravel()), np.arange(slots.size))
    assert not np.array_equal(bnn.layout(SIZES, 10, 3), bnn.layout(SIZES, 10, 4))
    assert bnn.layout(SIZES, 10, 3)[:2].tolist() == SLOTS  # files depend on it


SLOTS = [[49, 53, 38, 37, 23, 50], [35, 21, 29, 10, 24, 52]]


def test_block_kl_is_that_of_the_blocks_weights(model):
    mean, sigma = (part.double().detach().numpy() for part in model.posterior())
    scale = np.repeat(2.0 ** (model.prior_widths() / 8), model.counts)
    kl = Gaussian(mean, sigma).kl(Gaussian(np.zeros(53), scale))
    expected = [kl[block[block < 53]].sum() for block in model.slots]
    assert np.allclose(model.block_kl().detach(), expected, rtol=1e-4)


def test_prior_widths_are_the_best_that_the_file_can_name(model):
    best = float(model.block_kl().sum().detach())
    settled = model.prior_widths()
    try:
        for layer in (0, 1):
            for change in (-2, -1, 1, 2):
                model.widths = settled + change * (np.arange(2) == layer)
                assert float(model.block_kl().sum().detach()) > best - 0.01 * abs(change)
    finally:
        model.widths = None


def test_training_meets_the_budget_in_every_block(model):
    kl = model.block_kl().detach().numpy()
    assert kl.sum() == pytest.approx(60, rel=0.05) and kl.min() > 4 and kl.max() < 8
    assert weights.accuracy(model.weights(), *task(seed=1)) > 0.85


def test_beta_rises_where_a_block_is_over_its_share_and_falls_where_it_is_under():
    model = bnn.BayesianMLP(SIZES, 60, block=6)
    with torch.no_grad():
        model.log_sigma[model.block_of == 3] = -9.0
        model.log_sigma[model.block_of == 4] = float(model.log_sigma.mean().detach()) + 1.2
        model.mean[model.block_of == 4] = 0.0
    before, kl = model.log_beta.clone(), model.block_kl()
    bnn.fit(model, *task(), 1)
    assert kl[3] > 6 > kl[4] and model.log_beta[3] > before[3] and model.log_beta[4] < before[4]


def test_trace_says_what_was_trained():
    model = bnn.BayesianMLP(SIZES, 60, block=6)
    trace = bnn.fit(model, *task(), 40)
    assert set(trace) == {"nll", "kl", "beta"} and all(values.shape == (40,) for values in trace.values())
    assert trace["nll"][0] > trace["nll"][-1] and trace["kl"][0] > 60


def test_outputs_are_drawn_as_exact_samples_of_the_weights_would_give_them(model):
    """One layer: the logits' means and variances of local reparametrisation are those of networks with sampled weights."""
    one = bnn.BayesianMLP((6, 3), 30, block=6)
    with torch.no_grad():
        one.log_sigma += torch.linspace(-1, 1, 21)
    image, rng = task(1)[0], np.random.default_rng(0)
    drawn = one(torch.from_numpy(image).repeat(20000, 1), torch.Generator().manual_seed(0)).detach().numpy()
    sampled = np.concatenate([weights.predict(one.weights(rng), image) for _ in range(5000)])
    spread = sampled.std(0)
    assert np.abs(drawn.mean(0) - sampled.mean(0)).max() < 0.06 * spread.max()
    assert np.allclose(drawn.std(0), spread, rtol=0.05)
    several = np.concatenate([weights.predict(model.weights(rng), image) for _ in range(2000)])
    drawn = model(torch.from_numpy(image).repeat(2000, 1), torch.Generator().manual_seed(0)).detach().numpy()
    assert np.abs(drawn.mean(0) - several.mean(0)).max() < 0.2 * several.std(0).max() + 0.05


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("rounds", [1, 4])
def test_a_fresh_process_decodes_the_weights_that_the_encoder_fixed(model, rule, rounds):
    seen, before = {}, {name: value.clone() for name, value in model.state_dict().items()}

    def retrain(current):
        bnn.fit(current, *task(), 3)
        seen.update(value=current.value.numpy().copy(), fixed=current.fixed.numpy().copy(), kl=current.block_kl().detach().numpy())

    file = bnn.encode(model, rule, rounds, retrain)
    decoded = flat(bnn.decode(file))
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items()) and model.widths is None
    if rounds > 1:
        assert np.array_equal(decoded[seen["fixed"]], seen["value"][seen["fixed"]]) and 0 < seen["fixed"].mean() < 1
        assert (seen["kl"] == 0).sum() == 8 and seen["kl"].max() > 0  # three of four rounds: 3 + 3 + 2 of ten blocks
    program = ("import sys, numpy as np; from shvc_lib.models import bnn;"
               "sys.stdout.buffer.write(b''.join(m.tobytes() for m in bnn.decode(sys.stdin.buffer.read())))")
    fresh = subprocess.run([sys.executable, "-c", program], input=file, stdout=subprocess.PIPE, check=True).stdout
    assert fresh == decoded.astype(np.float32).tobytes()


def test_coded_blocks_stay_while_the_others_train(model):
    states = []

    def retrain(current):
        before = current.weights()
        bnn.fit(current, *task(), 5)
        after, fixed = flat(current.weights()), current.fixed.numpy()
        assert np.array_equal(flat(before)[fixed], after[fixed]) and not np.array_equal(flat(before)[~fixed], after[~fixed])
        states.append(fixed.sum())

    bnn.encode(model, rounds=5, retrain=retrain)
    assert len(states) == 4 and np.all(np.diff(states) > 0)
    calls = []
    bnn.encode(model, rounds=1, retrain=calls.append)
    assert not calls


def wide(extra_bits, seed, rule):
    """(w - mean) / sigma of coded weights: 400 weights at 1 bit each, in blocks of 4 bits."""
    model = bnn.BayesianMLP((19, 20), 400, block=4, extra_bits=extra_bits, seed=seed)
    with torch.no_grad():
        model.mean[:] = 0.9 * torch.where(torch.arange(400) % 2 == 0, 1.0, -1.0)
        model.log_sigma[:] = math.log(0.6)
    assert float(model.block_kl().mean().detach()) == pytest.approx(4, abs=1)
    mean, sigma = (part.detach().numpy() for part in model.posterior())
    return (flat(bnn.decode(bnn.encode(model, rule))) - mean) / sigma * np.sign(mean)


@pytest.mark.parametrize("rule", RULES)
def test_with_enough_candidates_the_weights_are_a_sample_of_the_posterior_and_with_few_they_are_not(rule):
    many, few = (np.concatenate([wide(t, seed, rule) for seed in range(3)]) for t in (7, 0))
    assert abs(many.mean()) < 0.12 and abs(many.std() - 1) < 0.08
    ks = np.abs(norm.cdf(np.sort(many)) - (np.arange(many.size) + 0.5) / many.size).max()
    assert ks < 1.8 / math.sqrt(many.size)
    assert few.mean() < -0.2  # drawn towards the prior


def test_every_index_costs_its_bits_and_ordered_indices_fewer():
    mean = bnn.BayesianMLP((19, 20), 400, block=8, extra_bits=4, seed=1)
    with torch.no_grad():
        mean.log_sigma[:] = math.log(0.5)
        mean.mean[:] = 0.9 * torch.sign(mean.mean)
    files = {rule: bnn.encode(mean, rule) for rule in RULES}
    header = 4 + 1 + 2 * 2 + 8 + 1 + 4
    assert header + 50 * 12 / 8 <= len(files["importance"]) <= header + 50 * 12 / 8 + 5
    assert len(files["ordered"]) < len(files["importance"]) - 5


OLD = {  # sizes (3, 2, 2), prior widths -13 and 7: four blocks of 14 weights, two slots left over
    "424e4e01030300020002000900040006000000f307adb9fff50000c8ed43010001": [
        0.3489046, -0.1552759, 0.4195265, -0.0699859, 0.1043102, -0.28663, 0.5677961, -0.1208314, 0.2702225, -2.1858788, 1.4704765, -0.3479407,
        1.3072711, -1.9398077],
    "424e4e01030300020002000900040006011239f3074c3f2ff66b7d337b3fa40e": [
        0.0278482, -0.5477523, 0.3059434, -0.2798377, 0.1460528, -0.1610059, 0.3936268, -0.0051743, 0.2227243, -2.6451886, 0.939459, -2.1434352,
        1.0997498, -0.6488132]}


@pytest.mark.parametrize("file, expected", OLD.items(), ids=RULES)
def test_an_old_file_keeps_its_meaning(file, expected):
    assert np.allclose(flat(bnn.decode(bytes.fromhex(file))), expected, atol=1e-6)


@pytest.mark.parametrize("rule", RULES)
def test_damaged_files_are_found_out(model, rule):
    file = bnn.encode(model, rule)
    for position in range(len(file)):
        for flip in (1, 128):
            with pytest.raises(CorruptFile):
                bnn.decode(file[:position] + bytes([file[position] ^ flip]) + file[position + 1:])
        with pytest.raises(CorruptFile):
            bnn.decode(file[:position])
    with pytest.raises(CorruptFile):
        bnn.decode(file + b"\0")
    with pytest.raises(CorruptFile):
        bnn.decode(weights.encode(model.weights(), 4))


@pytest.mark.parametrize("change", [
    {"blocks": 0}, {"blocks": 54}, {"blocks": 11}, {"blocks": 9}, {"bits": 0}, {"bits": 25}, {"bits": 3}, {"rule": 2}, {"rule": 1}, {"width": 192}])
def test_headers_that_lie_are_found_out_although_their_checksum_is_right(model, change):
    payload = bnn.encode(model)[4 + 7 + 8 + 2 + 4:]
    values = {"seed": 5, "blocks": 10, "bits": 9, "rule": 0, "mean": 0, "width": 0} | change
    fields = struct.pack("<HHBBBBbb", *values.values(), 0, 0)
    bnn.decode(weights.pack(bnn.KIND, SIZES, struct.pack("<HHBBBBbb", 5, 10, 9, 0, 0, 0, 0, 0), payload))  # the truth is accepted
    with pytest.raises(CorruptFile, match="header|bits"):
        bnn.decode(weights.pack(bnn.KIND, SIZES, fields, payload))


@pytest.mark.parametrize("arguments", [
    dict(sizes=(6,), budget=60), dict(sizes=(6, 0, 3), budget=60), dict(sizes=(6, 2.5), budget=60),
    dict(sizes=SIZES, budget=2), dict(sizes=SIZES, budget=600),
    dict(sizes=SIZES, budget=60, block=23), dict(sizes=SIZES, budget=60, block=0), dict(sizes=SIZES, budget=60, extra_bits=-1),
    dict(sizes=SIZES, budget=60, seed=65536)])
def test_networks_that_no_file_could_hold_are_refused(arguments):
    with pytest.raises(InvalidInput):
        bnn.BayesianMLP(**arguments)


def test_wrong_rules_and_rounds_are_refused(model):
    with pytest.raises(InvalidInput, match="rule"):
        bnn.encode(model, "greedy")
    for rounds in (0, 11):
        with pytest.raises(InvalidInput, match="rounds"):
            bnn.encode(model, rounds=rounds)

"""Training: a run is a function of its recipe, whatever interrupts it and however many processes share it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from shvc_lib import recipes, train
from shvc_lib.errors import InvalidInput

RECIPE = dataclasses.replace(recipes.get("vae-tiny"), data="photographs", batch=4, steps=8, warmup=2)


@pytest.fixture(scope="module")
def images():
    return train._images(RECIPE)


@pytest.fixture(autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def weights(run):
    return {**{f"m.{k}": v for k, v in run.model.state_dict().items()}, **{f"a.{k}": v for k, v in run.average.items()}}


def same(a, b):
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


def test_training_lowers_the_bits(images):
    run = train.Run(dataclasses.replace(RECIPE, steps=40, warmup=5))
    reports = [run.advance(images)["bits_per_dim"] for _ in range(40)]
    assert sum(reports[-5:]) / 5 < 0.92 * reports[0]


def test_a_batch_is_a_function_of_seed_and_step(images):
    assert torch.equal(train.batch_at(RECIPE, images, 3), train.batch_at(RECIPE, images, 3))
    assert not torch.equal(train.batch_at(RECIPE, images, 3), train.batch_at(RECIPE, images, 4))
    assert not torch.equal(train.batch_at(RECIPE, images, 3), train.batch_at(dataclasses.replace(RECIPE, seed=1), images, 3))
    crop = train.batch_at(dataclasses.replace(RECIPE, crop=20), images, 3)
    assert crop.shape == (4, 3, 20, 20) and crop.dtype == torch.uint8


def test_a_resumed_run_has_the_same_weights_bit_for_bit(images, tmp_path):
    straight = train.Run(RECIPE)
    for _ in range(6):
        straight.advance(images)
    first = train.Run(RECIPE)
    for _ in range(3):
        first.advance(images)
    first.save(tmp_path)
    torch.manual_seed(12345)
    second = train.Run(RECIPE)
    assert second.load(tmp_path) and second.step == 3 and same(weights(second), weights(first))
    for _ in range(3):
        second.advance(images)
    assert same(weights(second), weights(straight))
    assert not train.Run(RECIPE).load(tmp_path / "elsewhere")


def test_a_save_that_was_killed_halfway_leaves_the_last_checkpoint(images, tmp_path):
    run = train.Run(RECIPE)
    run.advance(images)
    run.save(tmp_path)
    (tmp_path / "checkpoint").rename(tmp_path / "checkpoint.old")  # the two states a kill inside `save` can leave behind
    (tmp_path / "checkpoint.new").mkdir()
    again = train.Run(RECIPE)
    assert again.load(tmp_path) and same(weights(again), weights(run))
    again.save(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["checkpoint"]


def test_another_recipes_checkpoint_is_refused(images, tmp_path):
    run = train.Run(RECIPE)
    run.save(tmp_path)
    with pytest.raises(InvalidInput, match="another recipe"):
        train.Run(dataclasses.replace(RECIPE, learning_rate=1.0)).load(tmp_path)
    assert train.Run(dataclasses.replace(RECIPE, steps=99)).load(tmp_path)  # a longer run may go on from a shorter one


DRIVER = """
import dataclasses, sys, torch
from shvc_lib import recipes, train
torch.set_num_threads(1)
recipe = dataclasses.replace(recipes.get("vae-tiny"), data="photographs", batch=4, steps=int(sys.argv[2]), warmup=2)
train.train(recipe, sys.argv[1], device="cpu", save_every=int(sys.argv[3]), progress=False)
"""
ENVIRONMENT = {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1]), "OMP_NUM_THREADS": "1"}


@pytest.fixture
def driver(tmp_path):
    (tmp_path / "driver.py").write_text(DRIVER)
    return tmp_path / "driver.py"


def tensors(folder):
    return train.load_file(folder / "checkpoint" / "tensors.safetensors")


def test_a_killed_run_goes_on_to_the_same_weights(driver, tmp_path):
    """SIGKILL in the middle, then the same command again: the end is that of an undisturbed run."""
    subprocess.run([sys.executable, driver, tmp_path / "calm", "12", "1000"], check=True, env=ENVIRONMENT)
    process = subprocess.Popen([sys.executable, driver, tmp_path / "killed", "12", "1"], env=ENVIRONMENT)
    state, deadline = tmp_path / "killed" / "checkpoint" / "state.json", time.monotonic() + 120
    while not state.exists() and time.monotonic() < deadline and process.poll() is None:
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    subprocess.run([sys.executable, driver, tmp_path / "killed", "12", "1000"], check=True, env=ENVIRONMENT)
    assert same(tensors(tmp_path / "calm"), tensors(tmp_path / "killed"))


def test_two_processes_follow_the_trajectory_of_one(driver, tmp_path):
    """torchrun with gloo: the whole batch's loss at every step, up to the order of floating-point sums."""
    subprocess.run([sys.executable, driver, tmp_path / "one", "6", "1000"], check=True, env=ENVIRONMENT)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    subprocess.run([*command, driver, tmp_path / "two", "6", "1000"], check=True, env=ENVIRONMENT)
    one, two = tensors(tmp_path / "one"), tensors(tmp_path / "two")
    logs = [json.loads((tmp_path / name / "log.jsonl").read_text().splitlines()[-1]) for name in ("one", "two")]
    assert logs[0]["bits_per_dim"] == pytest.approx(logs[1]["bits_per_dim"], rel=1e-5)
    moved = max(float((one[k] - train.Run(RECIPE).model.state_dict()[k.removeprefix("model.")]).abs().max()) for k in one if k.startswith("model."))
    worst = max(float((one[k] - two[k]).abs().max()) for k in one if k.startswith("model."))
    assert worst < 0.02 * moved


def test_bad_arguments_are_one_line(capsys, tmp_path):
    for arguments in (["no-such-recipe"], ["vae-tiny", "--steps", "1", "--out", str(tmp_path / "x")]):
        if arguments[0] == "vae-tiny":
            os.environ.pop("SHVC_DATA", None)
        status = train.main(arguments)
        if status == 0:  # CIFAR-10 happens to be in this machine's cache
            continue
        assert status == 1 and capsys.readouterr().err.count("\n") == 1


def test_a_recipe_may_begin_with_another_run_and_says_which_is_missing(tmp_path):
    second = dataclasses.replace(RECIPE, name="second", start="first", steps=1)
    with pytest.raises(InvalidInput, match="begins with the weights of first"):
        train.train(second, tmp_path / "second", progress=False)
    first = train.train(dataclasses.replace(RECIPE, name="first", steps=2), tmp_path / "first", progress=False)
    run = train.Run(second)
    run.begin_with(tmp_path / "first")
    assert all(torch.equal(value, first.average[name]) for name, value in run.model.state_dict().items())
    assert all(torch.equal(value, first.average[name]) for name, value in run.average.items())
    other = train.Run(dataclasses.replace(second, arguments={**RECIPE.arguments, "width": 12}))
    with pytest.raises(InvalidInput, match="another architecture"):
        other.begin_with(tmp_path / "first")
    assert "start" not in RECIPE.as_dict() and second.as_dict()["start"] == "first"


def test_training_leaves_the_processor_as_it_was(tmp_path):
    train.train(dataclasses.replace(RECIPE, name="brief", steps=1), tmp_path / "brief", progress=False)
    assert torch.full((8,), 1e-40).mul(1.0).min() > 0  # still no zero

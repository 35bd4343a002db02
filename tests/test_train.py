"""Training: a run is a function of its recipe, whatever interrupts it and however many processes share it."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shvc_lib import data, recipes, train
from shvc_lib.errors import InvalidInput, MissingData

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


def test_bad_arguments_are_one_line(capsys, tmp_path, monkeypatch):
    monkeypatch.delenv("SHVC_DATA", raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no CIFAR-10 there
    for arguments in (["no-such-recipe"], ["vae-tiny", "--steps", "1", "--out", str(tmp_path / "x")]):
        assert train.main(arguments) == 1 and capsys.readouterr().err.count("\n") == 1
    assert not (tmp_path / "x").exists()


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


# Discretised VAEs: as large as they ship, on a few photographs.

DVAE = [name for name in recipes.RECIPES if name.startswith("dvae")]


def brief(name, **changes):
    """A recipe of chapter 4 for a test's time and data; the recipe that it begins with is left out unless it is named."""
    return dataclasses.replace(recipes.get(name), **{"data": "photographs", "crop": 64, "batch": 2, "steps": 2, "warmup": 1, "start": "", **changes})


@pytest.fixture(scope="module")
def few():
    return train._images(brief("dvae-1"))[:64].clone()


def test_the_recipes_of_chapter_4():
    assert {"dvae-start", "dvae-1", "dvae-3", "dvae-12"} <= set(DVAE)
    for name in DVAE:
        recipe = recipes.get(name)
        assert recipe.model == "DiscretizedVAE" and recipe.data == "bsds500-scales" and recipe.crop % 64 == 0
        assert not recipe.start or recipes.get(recipe.start).model == "DiscretizedVAE"
    layers = {name: train.models.build("DiscretizedVAE", **recipes.get(name).arguments).layers for name in ("dvae-start", "dvae-1", "dvae-3", "dvae-12")}
    assert layers == {"dvae-start": 1, "dvae-1": 1, "dvae-3": 3, "dvae-12": 12}


@pytest.mark.parametrize("name", DVAE)
def test_a_discretised_vae_is_a_function_of_its_recipe(name, few, tmp_path):
    """Two steps at once, or one, a kill, and another: the same weights bit for bit."""
    straight, first = train.Run(brief(name)), train.Run(brief(name))
    for run in (straight, first):
        run.begin(few, tmp_path)
        report = run.advance(few)
        assert all(np.isfinite(value) for value in report.values()) and report["gradient"] > 0
    straight.advance(few)
    first.save(tmp_path)
    torch.manual_seed(12345)
    second = train.Run(brief(name))
    assert second.load(tmp_path) and second.step == 1
    second.advance(few)
    assert same(weights(second), weights(straight)) and not same(weights(first), weights(straight))


@pytest.fixture
def counted(monkeypatch, few):
    """Training on a few photographs; returns the list that is added to whenever a model is prepared."""
    prepared = []
    monkeypatch.setattr(train, "_images", lambda recipe: few)
    monkeypatch.setattr(train.models.discretized.DiscretizedVAE, "prepare", lambda model, images, prepare=train.models.discretized.DiscretizedVAE.prepare:
                        prepared.append(len(images)) or prepare(model, images))
    return prepared


def test_a_run_is_prepared_once_or_begins_with_another(counted, few, tmp_path):
    """At step 0 and where nothing else gives the first weights: not when a run goes on, and not in what begins with another run's average."""
    first = train.train(brief("dvae-start", steps=1), tmp_path / "dvae-start", device="cpu", progress=False)
    assert counted == [64] and first.step == 1
    fresh = train.Run(brief("dvae-start"))
    fresh.begin(few, tmp_path)
    assert same({k: v for k, v in weights(fresh).items() if k[0] == "a"}, {f"a.{k}": v for k, v in fresh.model.state_dict().items()})
    counted.clear()
    assert train.train(brief("dvae-start", steps=2), tmp_path / "dvae-start", device="cpu", progress=False).step == 2 and not counted
    second = train.Run(brief("dvae-1", start="dvae-start"))
    second.begin(few, tmp_path)
    average = {k.removeprefix("average."): v for k, v in tensors(tmp_path / "dvae-start").items() if k.startswith("average.")}
    assert all(torch.equal(value, average[name]) for name, value in second.model.state_dict().items()) and not counted
    train.train(brief("dvae-1", start="dvae-start", steps=1), tmp_path / "dvae-1", device="cpu", progress=False)
    assert not counted and (tmp_path / "dvae-1" / "checkpoint" / "state.json").exists()
    deep = train.Run(brief("dvae-12", start="dvae-start"))
    own = {name: value.clone() for name, value in deep.model.state_dict().items()}
    deep.begin(few, tmp_path)
    for name, value in deep.model.state_dict().items():  # the transforms and gains are taken over, the hierarchy is new
        assert torch.equal(value, average[name] if name in average else own[name]), name
    assert "hierarchy.first.weight" not in average and "analysis.kernel" in average and not counted
    with pytest.raises(InvalidInput, match="begins with the weights of dvae-1"):
        train.Run(brief("dvae-12", start="dvae-1")).begin(few, tmp_path / "elsewhere")


def test_three_scales_of_an_image():
    """Its quarters pixel by pixel, a piece of it at two thirds of its size, and all of it at half size; portraits are turned."""
    image = data.photograph("motorcycle")[:321, :481]
    pieces = train._three_scales(image)
    assert pieces.shape == (6, 160, 240, 3) and pieces.dtype == np.uint8
    for k, (top, left) in enumerate([(0, 0), (0, 240), (160, 0), (160, 240)]):
        assert np.array_equal(pieces[k], image[top:top + 160, left:left + 240])
    small = Image.fromarray(image[:320, :480]).resize((320, 214), Image.Resampling.LANCZOS)
    assert np.array_equal(pieces[4], np.array(small)[27:187, 40:280]) and np.array_equal(pieces[5], train._halved_landscape(image))
    turned = train._three_scales(np.ascontiguousarray(image.swapaxes(0, 1)))
    assert np.array_equal(turned, pieces)


def test_bsds500_at_three_scales():
    try:
        images = train._images(recipes.get("dvae-1"))
    except MissingData as error:
        pytest.skip(str(error))
    assert images.shape == (1800, 160, 240, 3) and images.dtype == torch.uint8 and images.float().std((1, 2, 3)).min() > 1
    assert torch.equal(images[:6], torch.from_numpy(train._three_scales(data.bsds500("train", 1)[0])))


def test_a_training_set_that_does_not_exist():
    with pytest.raises(InvalidInput, match="bsds500-scales"):
        train._images(dataclasses.replace(RECIPE, data="imagenet"))

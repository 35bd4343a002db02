"""Training an SHVC: shared by two processes, killed and gone on with, begun with a narrower network; and what its recipes say."""

import contextlib
import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from shvc_lib import data, models, recipes, train
from shvc_lib.errors import InvalidInput, MissingData

torch.set_num_threads(1)
TINY = {"levels": 2, "width": 16, "blocks": 1}
RECIPE = dataclasses.replace(recipes.get("shvc-tiny"), name="first", arguments=TINY, batch=4, steps=8, warmup=2)
CHAPTER_7 = ["shvc-lite-start", "shvc-lite-cifar10", "shvc-arib-cifar10", "shvc-photo-start", "shvc-arib-photo"]


def patches(name, count, side=32):
    return torch.from_numpy(data.patches([data.photograph(name)], side, count, seed=1))


@pytest.fixture(scope="module")
def images():
    return torch.cat([patches("coffee", 48), patches("astronaut", 48)])


def with_arguments(recipe=RECIPE, name="second", **changes):
    return dataclasses.replace(recipe, name=name, arguments={**recipe.arguments, **changes}, start="first")


# --- two processes ----------------------------------------------------------------------------------------------------------------------------

STEPS, SHARED = 6, {**os.environ, "PYTHONPATH": str(Path(train.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
DRIVER = """
import sys
from shvc_lib import recipes, train
recipe = recipes.replace(recipes.get("shvc-tiny"), steps=int(sys.argv[2]))
train.train(recipe, sys.argv[1], device="cpu", save_every=1, progress=False)
"""


def tensors(folder):
    return train.load_file(folder / "checkpoint" / "tensors.safetensors")


def torchrun(folder):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "shvc_lib.train", "shvc-tiny"]
    done = subprocess.run([*command, "--steps", str(STEPS), "--out", folder, "--device", "cpu"], env=SHARED, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    return json.loads((folder / "log.jsonl").read_text().splitlines()[-1])


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """The run of two processes that nobody disturbs: (folder, the last line of its log)."""
    folder = tmp_path_factory.mktemp("two") / "shvc-tiny"
    return folder, torchrun(folder)


def test_two_processes_have_the_loss_of_one_with_the_whole_batch(two, tmp_path):
    """`torchrun -m shvc_lib.train` as it is documented, against the same loop here, up to the order of floating-point sums."""
    folder, log = two
    run = train.train(recipes.replace(recipes.get("shvc-tiny"), steps=STEPS), tmp_path / "one", device="cpu", progress=False)
    own = json.loads((tmp_path / "one" / "log.jsonl").read_text().splitlines()[-1])
    assert own["step"] == log["step"] == STEPS and own.keys() == log.keys() and 2 < own["bits_per_dim"] < 8
    for name in own.keys() - {"seconds", "step"}:
        assert own[name] == pytest.approx(log[name], rel=1e-3, abs=1e-4), name
    assert own["bits_per_dim"] == pytest.approx(log["bits_per_dim"], rel=1e-5)
    one, other = run.model.state_dict(), tensors(folder)
    first = train.Run(run.recipe)
    first.begin(train._images(run.recipe), None)
    moved = max(float((one[name] - value).abs().max()) for name, value in first.model.state_dict().items())
    assert 0 < max(float((one[name] - other[f"model.{name}"]).abs().max()) for name in one) + 1e-9 < 0.02 * moved


def free_port():
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def test_two_killed_processes_go_on_to_the_same_weights_bit_for_bit(two, tmp_path):
    """SIGKILL for both, whatever they were doing, once some steps are saved; then torchrun goes on from there."""
    folder, driver = tmp_path / "shvc-tiny", tmp_path / "driver.py"
    driver.write_text(DRIVER)
    group = {**SHARED, "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}
    processes = [subprocess.Popen([sys.executable, driver, folder, "100000"], env={**group, "RANK": rank, "LOCAL_RANK": rank}) for rank in "01"]
    try:
        state, deadline = folder / "checkpoint" / "state.json", time.monotonic() + 200
        while not state.exists() and time.monotonic() < deadline and all(process.poll() is None for process in processes):
            time.sleep(0.005)
    finally:
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for process in processes:
            assert process.wait() == -signal.SIGKILL
    found = [path for path in (folder / "checkpoint" / "state.json", folder / "checkpoint.old" / "state.json") if path.exists()]
    step = json.loads(found[0].read_text())["step"]
    if step >= STEPS:
        pytest.skip(f"the two got to step {step} before they could be killed")
    torchrun(folder)
    expected, ours = tensors(two[0]), tensors(folder)
    assert expected.keys() == ours.keys() and all(torch.equal(expected[name], ours[name]) for name in expected)


def test_a_batch_that_cannot_be_shared_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(InvalidInput, match="cannot be shared by 3"):
        train.Run(recipes.get("shvc-tiny"))


# --- begun with a narrower network ------------------------------------------------------------------------------------------------------------

def begun(tmp_path, images, **arguments):
    """A run of some steps, saved where `start` looks for it, its model with the averaged weights in evaluation mode."""
    run = train.Run(dataclasses.replace(RECIPE, arguments={**TINY, **arguments}))
    run.begin(images, None)
    for _ in range(6):
        run.advance(images)
    run.save(tmp_path / "first")
    run.model.load_state_dict(run.average)
    return run.model.eval()


def computed(model, batch):
    """The loss and all that every network says, under one noise."""
    with torch.no_grad():
        return float(model.eval().loss(batch, model.noise(len(batch), torch.Generator().manual_seed(0), batch.shape[-1]))[0]), model.everything(batch)


@pytest.mark.parametrize("arguments", [{}, {"split": 3, "penalty": 1.0, "bfloat": True}, {"deterministic": True}, {"k": (4, 2, 1)}, {"levels": 3, "blocks": 2}],
                         ids=["plain", "split", "deterministic", "mixed k", "deep"])
def test_a_wider_network_begins_by_computing_what_the_narrow_one_does(arguments, images, tmp_path):
    """To float precision, and all of the new channels soon learn (but in a top prior at k = 1, which sees nothing)."""
    narrow, batch = begun(tmp_path, images, **arguments), patches("chelsea", 4).permute(0, 3, 1, 2)
    run = train.Run(with_arguments(width=24, **arguments))
    run.begin(images, tmp_path)
    (bits, outputs), (wide_bits, wide_outputs) = computed(narrow, batch), computed(run.model, batch)
    assert wide_bits == pytest.approx(bits, rel=1e-6) and all(torch.allclose(a, b, rtol=1e-5, atol=1e-5) for a, b in zip(outputs, wide_outputs, strict=True))
    assert all(torch.equal(value, run.average[name]) for name, value in run.model.state_dict().items())
    before = {name: value.clone() for name, value in run.model.named_parameters()}
    assert sum(value.numel() for value in before.values()) > 1.3 * sum(value.numel() for value in narrow.parameters())
    run.model.train()
    for _ in range(3):
        run.advance(images)
    assert run.model.conditionals[0].last.weight[:, 16:].abs().max() > 0  # the old parameters see the new channels now
    blind = f"conditionals.{run.model.levels}." if run.model.ks[-1] == 1 else "none"
    for name, value in run.model.named_parameters():
        if value.ndim > 1 and value.shape[1] == 24 and not name.startswith(blind):
            assert not torch.equal(value[:, 16:], before[name][:, 16:]), name


def test_a_wider_network_takes_on_what_the_narrow_one_has_not(images, tmp_path):
    """Another residual block, the identity; and a split, whose masks are its own: what is hidden is hidden from the wide network too."""
    narrow, batch = begun(tmp_path, images), patches("chelsea", 4).permute(0, 3, 1, 2)
    deeper = train.Run(with_arguments(width=20, blocks=2))
    deeper.begin(images, tmp_path)
    assert computed(deeper.model, batch)[0] == pytest.approx(computed(narrow, batch)[0], rel=1e-6)
    run = train.Run(with_arguments(width=20, split=3))
    run.begin(images, tmp_path)
    model, x = run.model.eval(), run.model.pixels(batch)
    other = x.clone()
    other[..., 1::2, 1::2] = 0
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(model.posterior(1, x), model.posterior(1, other)))
        z = torch.zeros(4, 4, 16, 16)
        conditional, blocks = model.conditionals[0], model.blocks(0, x)
        (a, b), (c, d) = (conditional(blocks, model.context(0, above, blocks)) for above in (z, z + 1))
    assert torch.equal(a[:, 3], c[:, 3]) and torch.equal(b[:, 3], d[:, 3]) and not torch.equal(b[:, :3], d[:, :3])


def test_networks_that_do_not_fit_into_one_another_are_refused(images, tmp_path):
    begun(tmp_path, images)
    for arguments in ({"width": 12}, {"latents": 2}, {"latents": 8}, {"k": 1}, {"k": 4}, {"levels": 1}, {"levels": 3}, {"order": "channel"}):
        with pytest.raises(InvalidInput, match="another architecture than second"):
            train.Run(with_arguments(**arguments)).begin(images, tmp_path)
    vae = dataclasses.replace(recipes.get("vae-tiny"), name="second", start="first")
    with pytest.raises(InvalidInput, match="another architecture"):
        train.Run(vae).begin(images, tmp_path)
    with pytest.raises(InvalidInput, match="begins with the weights of first"):
        train.Run(with_arguments(width=24)).begin(images, tmp_path / "elsewhere")


def test_the_corner():
    """Old outputs see old inputs alone, new outputs keep what they hold."""
    given, own = torch.rand(2, 3, 1, 1), torch.rand(4, 5, 1, 1)
    wide = train._widened(given, own)
    assert torch.equal(wide[:2, :3], given) and not wide[:2, 3:].any() and torch.equal(wide[2:], own[2:]) and own.all()
    assert torch.equal(train._widened(given, torch.rand(2, 3, 1, 1)), given)


def test_the_recipes_of_chapter_7_begin_where_they_can():
    """Every start is a recipe, of a network that is no larger in any respect and otherwise the same but for a split."""
    for name in CHAPTER_7:
        recipe = recipes.get(name)
        start = recipes.get(recipe.start)
        own, other = (models.build("SHVC", **r.arguments) for r in (recipe, start))
        shapes = {key: value.shape for key, value in other.state_dict().items()}
        assert recipe.model == start.model == "SHVC" and shapes.keys() == own.state_dict().keys()
        assert all(all(a >= b for a, b in zip(value.shape, shapes[key], strict=True)) for key, value in own.state_dict().items())
        assert {**recipe.arguments, "width": 0, "split": 0, "penalty": 0} == {**start.arguments, "width": 0, "split": 0, "penalty": 0}
        assert (recipe.crop or 32) % own.unit == 0


# --- the learning rate, the noise and the crops -----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("end", [0.0, 0.02, 0.3, 1.0])
def test_the_learning_rate_falls_to_the_end(end):
    recipe = dataclasses.replace(RECIPE, steps=100, warmup=10, end=end)
    rates = np.array([train.learning_rate_at(recipe, step) for step in range(101)]) / recipe.learning_rate
    assert np.allclose(rates[:10], np.arange(1, 11) / 10) and rates[10] == 1 and rates[100] == pytest.approx(end) and rates.max() == 1
    assert (np.diff(rates[10:]) <= 0).all() and rates[55] == pytest.approx((1 + end) / 2)
    assert train.learning_rate_at(recipe, 10_000) == pytest.approx(end * recipe.learning_rate)  # a run that goes on longer
    assert ("end" in recipe.as_dict()) == (end != 0.02)
    assert recipes.Recipe(**recipe.as_dict()) == recipe and recipes.Recipe(**json.loads(json.dumps(recipe.as_dict()))) == recipe


def test_another_end_is_another_recipe(images, tmp_path):
    train.Run(RECIPE).save(tmp_path)
    assert train.Run(RECIPE).load(tmp_path)
    with pytest.raises(InvalidInput, match="another recipe"):
        train.Run(dataclasses.replace(RECIPE, end=1.0)).load(tmp_path)


MODELS = {"SHVC": TINY, "BitsBackVAE": recipes.get("vae-tiny").arguments, "Ladder": {"width": 16, "latents": 8}, "DiscretizedVAE": {"groups": (6, 18)},
          "LinearNet": {"width": 8}, "SubsampledSHVC": {"width": 8}}


@pytest.mark.parametrize("name", MODELS)
def test_noise_of_every_model_fits_the_side_of_its_images(name):
    """Three sides, the loss takes what `noise` returns; a batch's noise is cut between processes along its first axis."""
    model = models.build(name, **MODELS[name])
    for side in (64, 128):
        noise = model.noise(2, torch.Generator().manual_seed(3), side)
        again = model.noise(2, torch.Generator().manual_seed(3), side)
        assert all(len(value) == 2 and torch.equal(value, other) for value, other in zip(noise, again, strict=True))
        bits, _ = model.loss(patches("coffee", 2, side).permute(0, 3, 1, 2), noise)
        assert bits.ndim == 0 and bool(torch.isfinite(bits))


def test_crops_that_are_larger_than_32(images):
    """Landscapes cut to 48 x 48, as photographs are: the noise follows the crop, not the images."""
    landscapes = torch.from_numpy(np.stack([data.photograph(name)[:160, :240] for name in ("coffee", "motorcycle")]))
    recipe = dataclasses.replace(RECIPE, crop=48, batch=2)
    batch = train.batch_at(recipe, landscapes, 0)
    assert batch.shape == (2, 3, 48, 48)
    run = train.Run(recipe)
    run.begin(landscapes, None)
    report = run.advance(landscapes)
    assert 2 < report["bits_per_dim"] < 9 and [value.shape[-1] for value in run.model.noise(1, torch.Generator(), 48)] == [24, 12]


# --- shrunk photographs -----------------------------------------------------------------------------------------------------------------------

def test_five_pieces_of_a_photograph():
    image = data.photograph("motorcycle")[:321, :481]
    pieces = train._shrunk(image)
    assert pieces.shape == (5, 160, 240, 3) and pieces.dtype == np.uint8
    resized = {n: np.array(Image.fromarray(image[:320, :480]).resize((60 * n, 40 * n), Image.Resampling.LANCZOS)) for n in (4, 5, 6)}
    for k, (n, top, left) in enumerate([(4, 0, 0), (5, 20, 30), (6, 0, 0), (6, 80, 120)]):
        assert np.array_equal(pieces[k], resized[n][top:top + 160, left:left + 240])
    assert np.array_equal(pieces[4], image[80:240, 120:360])
    assert np.array_equal(train._shrunk(np.ascontiguousarray(image.swapaxes(0, 1))), pieces)


def test_bsds500_shrunk():
    try:
        images = train._images(recipes.get("shvc-photo-start"))
    except MissingData as error:
        pytest.skip(str(error))
    assert images.shape == (1500, 160, 240, 3) and images.dtype == torch.uint8 and images.float().std((1, 2, 3)).min() > 1
    assert torch.equal(images[:5], torch.from_numpy(train._shrunk(data.bsds500("train", 1)[0])))

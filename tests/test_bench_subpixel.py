"""What each dependency of an SHVC is worth: the runs differ in what they say they do and in nothing else, and the kept result is what the chapter says."""

import dataclasses
import json

import numpy as np
import pytest
import torch

from shvc_lib import bench_subpixel, data, models, results, train
from shvc_lib.models.shvc import LOWEST, SIZE


@pytest.fixture(scope="module")
def images():
    return torch.from_numpy(data.patches([data.photograph("coffee")], 32, 40))


def test_the_runs_are_those_of_the_figures():
    """Figures 5 and 6 with two seeds each, the others with one; no run twice, all of the first seed before any of the second."""
    names = [name for name, seed in bench_subpixel.RUNS if seed == 0]
    assert len(set(bench_subpixel.RUNS)) == len(bench_subpixel.RUNS) and [seed for _, seed in bench_subpixel.RUNS] == sorted(s for _, s in bench_subpixel.RUNS)
    assert {name for name, seed in bench_subpixel.RUNS if seed == 1} == set(bench_subpixel.SEEDS) <= set(names)
    assert {"eq 8", "eq 5", "k = 1", "k = 4", "k = 8", "not weak", "means", "no skips"} <= set(names)


def test_runs_differ_in_what_their_name_says():
    base = bench_subpixel.recipe_of("eq 8", 0, 100)
    changes = {"eq 5": {"order": "channel"}, "k = 1": {"k": 1}, "k = 4": {"k": 4}, "k = 8": {"k": 8}, "not weak": {"weak": False},
               "k = 1, not weak": {"k": 1, "weak": False},
               "means": {"skips": "means"}, "no skips": {"skips": "none"}, "eq 5, no skips": {"skips": "none", "order": "channel"}}
    assert base.arguments == {"levels": 2, "width": 24, "blocks": 1, "bfloat": True} and base.model == "SHVC" and base.data == "cifar10" and base.batch == 8
    for name, seed in bench_subpixel.RUNS:
        recipe = bench_subpixel.recipe_of(name, seed, 100)
        assert recipe.arguments == {**base.arguments, **changes.get(name, {})} and recipe.seed == seed and recipe.steps == 100
        assert dataclasses.replace(recipe, name="", arguments={}, seed=0) == dataclasses.replace(base, name="", arguments={})
        assert models.build(recipe.model, **recipe.arguments).unit <= 32


def test_every_run_of_a_seed_sees_the_same_batches(images):
    first = [bench_subpixel.recipe_of(name, 0, 50) for name in ("eq 8", "eq 5", "k = 8", "no skips")]
    for step in (0, 7):
        batches = [train.batch_at(recipe, images, step) for recipe in first]
        assert all(torch.equal(batches[0], other) for other in batches[1:])
    assert not torch.equal(train.batch_at(bench_subpixel.recipe_of("eq 8", 1, 50), images, 0), train.batch_at(first[0], images, 0))


def test_measuring_a_tiny_model(images):
    """Means over images and draws, whatever the parts that the images are measured in; densities are shares of the latents."""
    model = models.build("SHVC", levels=2, width=8, blocks=1, split=3).eval()
    model.prepare(images)
    found = bench_subpixel.measure(model, images.numpy()[:6])
    parts = found["parts"]
    assert list(parts) == ["x", "z1", "z2", "lent", "rest", "short"] and found["bits_per_dim"] == pytest.approx(parts["x"] + parts["z1"] + parts["z2"])
    batch, total = images[:6].permute(0, 3, 1, 2), []
    with torch.no_grad():
        for seed in (0, 1):
            total.append(float(model.loss(batch, model.noise(6, torch.Generator().manual_seed(seed)))[0]))
    assert found["bits_per_dim"] == pytest.approx(np.mean(total), rel=1e-5)
    densities = np.array(found["densities"])
    assert densities.shape == (2, SIZE) and (densities >= 0).all() and np.allclose(densities.sum(1), 1, atol=1e-3)
    assert abs(densities @ np.arange(LOWEST, LOWEST + SIZE)).max() < 20 and (densities > 0.001).sum(1).min() > 10
    assert json.loads(json.dumps(found)) == found



def test_a_trained_run_averages_its_curve(images, monkeypatch):
    """A few steps: a point per `EVERY` of them, the averaged weights, and the same again."""
    monkeypatch.setattr(bench_subpixel, "EVERY", 2)
    monkeypatch.setattr(bench_subpixel, "_BASE", {"levels": 1, "width": 8, "blocks": 1, "bfloat": True})
    model, curve = bench_subpixel.trained("eq 8", 0, 5, images)
    assert len(curve) == 2 and not model.training and all(1 < point < 9 for point in curve)
    other, again = bench_subpixel.trained("eq 8", 0, 5, images)
    assert curve == again and all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), other.state_dict().values()))


# --- the kept result --------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def kept():
    return results.load("subpixel_ablations")


def bits(kept, name, seed=0):
    return kept["runs"][f"{name}, seed {seed}"]["bits_per_dim"]


def test_every_run_is_kept_and_whole(kept):
    assert set(kept["runs"]) == {f"{name}, seed {seed}" for name, seed in bench_subpixel.RUNS}
    for key, row in kept["runs"].items():
        parts = row["parts"]
        assert row["bits_per_dim"] == pytest.approx(parts["x"] + parts["z1"] + parts["z2"], rel=1e-4), key
        assert len(row["curve"]) == kept["steps"] // bench_subpixel.EVERY and row["commit"]
        assert np.allclose(np.sum(row["densities"], 1), 1, atol=1e-3)
        assert row["bits_per_dim"] == pytest.approx(np.mean(row["curve"][-3:]), rel=0.06), key  # test images are no harder than those of training


def test_sub_pixels_in_the_order_of_eq_8_are_cheaper(kept):
    """Figure 5, in both seeds, with the skips and without, and all along the last half of the curves."""
    for name, other in [("eq 8", "eq 5"), ("no skips", "eq 5, no skips")]:
        for seed in (0, 1):
            assert bits(kept, name, seed) < bits(kept, other, seed), (name, seed)
    for seed in (0, 1):
        curves = [np.array(kept["runs"][f"{name}, seed {seed}"]["curve"]) for name in ("eq 8", "eq 5")]
        half = len(curves[0]) // 2
        assert (curves[0][half:] < curves[1][half:]).all()


def test_without_strong_autoregression_most_is_lost(kept):
    """Figure 6, in both seeds: k = 1 is the worst of all k, by more than the seeds differ."""
    for seed in (0, 1):
        assert bits(kept, "k = 1", seed) > 0.05 + max(bits(kept, name, seed) for name in ("eq 8", "k = 4", "k = 8"))


def test_weak_autoregression_and_skips_help(kept):
    assert bits(kept, "eq 8") < bits(kept, "not weak") and bits(kept, "k = 1") < bits(kept, "k = 1, not weak")
    assert bits(kept, "eq 8") < bits(kept, "means") < bits(kept, "no skips")
    for seed in (0, 1):
        assert bits(kept, "eq 8", seed) < bits(kept, "no skips", seed)


def test_the_more_x_sees_of_itself_the_less_z_has_to_say(kept):
    """Figure 6: what the latents cost, z_1 and z_2 together, falls with k."""
    for seed in (0, 1):
        shares = [sum(kept["runs"][f"{name}, seed {seed}"]["parts"][part] for part in ("z1", "z2")) for name in ("k = 1", "eq 8", "k = 4")]
        assert shares[0] > shares[1] > shares[2]

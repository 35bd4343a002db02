"""The MIRACLE benchmark: every image is a test image once, what is kept comes from decoded files, and a slice of it is measured again."""

import argparse
import json

import numpy as np
import pytest
import torch

from shvc_lib import bench_miracle, results
from shvc_lib.errors import InvalidInput
from shvc_lib.models import bnn

torch.set_num_threads(1)


@pytest.fixture(scope="module")
def folds():
    return bench_miracle.folds()


@pytest.fixture(scope="module")
def kept():
    return results.load("miracle")


def test_every_image_is_a_test_image_once(folds):
    assert len(folds) == 5 and sum(len(fold[3]) for fold in folds) == 1797
    total = sum(np.square(fold[2]).sum(dtype=np.float64) for fold in folds)
    for images, labels, test_images, test_labels in folds:
        assert images.dtype == np.float32 and images.shape == (1797 - len(test_images), 64) and len(labels) == len(images)
        assert np.square(images).sum(dtype=np.float64) + np.square(test_images).sum(dtype=np.float64) == pytest.approx(total)
        assert test_images.min() == 0 and test_images.max() == 1 and set(test_labels) == set(range(10))


def test_a_run_writes_its_rows_and_leaves_an_existing_file_alone(folds, tmp_path, monkeypatch, capsys):
    for name, value in dict(STEPS=2, RETRAIN_STEPS=1, ROUNDS=2, DRAWS=1, BUDGETS=(20,), QUANTISED=(4,), INDICES=2, INDEX_BITS=6).items():
        monkeypatch.setattr(bench_miracle, name, value)
    monkeypatch.setattr(bench_miracle, "folds", lambda: folds[:2])
    monkeypatch.setattr(bench_miracle, "trained", lambda fold, budget, *sizes: bnn.BayesianMLP(bench_miracle.SIZES, budget, *sizes or (10, 2)))
    monkeypatch.setattr(bnn.BayesianMLP, "block_kl", lambda self: torch.full((len(self.slots),), 3.0))
    out = tmp_path / "new.json"
    out.write_text("mine")
    with pytest.raises(InvalidInput, match="exists"):
        bench_miracle.main(argparse.Namespace(json=str(out)), {})
    assert out.read_text() == "mine"
    out.unlink()
    monkeypatch.setattr(bench_miracle, "coded", lambda model, fold, rule, rounds: {"method": "miracle", "rule": rule, "rounds": rounds, "budget": 1,
                                                                                  "extra_bits": model.extra_bits, "kl": 3.0, "bytes": 9, "accuracy": 0.5})
    bench_miracle.main(argparse.Namespace(json=str(out)), {"command": "test"})
    result = json.loads(out.read_text())
    assert result["command"] == "test" and {row["fold"] for row in result["rows"]} == {0, 1}
    assert len(result["rows"]) == 2 * len(result["summary"]) and all(row["folds"] == 2 for row in result["summary"])


def test_a_summary_weighs_folds_by_their_images():
    rows = [{"fold": 0, "images": 300, "method": "a", "bytes": 10, "accuracy": 0.9}, {"fold": 0, "images": 300, "method": "b", "accuracy": 0.5},
            {"fold": 1, "images": 100, "method": "a", "bytes": 20, "accuracy": 0.5}]
    first, second = bench_miracle.summary(rows)
    assert first == {"method": "a", "bytes": 15, "folds": 2, "accuracy": pytest.approx(0.8), "spread": pytest.approx(np.std([0.9, 0.5], ddof=1))}
    assert second == {"method": "b", "folds": 1, "accuracy": 0.5, "spread": 0}


def test_the_kept_summary_is_that_of_the_kept_rows(kept):
    assert kept["sizes"] == [64, 32, 10] and {row["fold"] for row in kept["rows"]} == set(range(5))
    for row, again in zip(kept["summary"], bench_miracle.summary(kept["rows"]), strict=True):
        assert row == pytest.approx(again) and row["folds"] == 5
    for row in kept["rows"]:
        if row["method"] == "miracle":
            indices = row["budget"] // row["block"] * (row["block"] + row["extra_bits"]) / 8
            assert row["kl"] == pytest.approx(row["budget"], rel=0.1)
            assert row["rule"] != "importance" or 25 + indices <= row["bytes"] <= 30 + indices


def test_a_kept_fold_is_measured_again(folds, kept):
    """Training is floating point: other machines get nearly the same. The size of the file is exact."""
    kept = [row for row in kept["rows"] if row["fold"] == 0]
    floats = next(bench_miracle.deterministic(bench_miracle.plain(*folds[0][:2]), folds[0], "plain"))
    old = next(row for row in kept if row["method"] == "float32" and row["network"] == "plain")
    assert floats["bytes"] == old["bytes"] == 4 * 2410 and floats["accuracy"] == pytest.approx(old["accuracy"], abs=0.03)
    model = bench_miracle.trained(folds[0], 800)
    assert next(bench_miracle.exact(model, folds[0]))["accuracy"] == pytest.approx(
        next(row["accuracy"] for row in kept if row["method"] == "exact samples" and row["budget"] == 800), abs=0.08)
    row = bench_miracle.coded(model, folds[0], "importance", 1)
    old = next(row for row in kept if row.get("rule") == "importance" and row["rounds"] == 1 and row["budget"] == 800)
    assert row["bytes"] == old["bytes"] and row["kl"] == pytest.approx(old["kl"], rel=0.05) and row["accuracy"] == pytest.approx(old["accuracy"], abs=0.2)

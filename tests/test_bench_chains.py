"""The chains benchmark: what is kept comes from coding and decoding, and a slice of it is measured again."""

import argparse
import json

import numpy as np
import pytest

from shvc_lib import bench_chains, data, results, zoo
from shvc_lib.coding.bits_back import bb_ans, bit_swap
from shvc_lib.errors import InvalidInput, MissingData
from shvc_lib.models import vae_codec


@pytest.fixture(scope="module")
def tiles():
    return data.patches([data.photograph("astronaut")], 32, 6, seed=2)


def test_a_chain_is_coded_and_decoded(tiles):
    row = bench_chains.chain(vae_codec.codec(zoo.load("vae-stochastic-1"), tiles[0].shape), tiles)
    assert row["round_trip"] and row["restored"] and row["first_initial"] > 0
    assert row["first_total"] > row["net"] and row["initial_max"] >= row["initial_mean"] > 0


def test_a_codec_that_errs_is_found_out(tiles):
    codec = vae_codec.codec(zoo.load("vae-stochastic-1"), tiles[0].shape)
    row = bench_chains.chain(codec._replace(pop=lambda stack: codec.pop(stack) ^ np.uint8(1)), tiles)
    assert not row["round_trip"] and row["restored"]


def test_kept_rows_are_not_measured_again_unless_the_network_changed(tiles, tmp_path, monkeypatch, capsys):
    out = tmp_path / "kept.json"
    monkeypatch.setattr(data, "cifar10", lambda split, count: tiles[:count])
    args = argparse.Namespace(models=["vae-stochastic-1"], count=3, json=str(out))
    circumstances = {"command": "test", "date": "today", "commit": "this"}
    bench_chains.main(args, circumstances)
    first = json.loads(out.read_text())
    assert first["images"] == 3 and set(first["models"]["vae-stochastic-1"]["schedules"]) == {"bit_swap", "bb_ans"}
    monkeypatch.setattr(bench_chains, "measure", lambda *_: pytest.fail("measured again"))
    bench_chains.main(args, circumstances)
    assert json.loads(out.read_text()) == first
    with pytest.raises(InvalidInput, match="chains of 3 images, not of 2"):
        bench_chains.main(argparse.Namespace(**{**vars(args), "count": 2}), circumstances)
    assert json.loads(out.read_text()) == first and first["models"]["vae-stochastic-1"]["commit"] == "this"
    first["models"]["vae-stochastic-1"]["sha256"] = "other"
    out.write_text(json.dumps(first))
    with pytest.raises(pytest.fail.Exception):
        bench_chains.main(args, circumstances)


@pytest.mark.parametrize("content", ["", "[]", "{}", "no JSON"])
def test_another_file_is_left_alone(content, tmp_path):
    out = tmp_path / "mine.json"
    out.write_text(content)
    with pytest.raises(InvalidInput, match="not one of this benchmark's"):
        bench_chains.main(argparse.Namespace(models=[], count=3, json=str(out)), {})
    assert out.read_text() == content


RESULT = results.load("bits_back_cifar10")
KEPT = RESULT["models"]


def test_a_thousand_images_were_chained_by_every_network():
    assert RESULT["images"] == 1000 and list(KEPT) == [name for name in zoo.names() if zoo.card(name)["recipe"]["model"] == "BitsBackVAE"]


@pytest.mark.parametrize("name", KEPT)
def test_the_kept_chains_are_those_of_the_networks_that_are_here(name):
    entry, card = KEPT[name], zoo.card(name)
    assert entry["sha256"] == card["sha256"] and entry["parameters"] == card["parameters"]
    assert entry["elbo"] == pytest.approx(card["bits_per_dim"]["exact"], rel=1e-5) and entry["date"] and entry["commit"]
    for row in entry["schedules"].values():
        assert row["round_trip"] and row["restored"]
        assert row["net"] == pytest.approx(entry["elbo"], rel=0.003)
        assert row["total_mean"] == pytest.approx(row["net"] + row["initial_mean"] / 3072)


@pytest.mark.parametrize("schedule", [bit_swap, bb_ans], ids=["bit_swap", "bb_ans"])
def test_the_first_image_of_a_kept_chain_is_coded_again(schedule):
    try:
        images = data.cifar10("test", 2)
    except MissingData as error:
        pytest.skip(str(error))
    row = bench_chains.chain(vae_codec.codec(zoo.load("vae-stochastic-2"), images[0].shape, schedule), images)
    kept = KEPT["vae-stochastic-2"]["schedules"][schedule.__name__]
    assert row["first_initial"] == kept["first_initial"] and row["first_total"] == kept["first_total"]  # integers all the way: not a bit less

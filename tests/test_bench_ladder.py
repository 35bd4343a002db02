"""The kept results of the lossy codec on Kodak: complete, of these networks, as good as the chapter says, and measured again in part."""

import json

import numpy as np
import pytest

from shvc_lib import bench, bench_ladder, codec, data, metrics, results, zoo
from shvc_lib.errors import MissingData

RESULT = results.load("kodak_coded_sampling")
SLOW = ("is_gs", "ordered", "dither")
POINTS = [(name, str(point)) for name in bench_ladder.NETWORKS for point in range(5)]


def kodak(count):
    try:
        return data.kodak(count)
    except MissingData as error:
        pytest.skip(str(error))


def test_it_is_complete_and_of_the_networks_that_are_here():
    assert list(RESULT["networks"]) == list(bench_ladder.NETWORKS) and RESULT["few"] == bench_ladder.FEW
    for name, entry in RESULT["networks"].items():
        assert entry["sha256"] == zoo.card(name)["sha256"] and entry["betas"] == list(zoo.load(name).betas)
        assert list(entry["points"]) == [str(point) for point in range(5)]
        for rows in entry["points"].values():
            assert sorted(rows) == [f"kodim{number:02d}" for number in range(1, 25)]
            for number, key in enumerate(sorted(rows), 1):
                assert {"theory", "tree"} <= set(rows[key]) and (set(SLOW) <= set(rows[key])) == (number <= bench_ladder.FEW)
    for curves in (RESULT["classical"][name] for name in bench_ladder.CLASSICAL):
        assert sorted(curves["all"]["rate"]) == curves["all"]["rate"] and len(curves["few"]["rate"]) == len(curves["all"]["rate"])


@pytest.mark.parametrize("name, point", POINTS)
def test_the_tree_comes_within_fifteen_per_cent_of_theory(name, point):
    entries = RESULT["networks"][name]["points"][point]
    theory, tree = (bench_ladder.means(entries, 24, sampler) for sampler in ("theory", "tree"))
    assert theory[0] < tree[0] < 1.15 * theory[0]
    assert tree[1] > theory[1] - 0.15 and tree[2] > theory[2] - 0.15  # PSNR and MS-SSIM, decibels
    for row in (entry["theory"] for entry in entries.values()):
        kl = sum(row["kl"])
        assert row["bits"] == pytest.approx(kl + 2 * np.log2(kl + 1), abs=0.2)


@pytest.mark.parametrize("name, point", POINTS)
def test_the_other_samplers_cost_more_or_lose_more(name, point):
    entries = RESULT["networks"][name]["points"][point]
    tree, is_gs, ordered, dither = (bench_ladder.means(entries, bench_ladder.FEW, sampler) for sampler in ("tree", *SLOW))
    assert is_gs[0] > tree[0] and is_gs[1] < tree[1] - 0.3  # more bits, and a worse picture
    assert ordered[0] > tree[0] and dither[0] > tree[0]


@pytest.mark.parametrize("name", bench_ladder.NETWORKS)
def test_a_file_is_written_again(name):
    image = kodak(1)[0]
    kept = RESULT["networks"][name]["points"]["0"]["kodim01"]["tree"]
    file = codec.encode(image, model=name, quality=1)
    # The analysis is in floating point, and another machine may find another path; the cost is planned, and hardly moves.
    assert 8 * len(file) == pytest.approx(kept["bits"], rel=0.01)
    assert metrics.psnr(image, codec.decode(file)) == pytest.approx(kept["psnr"], abs=0.05)


def test_a_run_goes_on_with_what_the_file_holds(tmp_path, capsys, monkeypatch):
    kodak(1)
    out = tmp_path / "out.json"
    out.write_text(json.dumps(RESULT))
    monkeypatch.setattr(bench_ladder, "measure", None)  # nothing is left to measure
    assert bench.main(["ladder", "--count", "1", "--json", str(out)]) == 0
    assert capsys.readouterr().out.count("tree") == 10 and json.loads(out.read_text())["networks"].keys() == RESULT["networks"].keys()


def test_another_file_is_left_alone(tmp_path, capsys):
    out = tmp_path / "out.json"
    out.write_text('{"models": {}}')
    assert bench.main(["ladder", "--json", str(out)]) == 1
    assert "not one of this benchmark's" in capsys.readouterr().err and out.read_text() == '{"models": {}}'

"""The benchmarks run and decode what they encode; no test here looks at a time."""

import json
from pathlib import Path

import pytest

import shvc_lib
from shvc_lib import bench, data
from shvc_lib.images import write_image


def test_coding_benchmark_is_exact_and_counts_bits():
    ours, theirs = bench.coding(count=2000, custom_count=64, repeats=1)
    assert ours[1] == 2000 and 0 <= ours[5] - ours[4] <= 64
    assert theirs[1] == 64 and all(seconds > 0 for seconds in (*ours[2:4], *theirs[2:4]))


def test_command_prints_a_table(capsys):
    assert bench.main(["coding", "--symbols", "4096"]) == 0
    assert "CustomModel" in capsys.readouterr().out


def test_images_benchmark_writes_what_it_prints(tmp_path, capsys):
    picture = data.photograph("chelsea")[:32, :48]
    (tmp_path / "in").mkdir()
    write_image(tmp_path / "in" / "a.png", picture)
    write_image(tmp_path / "in" / "b.png", picture[:, ::-1].copy())
    out = tmp_path / "out.json"
    assert bench.main(["images", "--images", str(tmp_path / "in"), "--json", str(out)]) == 0
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    ours = [row for row in result["rows"] if row["codec"] == "linear"]
    assert [row["image"] for row in ours] == ["a.png", "b.png"] and ours[0]["bytes"] == len(shvc_lib.encode(picture, model="linear"))
    assert result["mean_bits_per_dim"]["linear"] == (ours[0]["bits_per_dim"] + ours[1]["bits_per_dim"]) / 2
    assert f"{result['mean_bits_per_dim']['linear']:.3f}" in printed and {"command", "date", "commit", "hardware", "versions"} <= set(result)


def test_bad_arguments_are_one_line(tmp_path, capsys):
    (tmp_path / "precious.json").write_text("{}")
    for arguments in (["--images", "no/such/folder"], ["--json", str(tmp_path / "precious.json")]):
        assert bench.main(["images", *arguments]) == 1
        assert capsys.readouterr().err.count("\n") == 1
    assert (tmp_path / "precious.json").read_text() == "{}"


def test_published_kodak_result_measured_again():
    """A cheap slice of data/results/kodak_lossless.json: one image, the model and PNG."""
    result = json.loads((Path(__file__).parent.parent / "data" / "results" / "kodak_lossless.json").read_text())
    assert len({row["image"] for row in result["rows"]}) == 24
    assert result["mean_bits_per_dim"] == pytest.approx(bench.means(result["rows"]))
    if not data.available("kodak"):
        pytest.skip("SHVC_DATA is not set: no Kodak images here")
    for row in bench.images([("kodim01", data.kodak(1)[0])], ["linear"], ["PNG"]):
        (kept,) = [r for r in result["rows"] if (r["image"], r["codec"]) == (row["image"], row["codec"])]
        assert row["bytes"] == pytest.approx(kept["bytes"], rel=5e-4)

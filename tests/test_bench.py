"""The benchmarks run and decode what they encode; no test here looks at a time."""

import json
from pathlib import Path

import numpy as np
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


@pytest.fixture
def mixed(tmp_path):
    """A folder with one picture that everything takes, and one of every kind that something does not."""
    folder, picture = tmp_path / "mixed", data.photograph("chelsea")[100:132, 100:148]
    folder.mkdir()
    for name, image in {"a.png": picture[..., 0], "b.png": picture, "c.tif": picture.astype(np.uint16) * 200}.items():
        write_image(folder / name, image)
    (folder / "d.png").write_bytes(b"no image")
    (folder / "e.png").mkdir()
    return folder


def test_what_cannot_be_measured_is_left_out_in_one_line(mixed, capsys):
    assert bench.main(["images", "--images", str(mixed)]) == 0
    streams = capsys.readouterr()
    assert "a.png" in streams.out and "b.png" in streams.out and "mean of 2" in streams.out and "c.tif" not in streams.out
    assert streams.err == "left out 2 of 4 image files: c.tif (16 bits per sample), d.png (not an image, or damaged at its start)\n"
    for name in "ab":
        (mixed / f"{name}.png").unlink()
    assert bench.main(["images", "--images", str(mixed)]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1 and "none of its 2 image files" in streams.err and "c.tif (16 bits" in streams.err


def test_results_that_could_not_be_written_are_not_measured(tmp_path, capsys):
    for command in (["images"], ["photographs", "--images", "photographs"], ["arib"], ["subpixel"]):
        assert bench.main([*command, "--json", str(tmp_path / "no" / "out.json")]) == 1
        streams = capsys.readouterr()
        assert streams.out == "" and streams.err.count("\n") == 1 and "no/out.json" in streams.err


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

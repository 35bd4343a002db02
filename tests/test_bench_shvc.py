"""What the trained SHVCs reach: the kept results are consistent with each other, and small runs of the benchmarks write what they print."""

import json
import sys

import numpy as np
import pytest
import torch

from shvc_lib import album, bench, bench_photographs, bench_shvc, cli, codec, coders, data, results, zoo
from shvc_lib.bench_photographs import FITTED, JPEG_XL, LEARNED, LINEAR, PHOTO
from shvc_lib.bench_shvc import FILES, TIMED
from shvc_lib.coding import BitStack, bitstack, logistic
from shvc_lib.errors import InvalidInput
from shvc_lib.images import write_image
from shvc_lib.models import shvc_codec

TILES = data.patches([data.photograph("coffee")], 32, 4, seed=8)


# --- the pieces ----------------------------------------------------------------------------------------------------------------------------------

def test_ideal_bits_are_those_of_the_very_masses():
    """What pushing costs is what the distribution says, popping takes it back, and afterwards nothing is counted."""
    cdf, stack = logistic(np.full(500, 100 << 16), np.full(500, 40), 256, 0), BitStack.random(1 << 14)
    values = stack.copy().pop(cdf)
    with bench_shvc.ideal_bits() as found:
        stack.push(values, cdf)
        pushed = sum(found)
        stack.pop(cdf)
    assert pushed == pytest.approx(cdf.bits(values).sum(), rel=1e-9) and sum(found) == pytest.approx(0, abs=1e-6)
    with bench_shvc.ideal_bits() as found, pytest.MonkeyPatch.context() as patch:  # the same when symbols are searched for
        patch.setattr(bitstack, "_MANY", 0)
        stack.push(values, cdf)
        stack.pop(cdf)
    assert len(found) == 2 and sum(found) == pytest.approx(0, abs=1e-6)
    count = len(found)
    stack.push(values, cdf)
    assert len(found) == count


def test_what_fails_inside_leaves_the_stack_as_it_was_made():
    before = BitStack._encode, BitStack._decode, BitStack._search
    with pytest.raises(ZeroDivisionError), bench_shvc.ideal_bits():
        1 / 0
    assert (BitStack._encode, BitStack._decode, BitStack._search) == before


def test_chains_cost_what_the_masses_say():
    row = bench_shvc.chains(zoo.load("shvc-short"), TILES)
    assert len(row["bits"]) == len(row["initial"]) == 4 and min(row["initial"]) > 0
    assert sum(row["bits"]) / TILES.size == pytest.approx(row["symbols"], rel=1e-3)
    assert 0 < row["seconds"]["push_network"] < row["seconds"]["push"] and 0 < row["seconds"]["pop_network"] < row["seconds"]["pop"]


def test_afterwards_the_networks_are_not_timed():
    twin = zoo.load("shvc-short")
    with bench_shvc.network_seconds(twin) as spent:
        twin.posterior(1, twin.pixels(torch.zeros(1, 3, 32, 32)))
    assert spent[0] > 0 and "posterior" not in vars(twin) and all(not {"seen", "forward", "step"} & set(vars(net)) for net in twin.conditionals)


def test_chains_of_unequal_length_are_refused(monkeypatch):
    monkeypatch.setattr(bench_shvc, "BATCH", 3)
    with pytest.raises(InvalidInput, match="evenly"):
        bench_shvc.chains(zoo.load("shvc-short"), TILES)


def test_files_are_whole_files_and_what_does_not_come_back_is_noticed(monkeypatch):
    row = bench_shvc.files(FILES, TILES[:2])
    assert row["bits"] == [8 * len(codec.encode(image, FILES)) for image in TILES[:2]]
    assert 0 < sum(row["bits"]) / TILES[:2].size - row["symbols"] < 96 / 3072
    monkeypatch.setattr(codec, "decode", lambda *_, **__: TILES[0])
    with pytest.raises(InvalidInput, match="come back"):
        bench_shvc.files(FILES, TILES[:2])


def test_the_symbols_of_a_pile_are_the_shortest_of_eight_and_three_bits():
    """Not those of the ways that were tried and not kept."""
    name = "shvc-pixels-cifar10"
    own, row = shvc_codec.codec(zoo.load(name), TILES.shape[1:]), bench_shvc.in_album(name, TILES, len(TILES))
    least = sum(min(own.bits(coders.turned(image, way)) for image in (tile, tile.swapaxes(0, 1)) for way in range(4)) + 3 for tile in TILES)
    assert row["symbols"] * TILES.size == pytest.approx(least, abs=2 * len(TILES))  # what lies below decides by fractions of a bit
    written = album.encode(TILES, name, chain=len(TILES))
    assert row["bytes"] == len(written) and 0 < 8 * len(album.Album(written)._stream(0)) - row["symbols"] * TILES.size < 64


def test_albums():
    row = bench_shvc.in_album(FILES, TILES)
    assert row["bytes"] == len(album.encode(TILES, FILES)) and row["bits_per_dim"] == 8 * row["bytes"] / TILES.size > row["symbols"]


@pytest.mark.parametrize("count, shape", [(80, (2, 40)), (4, (1, 4)), (82, (2, 41))])
def test_a_mosaic_holds_every_image_once(count, shape):
    images = np.random.default_rng(0).integers(0, 256, (count, 4, 4, 3)).astype(np.uint8)
    whole = bench_shvc.mosaic(images)
    rows, columns = shape if shape[1] <= 40 else (41, 2)
    assert whole.shape == (4 * rows, 4 * columns, 3)
    for i, image in enumerate(images):
        row, column = divmod(i, columns)
        assert np.array_equal(whole[4 * row:4 * row + 4, 4 * column:4 * column + 4], image)


def test_what_images_are_like():
    flat, ramp = np.full((4, 4, 3), 7, np.uint8), np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    found = bench_shvc.describe(np.stack([flat, ramp]))
    assert found == {"roughness": [0.0, 3.0], "flat": [1.0, 0.0], "grey": [1.0, 0.0], "colours": [1, 16]}


# --- small runs ----------------------------------------------------------------------------------------------------------------------------------

def test_a_small_run_on_small_images(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(bench_shvc, "NETWORKS", (TIMED, FILES, coders.SMALL, "shvc-short-deterministic", "no-such-network"))
    monkeypatch.setattr(bench_shvc, "CHAIN", 2)
    monkeypatch.setattr(data, "cifar10", lambda split, count: data.patches([data.photograph("chelsea")], 32, count, seed=split == "test"))
    out = tmp_path / "out.json"
    assert bench.main(["shvc", "--count", "4", "--json", str(out)]) == 0
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    assert set(result["models"]) == {TIMED, FILES, coders.SMALL, "shvc-short-deterministic"} and {"command", "date", "commit", "hardware"} <= set(result)
    kinds = [row["kind"] for row in result["models"].values()]
    assert kinds == ["SHVC", "SHVC-ArIB", "deterministic", "deterministic"]
    for name, row in result["models"].items():
        assert f"{row['actual']:.4f}" in printed and row["actual"] > 0.999 * row["symbols"], name
        assert row["integer"] == pytest.approx(sum(value for key, value in row["parts"].items() if key[0] in "xz"), rel=1e-4)
    assert all(len(values) == 4 for values in result["described"].values())
    assert result["models"][TIMED]["album"]["chain"] == 2 and result["evaluation"]["images"] == 40 and set(result["evaluation"]["seconds"]) == {"1", "2"}
    assert bench.main(["shvc", "--count", "4", "--json", str(out)]) == 1 and "exists" in capsys.readouterr().err
    old = {**result, "models": {name: {**row, "actual": 9.0, **({"sha256": "other"} if name == FILES else {})} for name, row in result["models"].items()}}
    out.write_text(json.dumps(old))
    again = tmp_path / "again.json"
    assert bench.main(["shvc", "--count", "4", "--before", str(out), "--json", str(again)]) == 0
    taken = json.loads(again.read_text())
    assert {name for name, row in taken["models"].items() if row["actual"] != 9.0} == {FILES} and set(taken["taken_over"]["models"]) == set(taken["models"]) - {FILES}
    assert taken["models"][FILES]["bits"] == result["models"][FILES]["bits"]
    assert taken["evaluation"] == result["evaluation"] and taken["classical"] == result["classical"] and taken["taken_over"]["commit"] == result["commit"]
    for wrong in (["--count", "3", "--before", str(out)], ["--count", "4", "--before", str(tmp_path / "none.json")]):
        capsys.readouterr()
        assert bench.main(["shvc", *wrong]) == 1 and capsys.readouterr().err.count("\n") == 1


def test_a_small_run_on_photographs(tmp_path, capsys):
    folder, out = tmp_path / "in", tmp_path / "out.json"
    folder.mkdir()
    picture = data.photograph("chelsea")[100:140, 100:148]
    write_image(folder / "a.png", picture)
    assert bench.main(["photographs", "--images", str(folder), "--json", str(out)]) == 0
    result, printed = json.loads(out.read_text()), capsys.readouterr().out
    rows = {row["codec"]: row for row in result["rows"]}
    assert rows["auto"]["bytes"] == min(rows[name]["bytes"] for name in (LEARNED, LINEAR, FITTED, coders.SMALL)) and rows[PHOTO]["bytes"] == len(codec.encode(picture, PHOTO))
    assert result["mean_bits_per_dim"][JPEG_XL] == rows[JPEG_XL]["bits_per_dim"] and f"{rows[PHOTO]['bits_per_dim']:.4f}" in printed
    assert rows[PHOTO]["ideal_bits"] < 8 * rows[PHOTO]["bytes"] and {"command", "date", "commit", "hardware"} <= set(result)


def test_no_time_is_rounded_to_zero():
    """A codec may need less than a millisecond; others' seconds are divided by its."""
    row = bench_photographs._row("nothing", TILES[0], lambda: b"", lambda file: TILES[0])
    assert row["seconds_encode"] > 0 and row["seconds_decode"] > 0


def test_a_folder_of_all_kinds(tmp_path, capsys):
    """RGB and RGBA are measured, the others left out in one line; with nothing to measure that line is an error."""
    picture = data.photograph("chelsea")[100:108, 100:112]
    for name, image in {"a grey.png": picture[..., 0], "b.png": picture, "c.png": np.dstack([picture, picture[..., :1]]),
                        "d.tif": picture.astype(np.uint16) * 200, "e.png": np.zeros((1, 16384, 3), np.uint8)}.items():
        write_image(tmp_path / name, image)
    assert cli.main(["bench", "--images", str(tmp_path)]) == 0
    streams = capsys.readouterr()
    assert streams.err == ("left out 3 of 5 image files: a grey.png (grey), d.tif (16 bits per sample), e.png (a side of more than 16383 pixels, which "
                           "WebP does not take)\n")
    assert [line.split()[0] for line in streams.out.splitlines()[:2]] == ["b.png", "c.png"] and "mean of 2" in streams.out
    for name in "bc":
        (tmp_path / f"{name}.png").unlink()
    assert cli.main(["bench", "--images", str(tmp_path)]) == 1
    streams = capsys.readouterr()
    assert streams.out == "" and streams.err.count("\n") == 1 and "none of its 3 image files" in streams.err


def test_without_the_classical_codecs_nothing_is_begun(tmp_path, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    write_image(tmp_path / "a.png", TILES[0])
    monkeypatch.setattr(bench_photographs, "ours", None)
    assert cli.main(["bench", "--images", str(tmp_path)]) == 1
    assert "shvc_lib[anchors]" in (said := capsys.readouterr().err) and said.count("\n") == 1


def test_the_embedded_photographs_by_name(monkeypatch, tmp_path):
    """As the help says."""
    monkeypatch.chdir(tmp_path)
    pictures, note = data.pictures("photographs")
    assert [name for name, _ in pictures] == list(data.PHOTOGRAPHS) and note == ""


# --- the kept results ----------------------------------------------------------------------------------------------------------------------------

@pytest.fixture(scope="module")
def kept():
    return results.load("shvc_cifar10")


@pytest.fixture(scope="module")
def kodak():
    return results.load("kodak_shvc")


def test_the_kept_networks_are_those_that_are_here(kept):
    assert kept["images"] == 1000 and {TIMED, FILES} <= set(kept["models"])
    for name, row in kept["models"].items():
        assert row["sha256"] == zoo.card(name)["sha256"] and row["float"] == zoo.card(name)["bits_per_dim"]["float"], name


def test_exactness_costs_little_and_the_coder_nothing(kept):
    """Three ways of counting: the integers cost at most half a per cent of the float network's, and a file at most 0.1 % and 64 bits more than its symbols."""
    for name, row in kept["models"].items():
        assert abs(row["integer"] / row["float"] - 1) < 0.005, name
        least = -0.004 if name in bench_shvc.SINGLE else -0.002  # of single files the shortest of four draws, or of four ways to mirror the image, is kept
        assert least < row["symbols"] / row["integer"] - 1 < 0.002, name
        if "groups" in row:  # fifty images share one end; three bits of each say how it lies
            assert 0 < row["groups"]["bits_per_dim"] - row["groups"]["symbols"] < 0.001 and -0.01 < row["groups"]["symbols"] - row["symbols"] < 3 / 3072
        assert row["actual"] <= 1.001 * row["symbols"] + 64 / 3072, name


def test_single_files_cost_little_more_than_chains(kept):
    assert kept["models"][FILES]["actual"] < kept["models"][TIMED]["actual"] + 0.03


def test_both_beat_the_classical_codecs_on_small_images(kept):
    best = min(row["alone"] for row in kept["classical"].values())
    assert all(kept["models"][name]["actual"] < best for name in (TIMED, FILES))
    assert kept["models"][TIMED]["actual"] < kept["classical"][JPEG_XL]["mosaic"]
    for row in kept["classical"].values():
        assert row["alone"] == pytest.approx(sum(row["bits"]) / 1000 / 3072) and row["mosaic"] < row["alone"]


def test_the_longer_training_paid(kept):
    for name, short in ((TIMED, "shvc-short"), (FILES, "shvc-short-arib")):
        assert kept["models"][name]["actual"] < kept["models"][short]["actual"]


def test_every_image_is_described(kept):
    assert all(len(values) == 1000 for values in kept["described"].values()) and 0 <= min(kept["described"]["flat"]) <= max(kept["described"]["flat"]) < 1


def test_ten_thousand_images_were_evaluated(kept):
    timed = kept["evaluation"]
    assert timed["images"] == 10_000 and timed["batch"] == 100 and timed["network"] == TIMED
    for row in timed["seconds"].values():
        assert row["evaluate_network"] < row["evaluate"] and row["push_network"] < row["push"] and row["pop_network"] < row["pop"]


def test_every_photograph_by_every_codec(kodak):
    codecs = {row["codec"] for row in kodak["rows"]}
    assert len(kodak["rows"]) == 24 * len(codecs) and {PHOTO, FITTED, LINEAR, JPEG_XL, "auto", "PNG", "WebP slowest"} <= codecs
    assert kodak["model"]["sha256"] == zoo.card(PHOTO)["sha256"] and kodak["learned"]["sha256"] == zoo.card(LEARNED)["sha256"] and kodak["fitted"]["sha256"] == zoo.card(FITTED)["sha256"]
    for name, rate in kodak["mean_bits_per_dim"].items():
        assert rate == pytest.approx(np.mean([row["bits_per_dim"] for row in kodak["rows"] if row["codec"] == name]))


def test_no_file_of_a_photograph_is_a_thousandth_above_its_symbols(kodak):
    for row in kodak["rows"]:
        if row["codec"] in (PHOTO, FITTED, LEARNED):
            assert 0 < 8 * row["bytes"] - row["ideal_bits"] <= 0.001 * row["ideal_bits"] + 64 * row["tiles"], row["image"]


def test_classical_sizes_are_those_of_chapter_1(kodak):
    """Within a per mille: versions of the codecs differ."""
    before = results.load("kodak_lossless")["mean_bits_per_dim"]
    for name in ("PNG", "WebP slowest", "JPEG-LS", "JPEG 2000", JPEG_XL):
        assert kodak["mean_bits_per_dim"][name] == pytest.approx(before[name], rel=1e-3)


def test_the_published_tables_are_quoted_whole():
    published = results.load("published_shvc")
    table = published["table_1"]
    assert len(table["rows"]) == 13 and all(len(row["bits_per_dim"]) == len(table["datasets"]) == 6 for row in table["rows"].values())
    assert table["rows"]["SHVC"]["bits_per_dim"][0] == 3.16 and table["rows"]["SHVC"]["trained_on_imagenet32"][0] == 3.41
    assert table["rows"]["SHVC Lite"]["bits_per_dim"][0] == 3.76
    assert published["table_2"]["rows"]["SHVC"] == {"bits_per_dim": 3.18, "seconds": 4.63}

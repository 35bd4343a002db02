"""Single images under three codes: the kept result is what chapter 6 says, and slices of it come out again."""

import re
from pathlib import Path

import numpy as np
import pytest

from shvc_lib import bench_arib, data, results, zoo
from shvc_lib.bench_arib import ARIB, DETERMINISTIC, SHVC
from shvc_lib.errors import InvalidInput, MissingData

RESULT = results.load("arib_cifar10")
MODELS = {name: {key: np.array(value) for key, value in row.items()} for name, row in RESULT["models"].items()}
TILES = data.patches([data.photograph("coffee")], 32, 3, seed=8)


def test_a_thousand_images_were_coded_by_each():
    assert RESULT["images"] == 1000 and set(MODELS) == {SHVC, ARIB, DETERMINISTIC}
    assert set(MODELS[ARIB]) == {"ideal", "bits", "rest", "lent", "overdrawn"}
    assert all(len(value) == 1000 for row in MODELS.values() for key, value in row.items() if key != "ideal")


def test_arib_costs_at_most_a_twentieth_of_the_initial_bits_that_it_saves():
    """Whole streams, the flush included, beside SHVC's net, which has none to flush."""
    extra = MODELS[ARIB]["bits"] - MODELS[SHVC]["net"]
    assert extra.mean() <= MODELS[SHVC]["initial"].mean() / 20


def test_the_order_of_the_three_is_that_of_figure_4():
    """SHVC with initial bits is the dearest or the deterministic posterior is; ArIB is the cheapest by far, image by image, too."""
    arib, deterministic = MODELS[ARIB]["bits"], MODELS[DETERMINISTIC]["bits"]
    single = MODELS[SHVC]["net"] + MODELS[SHVC]["initial"]
    assert arib.mean() + 100 < min(deterministic.mean(), single.mean()) and (arib < single).mean() > 0.95


def test_streams_are_as_long_as_the_model_asks_for():
    for name in (ARIB, DETERMINISTIC):
        assert -5 < MODELS[name]["bits"].mean() - MODELS[name]["ideal"] < 45, name  # 40 bits of flush at the most, and one draw of z
    assert abs(MODELS[SHVC]["net"].mean() - MODELS[SHVC]["ideal"]) < 6


def test_the_readme_quotes_these_numbers():
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    heads, _, values = re.search(r"^(\| PNG \| WebP \| JPEG XL \| SHVC.*)\n(.*)\n(.*)$", readme, re.M).groups()
    printed = dict(zip((cell.strip() for cell in heads.strip("| ").split("|")), (cell.strip() for cell in values.strip("| ").split("|"))))
    classical = RESULT["classical"]
    bits = {"PNG": classical["PNG"], "WebP": classical["WebP slowest"], "JPEG XL": classical["JPEG XL effort 9"],
            "SHVC with its initial bits": (MODELS[SHVC]["net"] + MODELS[SHVC]["initial"]).mean(),
            "deterministic SHVC": MODELS[DETERMINISTIC]["bits"].mean(), "SHVC-ArIB": MODELS[ARIB]["bits"].mean()}
    assert printed == {name: f"{value / 3072:.3f}" for name, value in bits.items()}


def test_the_album_of_the_readme(tmp_path, monkeypatch):
    readme = (Path(__file__).resolve().parent.parent / "README.md").read_text(encoding="utf-8")
    block = re.search(r"^```\n(from shvc_lib import album\n.*?)^```", readme, re.M | re.S)[1]
    names = {"images": data.patches([data.photograph("coffee")], 32, 8, seed=2)}
    monkeypatch.chdir(tmp_path)
    exec(compile(block, "README.md", "exec"), names)
    assert np.array_equal(names["tile"], names["images"][7])


def test_overdrawn_is_where_the_loan_is_too_small_and_nowhere_else():
    rest, lent, overdrawn = (MODELS[ARIB][key] for key in ("rest", "lent", "overdrawn"))
    assert set(overdrawn.tolist()) == {0, 1} and np.array_equal(overdrawn, lent > rest)
    assert 1000 - overdrawn.sum() >= 980 and np.all(lent <= rest + 32) and np.all(lent > 0)


def test_an_overdrawn_image_costs_less_than_most():
    """It is flat; and what z could not borrow is a guess no dearer than that of the deterministic network."""
    bits, overdrawn = MODELS[ARIB]["bits"], MODELS[ARIB]["overdrawn"] == 1
    assert bits[overdrawn].max() < bits[~overdrawn].mean()
    assert np.all(bits[overdrawn] < MODELS[DETERMINISTIC]["bits"][overdrawn])


def test_every_number_of_processes_wrote_the_same_album_and_one_image_is_read_alone():
    parallel = RESULT["parallel"]
    assert parallel["images"] == 1000 and set(parallel["sha256"]) == {"1", "2", "4"} and len(set(parallel["sha256"].values())) == 1
    access = parallel["random_access"]
    assert access["stream_bytes"] < access["bytes_read"] < access["stream_bytes"] + 80 and access["file_bytes"] > 500 * access["bytes_read"]


def test_network_evaluations_do_not_depend_on_the_size():
    kept = RESULT["speed"]["evaluations"]
    assert set(kept) == {"32", "64", "128"} and all(row == {"x": 4, "z1": 4, "z2": 4, "z3": 4, "posterior": 3} for row in kept.values())
    assert bench_arib.evaluations(zoo.load(ARIB), 64) == kept["64"]
    assert all(rate > 1 for rate in RESULT["speed"]["images_per_second"].values())


@pytest.mark.parametrize("name", sorted(bench_arib.edge_images()))
def test_images_that_are_no_photographs_come_out_again(name):
    """Bit for bit what the kept result says, on this machine, too."""
    image, twin = bench_arib.edge_images()[name], zoo.load(ARIB)
    streams, row = bench_arib.alone(twin, image[None])
    bench_arib.decoded_alone(twin, image[None], streams)
    assert {key: int(value[0]) for key, value in row.items()} == RESULT["edge"][name]


def test_some_flat_images_lend_too_little():
    assert all(set(row) == {"bits", "rest", "lent", "overdrawn"} for row in RESULT["edge"].values())
    assert all(row["overdrawn"] == (row["lent"] > row["rest"]) and row["lent"] <= row["rest"] + 32 for row in RESULT["edge"].values())
    assert RESULT["edge"]["black"]["overdrawn"] == 1 and RESULT["edge"]["noise"]["overdrawn"] == 0


def test_the_first_images_come_out_again():
    try:
        images = data.cifar10("test", 4)
    except MissingData as error:
        pytest.skip(str(error))
    _, row = bench_arib.alone(zoo.load(ARIB), images)
    for key, values in row.items():
        assert np.array_equal(values, MODELS[ARIB][key][:4]), key
    _, row = bench_arib.alone(zoo.load(DETERMINISTIC), images)
    assert np.array_equal(row["bits"], MODELS[DETERMINISTIC]["bits"][:4])
    row = bench_arib.with_initial_bits(zoo.load(SHVC), images)
    assert np.array_equal(row["net"], MODELS[SHVC]["net"][:4]) and np.array_equal(row["initial"], MODELS[SHVC]["initial"][:4])


def test_a_stream_that_does_not_decode_is_noticed():
    twin = zoo.load(ARIB)
    streams, _ = bench_arib.alone(twin, TILES)
    bench_arib.decoded_alone(twin, TILES, streams)
    with pytest.raises(InvalidInput, match="did not come back"):
        bench_arib.decoded_alone(twin, TILES, [streams[1], streams[0], streams[2]])


def test_speed_and_parallel_run():
    twin = zoo.load(ARIB)
    assert set(bench_arib.speed(twin, np.concatenate([TILES] * 22), 1)) == {"encode alone", "decode alone", "encode 64 lanes", "decode 64 lanes"}

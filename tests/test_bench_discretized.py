"""The kept results of the discretised VAEs on Kodak: complete, of these networks, as good as the chapter says, and measured again in part."""

from pathlib import Path

import numpy as np
import pytest

from shvc_lib import bench_discretized, codec, data, metrics, results, zoo
from shvc_lib.errors import InvalidInput, MissingData

RESULT = results.load("kodak_discretized")
NETWORKS = bench_discretized.NETWORKS


def kodak(count):
    try:
        return data.kodak(count)
    except MissingData as error:
        pytest.skip(str(error))


def test_it_is_complete_and_of_the_networks_that_are_here():
    assert sorted(RESULT["networks"]) == sorted(NETWORKS)
    for name, entry in RESULT["networks"].items():
        assert entry["sha256"] == zoo.card(name)["sha256"] and entry["lambdas"] == list(zoo.load(name).lambdas)
        assert list(entry["points"]) == [str(point) for point in range(6)]
        for rows in entry["points"].values():
            assert sorted(rows) == [f"kodim{number:02d}" for number in range(1, 25)]
            assert all(len(row["layers"]) == zoo.load(name).layers for row in rows.values())
    assert set(RESULT["classical"]) == set(bench_discretized.CLASSICAL) and RESULT["published"] == bench_discretized.published()


@pytest.mark.parametrize("name", NETWORKS)
def test_the_files_hold_what_was_promised(name):
    """Ideal bits within half a per cent and a header of the file; what training believed within 2 % at every rate, in the mean over the photographs."""
    entry = RESULT["networks"][name]
    for rows in entry["points"].values():
        for row in rows.values():
            assert row["ideal"] == pytest.approx(sum(row["layers"]), abs=1)
            assert 0 < row["bits"] - row["ideal"] < 0.001 * row["ideal"] + 500
    curve = bench_discretized.curve(entry)
    assert np.abs(np.array(curve["rate"]) / curve["training"] - 1).max() < 0.02
    assert all(noise > rate for noise, rate in zip(curve["noise"], curve["rate"]))  # the free energy's own rate is too high, most at the coarse end
    assert curve["noise"][0] / curve["rate"][0] > curve["noise"][-1] / curve["rate"][-1]


def test_more_layers_are_better_and_how_good_they_are():
    one, three, twelve = (RESULT["bd_rate"][name]["psnr"]["JPEG"] for name in ("dvae-1", "dvae-3", "dvae-12"))
    assert twelve < three < one < 0
    assert RESULT["bd_rate"] == bench_discretized.bd_rates(RESULT["networks"], RESULT["classical"])


@pytest.mark.parametrize("name", NETWORKS)
def test_a_file_is_written_again(name):
    image, kept = kodak(1)[0], RESULT["networks"][name]["points"]["1"]["kodim01"]
    file = codec.encode(image, model=name, quality=2)
    assert 8 * len(file) == pytest.approx(kept["bits"], rel=2e-3)  # the analysis is in floating point: another machine may round a latent to another side
    assert metrics.psnr(image, codec.decode(file)) == pytest.approx(kept["psnr"], abs=0.01)


def test_a_file_of_another_benchmark_is_not_written_over(tmp_path):
    (tmp_path / "other.json").write_text("{}")
    kodak(1)
    arguments = type("Arguments", (), {"json": str(tmp_path / "other.json"), "models": [], "count": 1})
    with pytest.raises(InvalidInput, match="name another"):
        bench_discretized.main(arguments, {})
    assert (tmp_path / "other.json").read_text() == "{}"


def test_the_table_in_the_readme():
    """BD-rates, rounded to whole per cents."""
    text = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    columns = {"JPEG": "JPEG", "JPEG, standard tables": "JPEG standard tables", "WebP": "WebP", "JPEG XL": "JPEG XL", "HEVC intra": "HEVC"}
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in text.splitlines() if line.startswith(("| | JPEG |", "| `dvae-"))]
    assert rows[0][1:] == list(columns) and [row[0].strip("`") for row in rows[1:]] == list(NETWORKS)
    for name, *cells in rows[1:]:
        found = [f"{RESULT['bd_rate'][name.strip('`')]['psnr'][key]:+.0f} %".replace("-", "−") for key in columns.values()]
        assert cells == found

"""What README.md tells a newcomer to type works, and what it claims is so."""

import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from shvc_lib import data
from shvc_lib.images import read_image, write_image

ROOT = Path(__file__).resolve().parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [README, (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"),
         (ROOT / "book" / "how_to_use.md").read_text(encoding="utf-8")]
spec = importlib.util.spec_from_file_location("readme_results", ROOT / "tools" / "readme_results.py")
results = importlib.util.module_from_spec(spec)
spec.loader.exec_module(results)


def code_blocks(text, language=""):
    return re.findall(rf"^```{language}\n(.*?)^```", text, re.S | re.M)


def table():
    """The results as printed: {photograph: {column: "3.141"}}."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")]
            for line in results.BLOCK.search(README)[0].splitlines() if line.startswith("|")]
    return {row[0]: dict(zip(rows[0][1:], row[1:])) for row in rows[2:]}


@pytest.fixture
def photo(tmp_path):
    """A folder with the README's photo.png in it: a corner of a real photograph."""
    image = data.photograph("chelsea")[:64, :48]
    write_image(tmp_path / "photo.png", image)
    return tmp_path


def test_every_make_target_that_is_named_exists():
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M))
    named = {name for page in PAGES for pair in re.findall(r"^make ([a-z-]+)$|`make ([a-z-]+)`", page, re.M)
             for name in pair if name}
    assert {"book", "test"} <= named <= targets


def test_the_codec_in_three_lines(photo):
    block = next(block for block in code_blocks(README) if block.startswith("shvc encode"))
    lines = block.splitlines()
    assert len(lines) == 3
    for line in lines:
        program, *arguments = shlex.split(line)
        assert program == "shvc"
        done = subprocess.run([sys.executable, "-m", "shvc_lib.cli", *arguments], cwd=photo, capture_output=True, text=True,
                              env={**os.environ, "PYTHONPATH": str(ROOT)})
        assert done.returncode == 0, done.stderr
    assert (read_image(photo / "back.png") == read_image(photo / "photo.png")).all()


def test_the_same_in_python(photo, monkeypatch):
    (block,) = code_blocks(README, "python")
    monkeypatch.chdir(photo)
    exec(compile(block, "README.md", "exec"), {})


def test_python_versions_are_those_of_the_package():
    low, high = re.search(r'requires-python = ">=3\.(\d+),<3\.(\d+)"', (ROOT / "pyproject.toml").read_text(encoding="utf-8")).groups()
    for page in (README, PAGES[2]):
        assert f"Python 3.{low} to 3.{int(high) - 1}" in page


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)|(?:src|srcset)=\"([^\"]+)\"", README)
    local = [a or b for a, b in targets if not (a or b).startswith("http")]
    assert local and [path for path in local if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("row", re.findall(r"^\| (\d) \| .*? \| (.*?) \| (written|to come) \|$", README, re.M), ids=lambda row: row[0])
def test_a_chapter_is_called_written_when_its_notebooks_are_there(row):
    number, titles, status = row
    notebooks = [path for path in sorted((ROOT / "book").glob(f"{number}_*/*.ipynb")) if "checkpoint" not in path.name]
    assert len(notebooks) == (len(titles.split(" · ")) if status == "written" else 0)


def test_seven_chapters_are_listed():
    assert re.findall(r"^\| (\d) \|", README, re.M) == list("1234567")


def test_the_table_has_every_photograph_and_linear_beats_png_on_each():
    printed = table()
    assert tuple(printed) == data.PHOTOGRAPHS
    assert all(float(row["`linear`"]) < float(row["PNG"]) for row in printed.values())


def test_the_landing_page_claims_what_the_table_shows():
    names = ["astronaut", "coffee", "motorcycle"]  # no trace of a lossy past: see the data card
    printed = table()
    total = {column: sum(float(printed[name][column]) * data.photograph(name).size for name in names) for column in printed[names[0]]}
    text = " ".join((ROOT / "book" / "intro.md").read_text(encoding="utf-8").split())
    less, more = re.search(r"writes (\d+) % fewer bytes than PNG, fewer than WebP, and at most (\d+) % more than JPEG XL", text).groups()
    assert round(100 * (1 - total["`linear`"] / total["PNG"])) == int(less)
    assert total["`linear`"] < total["WebP"]
    assert total["JPEG XL"] * (1 + (int(more) - 1) / 100) < total["`linear`"] < total["JPEG XL"] * (1 + int(more) / 100)
    kodak = json.loads((ROOT / "data" / "results" / "kodak_shvc.json").read_text(encoding="utf-8"))["mean_bits_per_dim"]
    smaller = re.search(r"the files of the 24 Kodak photographs are (\d) % smaller than JPEG XL's", text)[1]
    assert round(100 * (1 - kodak["linear-net"] / kodak["JPEG XL effort 9"])) == int(smaller)


@pytest.mark.parametrize("name", ["chelsea"])
def test_a_slice_of_the_table_measured_again(name):
    printed = table()[name]
    codecs = ["PNG", "WebP"] + ["JPEG XL"] * bool(importlib.util.find_spec("imagecodecs"))
    again = results.measure(data.photograph(name), codecs)
    for model in results.MODELS:
        assert f"{again.pop(f'`{model}`'):.3f}" == printed[f"`{model}`"], "run python tools/readme_results.py"
    for codec, bits in again.items():  # another version of a classical codec may be a little better or worse
        assert bits == pytest.approx(float(printed[codec]), rel=0.01), "run python tools/readme_results.py"


def test_the_picture_is_described_alike_everywhere():
    alts = {re.search(r'alt="([^"]+)"', README)[1]}
    alts |= set(re.findall(r"^:alt: (Four stacks.*)$", (ROOT / "book" / "intro.md").read_text(encoding="utf-8"), re.M))
    assert len(alts) == 1


def test_kodak_means_are_those_of_the_kept_result():
    kept = json.loads((ROOT / "data" / "results" / "kodak_lossless.json").read_text(encoding="utf-8"))["mean_bits_per_dim"]
    names = {"PNG": "PNG", "JPEG 2000": "JPEG 2000", "WebP": "WebP slowest", "`linear`": "linear", "JPEG XL": "JPEG XL effort 9"}
    sentence = " ".join(re.search(r"On the 24 Kodak images.*?JPEG XL \(", README, re.S)[0].split())
    printed = {name: value for value, name in re.findall(r"(\d\.\d{3}) for (`linear`|[A-Z][A-Za-z0-9 ]*?)(?=,| and| \()", sentence)}
    assert printed == {name: f"{kept[key]:.3f}" for name, key in names.items()}


def test_what_the_networks_reach_is_the_kept_result():
    cifar, kodak = (json.loads((ROOT / "data" / "results" / f"{name}.json").read_text(encoding="utf-8")) for name in ("shvc_cifar10", "kodak_shvc"))
    alone, models = {name: f"{row['alone']:.3f}" for name, row in cifar["classical"].items()}, cifar["models"]
    expected = {"PNG": alone["PNG"], "WebP": alone["WebP slowest"], "JPEG XL": alone["JPEG XL effort 9"],
                "JPEG XL, one mosaic": f"{cifar['classical']['JPEG XL effort 9']['mosaic']:.3f}",
                **{f"`{name}`": f"{models[name]['actual']:.3f}" for name in ("shvc-arib-cifar10", "shvc-lite-cifar10", "shvc-pixels-cifar10", "shvc-cifar10")}}
    heads, _, values = re.search(r"^(\| PNG \| WebP \| JPEG XL \| JPEG XL, one mosaic.*)\n(.*)\n(.*)$", README, re.M).groups()
    assert dict(zip(*([cell.strip() for cell in line.strip("|").split("|")] for line in (heads, values)))) == expected
    sentence, means = " ".join(README.split()), kodak["mean_bits_per_dim"]
    assert (f"{means['WebP slowest']:.3f} for WebP, {means['shvc-arib-photo']:.3f} for `shvc-arib-photo`, {means['linear']:.3f} for `linear`, "
            f"{means['JPEG XL effort 9']:.3f} for JPEG XL at effort 9, {means['linear-net-fast']:.3f} for `linear-net-fast`, "
            f"{means['shvc-photo']:.3f} for `shvc-photo` and {means['linear-net']:.3f} for `linear-net`") in sentence
    ratio, fitted, fast, learned, linear = kodak["ratio"], *(kodak[key]["ratio"] for key in ("fitted", "fast", "learned", "linear"))
    assert (f"takes {ratio['encode']:.1f} times as long as JPEG XL at effort 9 to encode and {ratio['decode']:.1f} times as long to decode; `shvc-arib-photo` takes "
            f"{learned['encode']:.1f} times and {learned['decode']:.0f} times as long, `linear-net` {fitted['encode']:.1f} times and {fitted['decode']:.1f} times, `linear-net-fast` {fast['encode']:.1f} times and {fast['decode']:.1f} times, and "
            f"`linear`, which encodes with one, {linear['encode']:.1f} times and {linear['decode']:.1f} times") in sentence
    group = models["shvc-cifar10"]["groups"]
    assert f"An album of `shvc-cifar10` in groups of {group['chain']} has {group['bits_per_dim']:.3f}, its index and all." in sentence
    sizes = {(row["image"], row["codec"]): row["bytes"] for row in kodak["rows"]}
    wins = {pair: sum(size < sizes[image, pair[1]] for (image, name), size in sizes.items() if name == pair[0])
            for pair in (("linear-net", "JPEG XL effort 9"), ("shvc-photo", "JPEG XL effort 9"), ("linear-net-fast", "JPEG XL effort 9"), ("linear", "shvc-arib-photo"))}
    assert "`linear-net` is smaller than JPEG XL on {} of the 24, `shvc-photo` on {}, `linear-net-fast` on {}, and `linear` smaller than `shvc-arib-photo` on {}:".format(*wins.values()) in sentence

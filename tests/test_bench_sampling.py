"""The sampling benchmark: what it measures is what the samplers do. No test here looks at a time's size."""

import math

import numpy as np
import pytest

from shvc_lib import bench, bench_sampling, data, lossy, metrics, zoo
from shvc_lib.sampling import dither, poisson, tree

FIELDS = {"name", "ideal", "actual", "bias", "looked_at", "encode", "decode"}
EXACT = ("rejection", "Poisson functional", "A*", "greedy Poisson", "dithered quantisation")


@pytest.mark.parametrize("kl", bench_sampling.DIVERGENCES)
def test_the_targets_are_worth_what_they_say(kl):
    target, proposal = bench_sampling.gaussians(kl, (3, 4))
    assert target.shape == (3, 4) and target.kl(proposal) == pytest.approx(kl, abs=1e-9)


@pytest.fixture(scope="module")
def rows():
    return {(dims, row["name"]): row for _, dims, row in bench_sampling.sampler_rows(512, [2])}


def test_every_sampler_has_a_row(rows):
    assert len(rows) == 13 and all(set(row) == FIELDS for row in rows.values())
    for (dims, name), row in rows.items():
        bytes_to_spare = 8 * 8 * dims / 512  # the stack's last words
        assert row["ideal"] <= row["actual"] < row["ideal"] + bytes_to_spare and row["encode"] > 0 < row["decode"], name
        assert 0.3 / math.sqrt(512) < row["bias"], name


def test_what_the_samplers_are_known_for(rows):
    """At KL 2: exact ones within the noise of 512 samples, and what each spends and looks at."""
    for (dims, name), row in rows.items():
        if name in EXACT:
            assert row["bias"] < 1.95 / math.sqrt(512), name  # passed by 999 of 1000
        assert (1.5 if dims == 1 else 2) < row["actual"] < (5.5 if dims == 1 else 7), name
    one = {name: row for (dims, name), row in rows.items() if dims == 1}
    blocks = {name: row for (dims, name), row in rows.items() if dims == 8}
    assert one["importance, t = 3"]["ideal"] == 5 and one["importance, t = 3"]["looked_at"] == one["ordered, t = 3"]["looked_at"] == 32
    assert blocks["importance, t = 3"]["ideal"] == 5 and blocks["importance, t = 3"]["looked_at"] == 32
    assert one["dithered quantisation"]["looked_at"] == 1 and one["dithered quantisation"]["ideal"] == pytest.approx(2.52, abs=0.15)
    assert one["greedy, 32 at a time"]["ideal"] == 2 and one["greedy, 32 at a time"]["looked_at"] == 8 * 256 and one["greedy, 32 at a time"]["bias"] > 0.1
    assert one["groups of 8 + 3 bits"]["looked_at"] == 2048 and 3.5 < one["groups of 8 + 3 bits"]["ideal"] < 4.5
    assert one["tree, 128 survivors"]["ideal"] == pytest.approx(2.125, abs=0.02) and one["tree, 128 survivors"]["bias"] < 0.08
    assert 2 < one["greedy Poisson"]["looked_at"] < one["A*"]["looked_at"] < one["Poisson functional"]["looked_at"] < 16
    for name in ("rejection", "Poisson functional", "A*", "greedy Poisson", "ordered, t = 3"):
        assert 3 < one[name]["ideal"] < 4.2 < one["importance, t = 3"]["ideal"]


def test_candidates_are_counted():
    """By the samplers' own numbers where they have them: A*'s nodes, the tree's beam."""
    target, proposal = bench_sampling.gaussians(3, (64,))
    samplers = {sampler.name: sampler for sampler in bench_sampling.one_by_one()}
    assert samplers["A*"].looked_at(target, proposal, 1) == poisson.search(target, proposal, 1, "a_star").visited.mean()
    plan = tree.plan(np.full(1024, 3 << 16), bench_sampling.SEED)
    assert len(plan.dims) == 4 and samplers["tree, 128 survivors"].looked_at(*bench_sampling.gaussians(3, (1024,)), 1) == tree.candidates(plan) / 256
    index = samplers["rejection"].encode(target, proposal, 1)
    assert index.mean() + 1 <= samplers["rejection"].looked_at(target, proposal, 1) < 300


def test_long_searches_are_left_out(monkeypatch):
    monkeypatch.setattr(bench_sampling, "one_by_one", list)
    names = [(kl, row["name"]) for kl, dims, row in bench_sampling.sampler_rows(64, [0.5, 8]) if dims == 8]
    assert (0.5, "Poisson functional") in names and (8, "Poisson functional") not in names and len(names) == 5


def test_an_index_that_does_not_come_back_is_no_row():
    sampler = bench_sampling.one_by_one()[-1]
    codec = sampler.codec

    def flipped(index, target, proposal):
        made = codec(index, target, proposal)
        return made._replace(pop=lambda stack: made.pop(stack) ^ 1)

    with pytest.raises(AssertionError, match="did not come back"):
        bench_sampling.measure(sampler._replace(codec=flipped), *bench_sampling.gaussians(1, (32,)))
    shifted = bench_sampling.measure(sampler._replace(decode=lambda *arguments: sampler.decode(*arguments) + 2), *bench_sampling.gaussians(1, (32,)))
    assert shifted["bias"] > 0.9  # and a sample elsewhere is a bias


def test_the_photograph(monkeypatch, tmp_path):
    """Kodak's first where there is one, else an embedded one; 768 x 512 both."""
    monkeypatch.setenv("SHVC_DATA", str(tmp_path))
    what, image = bench_sampling.photograph()
    assert "coffee" in what and image.shape == (512, 768, 3) and np.array_equal(image[:400, :600], data.photograph("coffee"))
    monkeypatch.setattr(data, "kodak", lambda count: [image[::-1]] * count)
    assert bench_sampling.photograph()[0] == "Kodak image 1" and np.array_equal(bench_sampling.photograph()[1], image[::-1])


def test_rows_of_the_codec():
    """Two qualities of a small image: bytes and PSNR are the codec's, the parts are all there, and nothing stays patched."""
    image = data.photograph("astronaut")[:64, :128]
    before = tree.encode, tree.standard
    rows = list(bench_sampling.codec_rows(image, ["pln"], [1, 4], repeats=2))
    for row, quality in zip(rows, (1, 4), strict=True):
        coded = bench_sampling.files.encode(image, "pln", quality)
        assert row["bytes"] == len(coded) and row["bpp"] == len(coded) / 1024 and row["quality"] == quality
        assert row["psnr"] == metrics.psnr(image, bench_sampling.files.decode(coded))
        assert all(len(row[way]) == 3 and min(row[way]) > 0 for way in ("encode", "decode"))
    assert (tree.encode, tree.standard) == before and rows[0]["bytes"] < rows[1]["bytes"]


def test_the_clock_hears_every_part():
    from shvc_lib.models.ladder_codec import Latents

    places = [(tree, "plan"), (tree, "encode"), (tree, "standard"), (dither, "encode"), (dither, "decode"),
              *((Latents, name) for name in ("evidence", "upper", "lower", "picture"))]
    before = [getattr(*place) for place in places]
    with bench_sampling._parts() as seconds:
        assert all(getattr(*place) is not old for place, old in zip(places, before))
        tree.plan([1], 0)
        sampler = seconds["sampler"]
        assert sampler > 0 == seconds["network"]
        with pytest.raises(AttributeError):
            Latents.upper(None)
        assert seconds["network"] > 0 and seconds["sampler"] == sampler
    assert [getattr(*place) for place in places] == before


def test_command_prints_both_tables(monkeypatch, capsys):
    monkeypatch.setattr(bench_sampling, "DIVERGENCES", (1,))
    monkeypatch.setattr(bench_sampling.sampler_rows, "__defaults__", (64, (1,)))
    monkeypatch.setattr(bench_sampling, "photograph", lambda: ("a test", data.photograph("astronaut")[:64, :64]))
    monkeypatch.setattr(lossy, "ABOUT", {"pln": "", "no-such-network": ""})
    assert "pln" in zoo.names() and bench.main(["sampling", "--samples", "64"]) == 0
    printed = capsys.readouterr().out
    assert printed.count("importance, t = 3") == 2 and "64 x 64: a test" in printed and sum(line.startswith("pln ") for line in printed.splitlines()) == 5
    assert bench.main(["sampling", "--samples", "33"]) == 1 and bench.main(["sampling", "--samples", "0"]) == 1
    assert capsys.readouterr().err.count("\n") == 2

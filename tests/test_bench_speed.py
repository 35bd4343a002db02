"""The speed benchmark codes and decodes what it times; no test here looks at a time's size."""

import numpy as np
import pytest

from shvc_lib import bench, bench_speed, data, zoo
from shvc_lib.coding import BitStack, logistic
from shvc_lib.models import binary_vae

FIELDS = {"name", "lanes", "images", "bits_per_dim", "encode", "encode_network", "decode", "decode_network", "words"}


@pytest.fixture(scope="module")
def twin():
    return bench_speed.train_binary(steps=30)


def test_rows_of_the_binary_vae(twin):
    chain, plain, lanes = bench_speed.binary_rows(twin, count=12, lanes=4, repeats=1)
    for row, expected in ((chain, (1, 12)), (plain, (1, 12)), (lanes, (4, 12))):
        assert set(row) == FIELDS and (row["lanes"], row["images"]) == expected
        assert 0 < row["encode_network"] < row["encode"] and 0 < row["decode_network"] < row["decode"]
        assert 0.5 < row["bits_per_dim"] < 1.5
    stack = BitStack.random(bench_speed.INITIAL_BITS)
    for image in binary_vae.binary_patches([data.photograph("coffee")], 12, seed=1):
        binary_vae.codec(twin).push(stack, image)
    assert np.array_equal(stack.words(), chain["words"]) and np.array_equal(chain["words"], plain["words"])
    assert "posterior" not in vars(twin) and "likelihood" not in vars(twin)  # the clock has been taken out


def test_rows_of_a_trained_network():
    rows = list(bench_speed.photograph_rows("vae-stochastic-1", count=2, lanes=2, repeats=1))
    assert [row["lanes"] for row in rows] == [1, 2, 1, 2] and all(set(row) == FIELDS for row in rows)
    assert len({row["name"] for row in rows}) == 2 and "Bit-Swap" in rows[0]["name"] and "BB-ANS" in rows[2]["name"]


def test_an_error_is_no_row(twin):
    codec = binary_vae.codec(twin)
    images = binary_vae.binary_patches([data.photograph("coffee")], 2)
    flipped = codec._replace(pop=lambda stack: codec.pop(stack) ^ np.uint8(1))
    twice = codec._replace(push=lambda stack, x: (codec.push(stack, x), codec.push(stack, x)))
    for wrong in (flipped, twice):
        with pytest.raises(AssertionError, match="did not come back"):
            bench_speed.measure("wrong", twin, wrong, images, BitStack.random(5000), 1)


def test_the_plain_stack_is_the_stack():
    rng = np.random.default_rng(0)
    cdf = logistic(rng.integers(0, 1600, (5, 8)), rng.integers(20, 100, (5, 8)), 100, rng.integers(-9, 9, (5, 8)))
    symbols = rng.integers(0, 100, (5, 8)) + cdf.lower
    stack = BitStack.random(3000)
    plain = bench_speed.PythonStack(stack.words())
    stack.push(symbols, cdf), plain.push(symbols, cdf)
    assert stack.words().tolist() == plain.words()
    assert np.array_equal(plain.pop(cdf), symbols) and np.array_equal(plain.pop(cdf), (stack.pop(cdf), stack.pop(cdf))[1])
    assert plain.words() == stack.words().tolist() == plain.copy().words()


def test_command_prints_the_table(monkeypatch, capsys, twin):
    rows = bench_speed.binary_rows
    monkeypatch.setattr(bench_speed, "train_binary", lambda: twin)
    monkeypatch.setattr(bench_speed, "binary_rows", lambda twin: rows(twin, count=4, lanes=2, repeats=1))
    monkeypatch.setattr(bench_speed, "photograph_rows", lambda name: iter([]))
    assert bench.main(["bits-back", *zoo.names()[:1]]) == 0
    printed = capsys.readouterr().out
    assert printed.count("BinaryVAE") == 4 and "30 / 48 ms" in printed and "measured elsewhere" in printed
    assert bench.main(["bits-back", "no-such-network"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

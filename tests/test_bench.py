"""The benchmarks run and decode what they encode; no test here looks at a time."""

from shvc_lib import bench


def test_coding_benchmark_is_exact_and_counts_bits():
    ours, theirs = bench.coding(count=2000, custom_count=64, repeats=1)
    assert ours[1] == 2000 and 0 <= ours[5] - ours[4] <= 64
    assert theirs[1] == 64 and all(seconds > 0 for seconds in (*ours[2:4], *theirs[2:4]))


def test_command_prints_a_table(capsys):
    assert bench.main(["coding", "--symbols", "4096"]) == 0
    assert "CustomModel" in capsys.readouterr().out
    assert bench.main(["images", "--images", "no/such/folder"]) == 1
    assert capsys.readouterr().err.count("\n") == 1

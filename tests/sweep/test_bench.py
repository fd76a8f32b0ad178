"""The benchmarks on what is too small to mean anything: that they run, compare the same thing, and refuse mistakes."""

import csv
import re

import pytest

from kernels.bench.convolutions import main as convolutions
from sweep.bench.__main__ import main as sweep_bench

SMALL = ["--arch", "cnn", "--norms", "batch", "--depths", "8", "--width", "2"]
SMALL += ["--seeds", "0", "--batch-size", "8", "--probe-batch-size", "8"]


def test_a_sweep_beside_a_loop(capsys):
    assert sweep_bench([*SMALL, "--rounds", "1"]) == 0
    assert re.search(r"loop over Flax networks .* \d", capsys.readouterr().out)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norms", "batch", "none"], "sweep.bench takes one of --norms"),
        (["--norms", "batch", "--optimizer", "adam"], "sweep.bench compares SGD at a constant rate"),
        (["--norms", "batch", "--rounds", "none"], "--rounds takes a whole number of at least 1, got 'none'"),
        (["--norms", "batch", "--rounds"], "--rounds is empty; give a value"),
        (["--dephts", "2"], "unknown flag '--dephts'"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    assert sweep_bench(arguments) == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m sweep.bench: error: " + message)
    assert error.count("\n") == 1


def test_convolutions(tmp_path, capsys):
    path = tmp_path / "results.csv"
    convolutions(["--quick", "--csv", str(path)])
    assert "loop takes" in capsys.readouterr().out
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["contestant"] for row in rows} >= {"fathom", "loop", "vmap", "fathom in scan"}
    assert all(float(row["median"]) > 0 for row in rows)

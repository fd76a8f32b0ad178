"""The benchmark, on shapes too small to mean anything: what it writes, and what it refuses."""

import csv
import json

import matplotlib.image
import pytest

from kernels.bench.__main__ import main
from kernels.bench.workloads import Workload


def test_everything_it_writes(tmp_path, capsys):
    files = {kind: tmp_path / f"results.{kind}" for kind in ("json", "csv", "png")}
    asked = ["--shapes", "16x8", "4x3x8", "--only", "xla", "flax", "reference", "--rounds", "1"]
    asked += ["--json", str(files["json"]), "--csv", str(files["csv"]), "--plot", str(files["png"])]
    main(asked)
    main(asked)
    assert "xla against flax" in capsys.readouterr().out
    written = json.loads(files["json"].read_text())
    found = {(r["workload"], r["contestant"], r["part"]) for r in written["results"]}
    parts = ("forward", "keeping", "backward", "both")
    shapes = ("16x8 float32 relu", "4x3x8 float32 relu")
    raced = {(shape, name, part) for shape in shapes for name in ("xla", "flax", "reference") for part in parts}
    assert found == raced | {(shape, "copy", "forward") for shape in shapes}
    assert all(r["lower_quartile"] <= r["median"] <= r["upper_quartile"] for r in written["results"])
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(written["results"])  # the second run is appended
    assert rows[0]["jax"] == written["environment"]["jax"]
    assert matplotlib.image.imread(files["png"]).std() > 0.01


def test_bandwidth_counts_what_must_be_moved():
    plain, fused = Workload((4, 5), relu=False), Workload((4, 5), relu=True, residual=True)
    assert [plain.traffic(part) for part in ("forward", "keeping", "backward", "both")] == [160, 160, 240, 400]
    # Forward: x and residual in, y out. Backward: x, y's cotangent and y in, two cotangents out.
    assert [fused.traffic(part) for part in ("forward", "backward", "both")] == [240, 400, 640]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--only", "cudnn"], "argument --only: invalid choice: 'cudnn'"),
        (["--only", "pallas"], "argument --only: pallas cannot run: batch_norm: implementation 'pallas' needs"),
        (["--shapes", "12"], "argument --shapes: expected sizes like 256x16x16x128, features last, got '12'"),
        (["--rounds", "0"], "argument --rounds: expected at least 1, got 0"),
        (["--csv", "nowhere/x.csv"], "argument --csv: there is no folder nowhere"),
    ],
)
def test_a_mistake_is_one_line_and_exit_code_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("python -m kernels.bench: error: " + message)
    assert error.count("\n") == 1

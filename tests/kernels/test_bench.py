"""The benchmark, on shapes too small to mean anything: what it writes, and what it refuses."""

import csv
import json
import math
from importlib.util import find_spec

import matplotlib.image
import pytest

from kernels.bench.__main__ import main
from kernels.bench.report import summary
from kernels.bench.timing import Result
from kernels.bench.workloads import Workload


def test_everything_it_writes(tmp_path, capsys):
    files = {kind: tmp_path / f"results.{kind}" for kind in ("json", "csv", "png")}
    asked = ["--shapes", "16x8", "4x3x8", "--only", "xla", "flax", "--rounds", "1"]
    asked += ["--json", str(files["json"]), "--csv", str(files["csv"]), "--plot", str(files["png"])]
    main(asked)
    main(asked)
    assert "xla against flax" in capsys.readouterr().out
    written = json.loads(files["json"].read_text())
    found = {(r["workload"], r["contestant"], r["part"]) for r in written["results"]}
    parts = ("forward", "keeping", "backward", "both")
    shapes = ("16x8 float32 relu", "4x3x8 float32 relu")
    raced = {(shape, name, part) for shape in shapes for name in ("xla", "flax") for part in parts}
    assert found == raced | {(shape, "copy", "forward") for shape in shapes}
    assert all(r["lower_quartile"] <= r["median"] <= r["upper_quartile"] for r in written["results"])
    with files["csv"].open() as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * len(written["results"])  # the second run is appended
    assert rows[0]["jax"] == written["environment"]["jax"]
    assert matplotlib.image.imread(files["png"]).std() > 0.01


@pytest.mark.slow
def test_quick_in_another_dtype_with_pytorch_where_it_is(tmp_path):
    file = tmp_path / "results.json"
    contestants = {"xla", "flax"} | ({"torch"} if find_spec("torch") else set())
    main(["--quick", "--dtype", "bfloat16", "--only", *contestants, "--json", str(file)])
    results = json.loads(file.read_text())["results"]
    assert {r["workload"] for r in results} == {"24x128x64 members bfloat16 relu", "128x16x16x32 bfloat16 relu"}
    assert {r["contestant"] for r in results} == contestants | {"copy"}
    assert all(r["median"] > 0 for r in results)


def test_shapes_may_be_members(capsys):
    main(["--shapes", "members:3x8x4", "--only", "xla", "--rounds", "1"])
    assert "3x8x4 members float32 relu" in capsys.readouterr().out


def test_ratios_are_of_medians():
    """Twice and eight times as fast: four times in geometric mean, twice at worst; each implementation has a line."""

    def result(workload, contestant, median):
        return Result(workload, contestant, "both", median, *[math.nan] * 6)

    times = {"xla": (1.0, 1.0), "pallas": (0.5, 0.5), "flax": (2.0, 8.0), "copy": (0.1, 0.1)}
    results = [result(f"shape {i}", name, each[i]) for i in range(2) for name, each in times.items()]
    assert summary(results) == [
        "both: xla against pallas: 0.50x in geometric mean, 0.50x at worst",
        "both: xla against flax: 4.00x in geometric mean, 2.00x at worst",
        "both: pallas against xla: 2.00x in geometric mean, 2.00x at worst",
        "both: pallas against flax: 8.00x in geometric mean, 4.00x at worst",
    ]


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
        (
            ["--shapes", "12"],
            "argument --shapes: expected sizes, features last, like 256x16x16x128 or members:24x128x64, got '12'",
        ),
        (
            ["--shapes", "members:8x4"],
            "argument --shapes: expected sizes, features last, like",
        ),
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

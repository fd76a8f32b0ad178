"""The benchmarks on what is too small to mean anything: that they run, compare the same thing, and refuse mistakes."""

import csv
import json
import re
from dataclasses import replace
from functools import lru_cache

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

from kernels.bench.convolutions import main as convolutions
from sweep import Config
from sweep.bench import growth, report
from sweep.bench.__main__ import impossible
from sweep.bench.__main__ import main as sweep_bench
from sweep.bench.compare import Result, check_alike
from sweep.bench.products import products
from sweep.bench.way import ComparisonError, Workload
from sweep.bench.ways import LIMIT, OURS, WAYS
from sweep.bench.worker import Worker
from sweep.data import load
from sweep.flops import count_flops

MLPS = Config(nets=("residual",), norms=("batch",), depths=(1, 3), seeds=(3, 0), width=6, batch_size=8, steps=5)
CNNS = replace(MLPS, arch="cnn", nets=("plain", "residual"), depths=(8,), width=2)
FEW = ["--depths", "1", "2", "--seeds", "0", "--width", "4", "--batch-size", "8", "--steps", "3"]


def workload(config):
    return Workload.of(config, load("digits", None))


@lru_cache
def losses(way, config):
    return WAYS[way](workload(config))().take(0, config.steps)


FAST = (("padded", "post"), ("torch", "post"))
NO_TORCH = "PyTorch is not installed"
CASES = [
    pytest.param(
        name,
        config,
        marks=[pytest.mark.peers] * (name == "torch") + [pytest.mark.slow] * ((name, label) not in FAST),
        id=f"{name}-{label}",
    )
    for label, config in {
        "post": MLPS,
        "pre without norm": replace(MLPS, norms=("none",), order="pre", activation="gelu"),
        "cnn": CNNS,
    }.items()
    for name in WAYS
    if name not in (OURS, LIMIT, "torch compiled") and impossible(name, config) in ("", NO_TORCH)
]


@pytest.mark.parametrize(("name", "config"), CASES)
def test_every_way_trains_the_same_networks(double, name, config):
    if impossible(name, config):
        pytest.skip(NO_TORCH)
    assert losses(OURS, config).shape == (5, 4)
    np.testing.assert_allclose(losses(name, config), losses(OURS, config), rtol=1e-8)


@pytest.mark.slow
def test_a_way_goes_on_where_it_stopped(double):
    at_once, in_parts = (WAYS[OURS](workload(MLPS))() for _ in range(2))
    parts = np.concatenate([in_parts.take(0, 2), in_parts.take(2, 3)])
    np.testing.assert_allclose(parts, at_once.take(0, 5), rtol=1e-12)


def test_products_are_counted():
    """Two per multiplication, forward and both gradients; the stem's input has none."""
    of_layers = 2 * 8 * (64 * 6 * 2 + 6 * 10 * 3) * 2 + 2 * 8 * 6 * 6 * 3 * (1 + 3)
    assert products(workload(MLPS)) == of_layers * len(MLPS.seeds)


def test_the_limit_computes_all_products_and_nothing_else():
    start = WAYS[LIMIT](workload(MLPS))()
    program = start._run.as_text()  # of one device, which here has every fourth of the members
    assert count_flops(program) > 0
    assert not re.search(r"\b(sqrt|rsqrt|maximum|exponential|divide)\(", program)


@pytest.mark.slow
def test_bfloat16_is_compared_too(tmp_path):
    path = tmp_path / "results.json"
    ways = [OURS, "padded", LIMIT]
    assert sweep_bench([*FEW, "--precision", "bfloat16", "--only", *ways, "--rounds", "1", "--json", str(path)]) == 0
    assert [row["way"] for row in json.loads(path.read_text())["results"]] == ways
    start = WAYS[LIMIT](workload(replace(MLPS, precision="bfloat16")))()
    assert "bf16[8,6]" in start._run.as_text()


def test_different_losses_end_it():
    ours = np.ones((6, 10))
    check_alike("one", "other", ours, ours + 1e-6)
    diverged = np.where(np.arange(10) == 3, np.nan, ours)
    check_alike("one", "other", diverged, diverged)
    check_alike("one", "other", ours * np.nan, ours * np.nan)
    learned = ours * (np.arange(6) < 4)[:, None]
    check_alike("one", "other", learned, learned)
    for theirs, step in (
        (ours + 0.2 * (np.arange(6) == 4)[:, None], 4),
        (ours * np.where(np.arange(10) == 3, 1.001, 1), 0),
        (ours + 0.2 * (np.arange(6) == 1)[:, None] * (np.arange(10) > 7), 1),
        (diverged, 0),
    ):
        with pytest.raises(ComparisonError, match=f"of one and of other differ at step {step}"):
            check_alike("one", "other", ours, theirs)


def test_a_ways_failure_is_told():
    with pytest.raises(ComparisonError, match=r"(?s)no such way failed:.*KeyError: 'no such way'"):
        Worker("no such way", workload(MLPS))


def test_what_is_said_of_times(tmp_path, capsys):
    """Twice and eight times as long a step: four times in geometric mean; the products alone take half of ours."""

    def result(workload, way, step):
        return Result(workload, way, step, step, step, 2.0, 5, 4 * step, 10**9, 1.0, 0.5)

    times = {OURS: (1.0, 1.0), "unrolled": (2.0, 8.0), LIMIT: (0.5, 0.5)}
    results = [result(f"sweep {i}", way, each[i]) for i in range(2) for way, each in times.items()]
    report.show(results, Console(width=200))
    printed = capsys.readouterr().out
    assert "unrolled takes 4.00 times as long a step, and 4.00 times from a cold start" in printed
    assert "fathom's step runs at 50% of the speed of its matrix products alone" in printed
    report.plot(results, tmp_path / "results.png")
    assert matplotlib.image.imread(tmp_path / "results.png").std() > 0.01


def test_what_is_said_of_growth(tmp_path):
    """Times made up: 3 us a layer, 2 s to compile and half a second for every distinct depth."""

    def point(grows, size):
        compiling = 2 + 0.5 * size if grows == "distinct depths" else 2.0
        return growth.Point(grows, size, 3e-6 * size, 2e-6 * size, 4e-6 * size, compiling)

    points = [point(grows, size) for grows, size, _ in growth.sweeps(MLPS, quick=False)]
    assert growth.summary(points) == [
        "a step takes 3.0 us a layer of a member, within 0% of that line through the origin",
        "compiling depths 2 and 1024 takes 1.00 times as long as 2 and 4",
        "compiling takes 2.00 s, and 0.50 s for every distinct depth",
    ]
    assert growth.table(points).row_count == len(points)
    growth.plot(points, tmp_path / "growth.png")
    assert matplotlib.image.imread(tmp_path / "growth.png").std() > 0.01


@pytest.mark.slow
def test_a_comparison(tmp_path, capsys):
    paths = {kind: tmp_path / f"results.{kind}" for kind in ("json", "csv", "png")}
    files = ["--json", str(paths["json"]), "--csv", str(paths["csv"]), "--plot", str(paths["png"])]
    assert sweep_bench([*FEW, *files, "--only", OURS, "unrolled", LIMIT, "--rounds", "2"]) == 0
    assert re.search(r"unrolled takes \d+\.\d\d times as long a step", capsys.readouterr().out)
    rows = json.loads(paths["json"].read_text())["results"]
    assert [row["way"] for row in rows] == [OURS, "unrolled", LIMIT]
    assert all(0 < row["compile_seconds"] < row["cold_seconds"] and row["peak_bytes"] > 1e8 for row in rows)
    with paths["csv"].open() as file:
        assert [row["way"] for row in csv.DictReader(file)] == [OURS, "unrolled", LIMIT]
    assert paths["png"].stat().st_size > 1000


@pytest.mark.slow
def test_growth(tmp_path, capsys):
    figure = tmp_path / "growth.png"
    assert sweep_bench([*FEW, "--growth", "--quick", "--rounds", "1", "--plot", str(figure)]) == 0
    assert "us a layer of a member" in capsys.readouterr().out
    assert figure.stat().st_size > 1000


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--norms", "batch", "none"], "sweep.bench takes one of --norms"),
        (["--optimizer", "adam"], "sweep.bench compares SGD at a constant rate"),
        (["--rounds", "none"], "argument --rounds: invalid int value: 'none'"),
        (["--rounds", "0"], "argument --rounds: expected at least 1, got 0"),
        (["--dephts", "2"], "unknown flag '--dephts'"),
        (["--plot", "figure.foo"], "argument --plot: expected one of ."),
        (["--csv", "README.md"], "argument --csv: README.md holds other columns"),
        (["--growth", "--arch", "cnn", "--depths", "8"], "--growth is of fathom's MLPs"),
        (["--arch", "cnn", "--depths", "8", "--only", "padded"], "--only: padded cannot run"),
        (["--json", "."], "argument --json: . is a folder"),
        (["--width", "0"], "--width must be at least 1"),
        (["--only", "fathm"], "argument --only: invalid choice: 'fathm'"),
        (["--arch", "cnn", "--depths", "8", "--only", LIMIT], f"--only: {LIMIT} cannot run: it is written for MLPs"),
        (["--plot", "no/such/folder.png"], "argument --plot: there is no folder no/such"),
    ],
)
def test_mistakes_are_one_line(arguments, message, capsys):
    with pytest.raises(SystemExit, match="2"):
        sweep_bench(arguments)
    error = capsys.readouterr().err
    assert error.startswith("python -m sweep.bench: error: " + message)
    assert error.count("\n") == 1


@pytest.mark.slow
def test_convolutions(tmp_path, capsys):
    path = tmp_path / "results.csv"
    convolutions(["--quick", "--csv", str(path)])
    assert "loop takes" in capsys.readouterr().out
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert {row["contestant"] for row in rows} >= {"fathom", "loop", "vmap", "fathom in scan"}
    assert all(float(row["median"]) > 0 for row in rows)

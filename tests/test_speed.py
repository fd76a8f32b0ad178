"""Ratios of times that must not get worse, far enough from what is measured for a noisy machine: alone, `-m speed`."""

import json
import os
import subprocess
import sys

import pytest

pytestmark = pytest.mark.speed


def results(tmp_path, module, *arguments):
    """What a benchmark's command writes, run without the tests' settings of XLA."""
    path = tmp_path / "results.json"
    tests_own = {"XLA_FLAGS", "JAX_COMPILATION_CACHE_DIR"}
    environment = {name: value for name, value in os.environ.items() if name not in tests_own}
    command = [sys.executable, "-m", module, *arguments, "--json", str(path)]
    subprocess.run(command, check=True, env=environment, stdout=subprocess.DEVNULL)
    return json.loads(path.read_text())["results"]


def test_a_sweeps_step_beside_what_one_would_write_instead(tmp_path):
    ways = ["fathom", "unrolled", "scanned", "padded"]
    sweep = ["--depths", "2", "4", "8", "16", "32", "--width", "64", "--steps", "20", "--rounds", "5"]
    steps = {row["way"]: row["step"] for row in results(tmp_path, "sweep.bench", *sweep, "--only", *ways)}
    ratios = {way: steps[way] / steps["fathom"] for way in ways[1:]}
    assert ratios["unrolled"] > 1.7, ratios
    assert ratios["scanned"] > 1.4, ratios
    assert ratios["padded"] > 2.5, ratios


def test_batch_norm_beside_flaxs(tmp_path):
    shapes = ["--shapes", "members:24x128x256", "128x32x32x64", "--only", "xla", "flax", "--rounds", "9"]
    times = {
        (row["workload"], row["contestant"]): row["median"]
        for row in results(tmp_path, "kernels.bench", *shapes)
        if row["part"] == "both"
    }
    ratios = {workload: times[workload, "flax"] / times[workload, "xla"] for workload, _ in times}
    assert min(ratios.values()) > 1.1, ratios

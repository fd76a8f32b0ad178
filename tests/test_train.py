"""The command as a user meets it: exit codes and what is printed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import analysis
from tests.tiers import slow

ROOT = Path(__file__).parents[1]
# A process started in the background may have been told to ignore Ctrl-C; this one is not.
INTERRUPTIBLE = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import train
train.command()
"""
SMALL = ["--depths", "1", "2", "--seeds", "0", "--width", "8", "--norms", "none"]
SMALL += ["--probe-batch-size", "16", "--spectrum-batch-size", "2", "--no-report"]


def train(*arguments, **kwargs):
    return subprocess.run(
        [sys.executable, "train.py", *map(str, arguments)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **kwargs,
    )


def test_a_mistake_is_one_line_and_exit_code_2(tmp_path):
    for arguments in (["--activation", "rellu"], ["--batch-size", "5000"]):
        done = train(*arguments, "--out", tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith("train.py: error: ")
        assert done.stderr.count("\n") == 1
        assert not done.stdout
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), slow(signal.SIGTERM, 143)])
def test_told_to_stop(tmp_path, number, code):
    process = subprocess.Popen(
        [sys.executable, "-c", INTERRUPTIBLE, *SMALL, "--steps", "1000000", "--out", str(tmp_path), "--name", "x"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    deadline = time.monotonic() + 120
    results = tmp_path / "x" / "results.zarr" / "train_loss" / "c"
    while not results.exists() and time.monotonic() < deadline:
        time.sleep(0.2)
    told = time.monotonic()
    os.kill(process.pid, number)
    out, err = process.communicate(timeout=60)
    assert time.monotonic() - told < 10
    assert process.returncode == code
    assert (
        err.strip() == f"interrupted; what was measured is in {tmp_path / 'x'}, and --resume {tmp_path / 'x'} goes on"
    )
    assert "Traceback" not in out + err
    results = analysis.load(tmp_path / "x")
    assert results.attrs["provenance"]["status"] == "interrupted"
    assert results.train_loss.isel(step=0).notnull().any()

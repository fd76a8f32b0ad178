"""Every script, run as a user runs it, on a small run."""

import io
import re
import runpy
import shutil
import subprocess
import sys
import warnings

import matplotlib.image
import matplotlib.pyplot as plt
import numpy as np
import pytest
from rich.console import Console

import analysis
from analysis.load import NotARunError, settings
from analysis.summary import rows
from sweep import Config, run
from tests.tiers import slow


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = Config(
        norms=("none",),
        depths=(1, 3),
        seeds=(0,),
        width=8,
        weight_std=(1.0, 1.4),
        batch_size=32,
        steps=3,
        probe_batch_size=16,
        spectrum_batch_size=2,
        out=tmp_path_factory.mktemp("runs"),
        name="small",
        report=False,
    )
    return run(config, Console(file=io.StringIO()))


@pytest.fixture
def script(monkeypatch, capsys):
    """A function that runs `python -m` in this process; returns the exit code and what was printed, also as errors."""

    def run_script(module, *arguments):
        monkeypatch.setattr(sys, "argv", [module, *map(str, arguments)])
        code = 0
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", ".*found in sys.modules", RuntimeWarning)  # not in a fresh process
            try:
                runpy.run_module(module, run_name="__main__", alter_sys=True)
            except SystemExit as stop:
                code = stop.code
        plt.close("all")
        return code, *capsys.readouterr()

    return run_script


@pytest.mark.parametrize(
    "name", ["spectra", *(slow(name) for name in ("gradients", "trainability", "drift", "density"))]
)
def test_one_figure(script, finished, tmp_path, name):
    code, printed, errors = script(f"analysis.{name}", finished, "--out", tmp_path)
    assert code == 0
    assert not errors
    files = [line for line in printed.splitlines() if line]
    assert len(files) >= 2  # one a setting
    for file in files:
        picture = matplotlib.image.imread(file)
        assert picture.shape[1] > 600
        assert np.ptp(picture[..., :3]) > 0.5


@pytest.mark.slow
def test_everything_and_the_report(finished):
    """In a process of its own, as a user runs it."""
    done = subprocess.run([sys.executable, "-m", "analysis.report", finished], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((finished / "figures").glob("*.png")))
    # Nothing on the page asks for a network.
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


def test_settings_split_the_members(finished):
    parts = settings(analysis.load(finished))
    assert [label for label, _ in parts] == ["weight_std=1", "weight_std=1.4"]
    assert sum(part.sizes["member"] for _, part in parts) == 8


def test_the_table_holds_the_numbers(finished):
    results = analysis.load(finished)
    row = next(r for r in rows(results) if r.quantity.startswith("test accuracy") and "1.4" in r.setting)
    chosen = (results.net.values == row.net) & (results.norm.values == row.norm) & (results.weight_std.values == 1.4)
    expected = results.test_accuracy.isel(probe_step=-1).values[chosen & (results.depth.values == 3)]
    assert row.cells[1] == f"{expected.mean():.3f}"


def test_no_run_there(script, tmp_path):
    line = f"analysis: error: {tmp_path} is not a run directory: it has no config.yaml\n"
    assert script("analysis.report", tmp_path) == (2, "", line)
    with pytest.raises(NotARunError):
        analysis.load(tmp_path)


def test_a_damaged_run_is_told_in_one_line(script, finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    chunk = copy / "results.zarr" / "train_loss" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    for name in ("report", "spectra"):
        code, _, errors = script(f"analysis.{name}", copy)
        assert code == 2
        assert errors.startswith(f"analysis: error: {copy} cannot be read: ")
        assert errors.count("\n") == 1

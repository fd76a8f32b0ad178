"""Every script, run as a user runs it, on a small run."""

import io
import re
import shutil
import subprocess
import sys

import matplotlib.image
import numpy as np
import pytest
from rich.console import Console

import analysis
from analysis.load import NotARunError, settings
from analysis.summary import rows
from sweep import Config, run

SCRIPTS = ["spectra", "gradients", "trainability", "drift", "density"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    config = Config(
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


def script(*arguments):
    return subprocess.run([sys.executable, "-m", *map(str, arguments)], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("name", SCRIPTS)
def test_one_figure(finished, tmp_path, name):
    done = script(f"analysis.{name}", finished, "--out", tmp_path)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    files = [line for line in done.stdout.splitlines() if line]
    assert len(files) >= 2  # one a setting
    for file in files:
        picture = matplotlib.image.imread(file)
        assert picture.shape[1] > 600
        assert np.ptp(picture[..., :3]) > 0.5


def test_everything_and_the_report(finished):
    done = script("analysis.report", finished)
    assert done.returncode == 0, done.stderr
    page = (finished / "report.html").read_text()
    assert page.count("data:image/png;base64,") == len(list((finished / "figures").glob("*.png")))
    # Nothing on the page asks for a network.
    assert not re.search(r'(src|href)="(?!data:)', page)
    assert "http" not in re.sub(r"base64,[^\"]*", "", page)


def test_settings_split_the_members(finished):
    parts = settings(analysis.load(finished))
    assert [label for label, _ in parts] == ["weight_std=1", "weight_std=1.4"]
    assert sum(part.sizes["member"] for _, part in parts) == 16


def test_the_table_holds_the_numbers(finished):
    results = analysis.load(finished)
    row = next(r for r in rows(results) if r.quantity.startswith("test accuracy") and "1.4" in r.setting)
    chosen = (results.net.values == row.net) & (results.norm.values == row.norm) & (results.weight_std.values == 1.4)
    expected = results.test_accuracy.isel(probe_step=-1).values[chosen & (results.depth.values == 3)]
    assert row.cells[1] == f"{expected.mean():.3f}"


def test_no_run_there(tmp_path):
    done = script("analysis.report", tmp_path)
    assert done.returncode == 2
    assert done.stderr.strip() == f"analysis: error: {tmp_path} is not a run directory: it has no config.yaml"
    with pytest.raises(NotARunError):
        analysis.load(tmp_path)


def test_a_damaged_run_is_told_in_one_line(finished, tmp_path):
    copy = shutil.copytree(finished, tmp_path / "copy")
    chunk = copy / "results.zarr" / "train_loss" / "c" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:20])
    for name in ("report", "spectra"):
        done = script(f"analysis.{name}", copy)
        assert done.returncode == 2
        assert done.stderr.startswith(f"analysis: error: {copy} cannot be read: ")
        assert done.stderr.count("\n") == 1

"""Figures of every probe, drawn of one small run; their sentences hold numbers that are in the data."""

import io
import re

import numpy as np
import pytest
import xarray as xr
from rich.console import Console

import analysis
from analysis import command, curves, density, drift, grid, report
from analysis.drawing import geometric_mean, joined, number
from analysis.load import kind
from probes import PROBES
from sweep import Config, run
from sweep.presets import PRESETS


def measured(folder, **settings):
    config = Config(
        depths=(1, 3),
        width=8,
        batch_size=32,
        steps=2,
        probe_steps=(),
        probe_batch_size=16,
        spectrum_batch_size=2,
        out=folder,
        name="small",
        report=False,
        **settings,
    )
    return run(config, Console(file=io.StringIO()))


RESIDUAL = {"norms": ("batch",), "seeds": (0, 1), "order": "pre"}


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
    return measured(tmp_path_factory.mktemp("runs"), probes=("branches", "signals", "surface"), **RESIDUAL)


@pytest.fixture(scope="module")
def results(directory):
    return analysis.load(directory)


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    probes = tuple(set(PROBES) - {"curvature"})
    return measured(tmp_path_factory.mktemp("runs"), probes=probes, **RESIDUAL)


@pytest.mark.slow
def test_the_page_has_every_figure_and_its_sentence(everything):
    files = analysis.write_report(everything)
    page = (everything / "report.html").read_text()
    assert page.count("<figcaption>") == len(files) - 1
    sentences = re.findall("<figcaption>(.*?)</figcaption>", page, re.DOTALL)
    assert all(re.search(r"\d", sentence) and sentence.endswith(".") for sentence in sentences)
    assert not any("nan" in sentence for sentence in sentences)
    assert len(set(sentences)) == len(sentences)
    assert {"branches", "shift", "surface-loss", "tangent", "effective-rank", "density"} <= {f.stem for f in files}


def test_curves_by_layer_are_means_over_seeds(results):
    drawing = curves.by_layer(results, curves.BY_LAYER["branches"])
    assert drawing is not None
    (panel,) = [a for a in drawing.figure.axes if a.get_title() == "residual, batch norm"]
    deepest = max(panel.lines, key=lambda line: np.isfinite(line.get_ydata()).sum() * (line.get_linestyle() == "-"))
    expected = kind(results, "residual", "batch", 3).branch_share.isel(probe_step=0).values.mean(0)
    np.testing.assert_allclose(deepest.get_ydata(), expected, rtol=1e-6)
    assert f"{expected[-1]:.3g} at layer 3" in drawing.finding
    # Theory is drawn where there is one, with its source.
    assert any("De & Smith" in text.get_text() for text in panel.texts)


def test_curves_over_training(results):
    drawing = curves.over_training(results, curves.OVER_TRAINING["surface-loss"], depth=3)
    assert drawing is not None
    loss = kind(results, "plain", "batch", 3).surface_loss.values.astype(float)
    expected = np.exp(np.log(loss.max(-1) - loss.min(-1)).mean(0))
    (line,) = [line for line in drawing.figure.axes[0].lines if line.get_label() == "plain, batch norm"]
    np.testing.assert_allclose(line.get_ydata(), expected, rtol=1e-5)


def test_a_map_of_what_trains(results):
    """The run three times over, as if of three weight scales, the second one's twice as accurate."""
    scales = [
        results.assign_coords(weight_std=("member", np.full(results.sizes["member"], s))) for s in (1.0, 1.5, 2.0)
    ]
    scales[1] = scales[1].assign(test_accuracy=2 * scales[1].test_accuracy)
    swept = xr.concat(scales, "member").assign_attrs(results.attrs)
    cells = grid.accuracy_grid(swept, "weight_std")
    np.testing.assert_allclose(cells[:, 1], 2 * cells[:, 0])
    (drawing,) = grid.figures(swept).values()
    maps = [axis for axis in drawing.figure.axes if axis.collections or axis.images]
    assert len(maps) >= 2
    assert drawing.finding


def test_what_was_not_measured_is_not_drawn(results):
    bare = results.drop_vars([name for name in results.data_vars if name not in ("test_accuracy", "train_loss")])
    assert curves.figures(bare) == {}
    assert density.figures(bare) == {}
    assert drift.figures(bare) == {}


def test_drift_is_in_widths_of_the_band(results):
    members = kind(results, "plain", "batch", 3)
    found = members.unit_preactivation.isel(layer=3).values.astype(float)
    expected = np.abs(found[:, 1, 1] - found[:, 0, 1]) / (found[:, 0, 2] - found[:, 0, 0])
    np.testing.assert_allclose(drift.drift_of(members), expected, rtol=1e-6)


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    settings = {"nets": ("plain",), "norms": ("none",), "activation": "tanh", "seeds": (0,), "probes": ("signals",)}
    weight_std = tuple(0.5 + 0.25 * i for i in range(9))
    return measured(tmp_path_factory.mktemp("runs"), weight_std=weight_std, **settings)


@pytest.mark.slow
def test_a_grid_is_a_heat_map_and_a_few_settings(swept):
    files = analysis.write_report(swept)
    stems = [file.stem for file in files]
    assert "grid-weight-std" in stems
    assert sum(stem.startswith("trainability") for stem in stems) == command.MOST_SETTINGS
    assert "trainability-weight_std=0.5" in stems
    assert "trainability-weight_std=2.5" in stems
    page = (swept / "report.html").read_text()
    assert f"{command.MOST_SETTINGS} of 9 settings have figures of their own" in page
    results = analysis.load(swept)
    cells = grid.accuracy_grid(results, "weight_std")
    assert cells.shape == (2, 9)
    chosen = (results.depth.values == 3) & (results.weight_std.values == 1.0)
    assert cells[1, 2] == results.test_accuracy.isel(probe_step=-1).values[chosen].item()


def test_the_critical_presets_are_critical():
    from analysis.meanfield import chi_1

    config = PRESETS["xiao2018-ten-thousand-layers"]()
    assert chi_1(config.activation, config.weight_std[0], config.bias_std[0]) == pytest.approx(1, abs=5e-5)


def test_sentences():
    assert joined(["a", "", "b"]) == "A; b."
    assert joined([]) == ""
    assert geometric_mean(np.asarray([1.0, 4.0])) == pytest.approx(2)
    assert number(np.asarray([1.0, 4.0, np.nan]), geometric_mean) == "2"
    assert number(np.asarray([np.nan])) == "not finite"


def test_reports_name_the_folder_wherever_they_are_called(directory, monkeypatch):
    monkeypatch.chdir(directory)
    page = report._page("everything", analysis.load(directory), {})
    assert "<h1>everything</h1>" in page

"""A whole run, small: what it writes, what it compiles, how it stops."""

import gc
import io
import json
import logging
from dataclasses import asdict
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml
from rich.console import Console

import analysis
from probes import PROBES, forward_signals, gradient_flow, jacobian_spectrum
from sweep import Config, Interrupted, UserError, run
from sweep.data import load
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.measure import chosen, dimensions, measurement, probe_rows, remarks
from sweep.plan import structures_of
from sweep.store import Store
from tests.tiers import slow


def small(tmp_path, **kwargs):
    settings = {
        "depths": (1, 3),
        "seeds": (0,),
        "width": 8,
        "learning_rates": (0.02, 1e30),  # the second one diverges
        "batch_size": 32,
        "steps": 12,
        "probe_steps": (5,),
        "probe_batch_size": 16,
        "spectrum_batch_size": 3,
        "report": False,
        "out": tmp_path,
        "name": "small",
    }
    return Config(**(settings | kwargs))


def quiet():
    return Console(file=io.StringIO(), width=100)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A run's config, directory and printed lines, and the messages of JAX's compilations."""
    config = small(tmp_path_factory.mktemp("runs"))
    console, messages = quiet(), io.StringIO()
    handler, logger = logging.StreamHandler(messages), logging.getLogger("jax")
    logger.addHandler(handler)
    with jax.log_compiles():
        path = run(config, console)
    logger.removeHandler(handler)
    return config, path, console.file.getvalue(), messages.getvalue()


def test_the_directory(finished):
    config, path, printed, _ = finished
    assert path == config.out / "small"
    assert yaml.safe_load((path / "config.yaml").read_text())["depths"] == [1, 3]
    provenance = json.loads((path / "provenance.json").read_text())
    assert provenance["status"] == "complete"
    assert provenance["versions"]["jax"] == jax.__version__
    assert [program["members"] for program in provenance["programs"]] == [8, 8]
    assert all(program["compile_seconds"] > 0 for program in provenance["programs"])
    assert "residual" in printed


def test_the_results_are_labelled_and_complete(finished):
    results = analysis.load(finished[1])
    assert dict(results.sizes) == {
        "member": 16,
        "step": 12,
        "probe_step": 3,
        "layer": 4,
        "percentile": 3,
        "sample": 3,
        "singular_value": 8,
        "coupled_singular_value": 24,
    }
    assert results.probe_step.values.tolist() == [0, 5, 12]
    healthy = results.isel(member=results.learning_rate.values < 1)
    assert np.isfinite(healthy.train_loss).all()
    assert np.isfinite(healthy.test_accuracy).all()
    assert np.isfinite(healthy.frozen_spectrum).all()
    batch = healthy.isel(member=healthy.norm.values == "batch")
    assert np.isfinite(batch.coupled_spectrum).all()
    assert np.isnan(healthy.isel(member=healthy.norm.values == "none").coupled_spectrum).all()
    shallow = healthy.isel(member=healthy.depth.values == 1)
    assert np.isfinite(shallow.output_gradient.isel(layer=slice(2))).all()
    assert np.isnan(shallow.output_gradient.isel(layer=slice(2, None))).all()
    assert np.isnan(healthy.diverged_step).all()
    assert healthy.train_loss.isel(step=-1).mean() < healthy.train_loss.isel(step=0).mean()


def test_a_diverged_member_is_recorded(finished):
    _, path, printed, _ = finished
    results = analysis.load(path)
    wild = results.isel(member=results.learning_rate.values > 1)
    assert np.isfinite(wild.diverged_step).any()
    for member in range(wild.sizes["member"]):
        one = wild.isel(member=member)
        step = one.diverged_step.item()
        if np.isfinite(step):
            assert np.isfinite(one.train_loss.values[: int(step)]).all()
            assert not np.isfinite(one.train_loss.values[int(step)])
    assert "diverged: plain, norm none, learning_rate=1e+30" in printed


def test_what_is_stored_is_what_the_probes_say(finished):
    """Rows of the store belong to the members they are labelled with: each built alone and measured by hand."""
    config, path, *_ = finished
    results = analysis.load(path).isel(probe_step=0)
    dataset = load("digits")
    data = put(dataset)
    rows = probe_rows(config, len(dataset.train_labels))
    x, labels = data.inputs(data.train_images[rows]), data.train_labels[rows]
    for structure, members in structures_of(config, (8, 8, 1), 10).items():
        for member in (members[0], members[-2]):
            chosen = np.logical_and.reduce([results[name].values == value for name, value in asdict(member).items()])
            (one,) = np.flatnonzero(chosen)
            stored = results.isel(member=one)

            @jax.jit
            def by_hand(member=member, structure=structure):
                network = member.build(structure)
                flow, signals = gradient_flow(network, x, labels), forward_signals(network, x)
                spectrum = jacobian_spectrum(network, x, "frozen", 3)
                network.eval()
                return flow.output, signals.second_moment, spectrum, network(data.inputs(data.test_images))

            gradient, moment, spectrum, logits = by_hand()
            np.testing.assert_allclose(stored.output_gradient.values[: member.depth + 1], gradient, rtol=1e-4)
            np.testing.assert_allclose(stored.second_moment.values[: member.depth + 1], moment, rtol=1e-4)
            np.testing.assert_allclose(stored.frozen_spectrum, spectrum, rtol=1e-3, atol=1e-5)
            accuracy = np.asarray(logits.argmax(-1) == data.test_labels).mean()
            np.testing.assert_allclose(stored.test_accuracy, accuracy, atol=1 / 360)


@pytest.mark.parametrize("values", [False, slow(True)])
@pytest.mark.parametrize("name", PROBES)
def test_every_probe_returns_what_it_says(name, values):
    """On the ensembles it applies to: its variables, in the dimensions it names; slowly, none of them empty."""
    norms = ("none", "batch") if values or name == "spectra" else ("batch",)
    config = small(Path("runs"), learning_rates=(0.02,), norms=norms, probes=(name,))
    ensembles = [Ensemble.of(*group) for group in structures_of(config, (8, 8, 1), 10).items()]
    data, sizes = put(load("digits")), dimensions(config, ensembles)
    lines = [line for line in remarks(config, ensembles) if "theory" not in line]
    assert len(lines) == (name == "spectra")
    rows = probe_rows(config, 1437)
    for ensemble in ensembles:
        init, probes = Engine(config, ensemble).init, chosen(config, ensemble)
        measure = measurement(probes, 3, ensemble)
        init, measure = (init, measure) if values else (init.eval_shape, measure.eval_shape)
        state = init(ensemble.traits, 1437)
        measured = measure(state.traits, state.params, state.rest, data, rows)
        variables = {name: variable for probe in probes for name, variable in probe.variables.items()}
        assert measured.keys() == variables.keys()
        for variable, found in measured.items():
            assert found.shape == (1, len(ensemble.members), *(sizes[dim] for dim in variables[variable].dims))
            assert not values or np.isfinite(found).any(), variable


def test_a_probe_that_applies_to_no_network_is_refused(tmp_path):
    with pytest.raises(UserError, match="--probes branches does not apply: no net has skip connections"):
        run(small(tmp_path, nets=("plain",), probes=("signals", "branches")), quiet())
    with pytest.raises(
        UserError, match=r"--probes tangent does not apply: the kernel of 128 samples and 10 classes has"
    ):
        run(small(tmp_path, probes=("tangent",), probe_batch_size=128, spectrum_batch_size=128), quiet())
    assert not (tmp_path / "small").exists()


def test_what_is_not_measured_is_said(finished):
    printed = " ".join(finished[2].split())
    assert "spectra of norm=none: without batch norm the coupled reading has the frozen one's values" in printed


def test_the_train_step_compiles_once_per_structure(finished):
    assert finished[3].count("Compiling jit(train)") == 2


def test_a_run_leaves_no_programs_behind(tmp_path):
    """Each takes some hundred of the 65,530 memory mappings that Linux gives a process."""

    def programs():
        gc.collect()
        return len(jax.devices()[0].client.live_executables())

    settings = {
        "probes": ("signals",),
        "norms": ("none",),
        "depths": (1,),
        "steps": 2,
        "probe_steps": None,
    }
    run(small(tmp_path, name="first", **settings), quiet())
    before = programs()
    for name in ("second", "third"):
        run(small(tmp_path, name=name, **settings), quiet())
    assert programs() == before


def test_an_existing_run_is_not_touched(finished):
    config, path, *_ = finished
    before = {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()}
    with pytest.raises(UserError, match="already holds a run; choose another --name or --out"):
        run(config, quiet())
    assert {file: file.stat().st_mtime_ns for file in path.rglob("*") if file.is_file()} == before


def test_a_member_that_diverges_at_the_last_step(tmp_path):
    settings = {"depths": (1,), "norms": ("none",), "activation": "linear", "probes": ("signals",)}
    path = run(small(tmp_path, steps=1, probe_steps=None, **settings), quiet())
    results = analysis.load(path)
    wild = results.isel(member=results.learning_rate.values > 1)
    assert (wild.diverged_step == 1).any()
    lost = np.isfinite(wild.diverged_step.values)
    assert np.isnan(wild.test_accuracy.isel(probe_step=-1).values[lost]).all()


def test_a_batch_larger_than_the_data_is_refused(tmp_path):
    with pytest.raises(UserError, match="--batch-size must be at most the 1437 training samples of digits, got 2000"):
        run(small(tmp_path, batch_size=2000), quiet())
    assert not (tmp_path / "small").exists()


def test_a_folder_that_cannot_be_made(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot make"):
        run(small(tmp_path / "file"), quiet())


def test_an_interrupt_leaves_a_readable_run(tmp_path, monkeypatch):
    """As if Ctrl-C came in the middle of the second program's training."""
    calls = []
    write = Store.write_losses

    def interrupted(self, members, first_step, losses):
        write(self, members, first_step, losses)
        calls.append(first_step)
        if members.start and first_step >= 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(Store, "write_losses", interrupted)
    with pytest.raises(Interrupted, match="what was measured is in"):
        run(small(tmp_path, depths=(1,), probes=("signals",)), quiet())
    results = analysis.load(tmp_path / "small")
    assert results.attrs["provenance"]["status"] == "interrupted"
    results = results.isel(member=results.learning_rate.values < 1)
    first, second = (results.isel(member=results.norm.values == norm) for norm in ("none", "batch"))
    assert np.isfinite(first.test_accuracy).all()
    assert np.isfinite(second.test_accuracy.isel(probe_step=slice(2))).all()
    assert np.isnan(second.test_accuracy.isel(probe_step=2)).all()
    assert np.isfinite(second.train_loss.isel(step=slice(6))).all()
    assert analysis.write_report(tmp_path / "small")

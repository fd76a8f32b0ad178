"""Verdicts, and the command that runs experiments, on a small one of its own."""

import sys

import numpy as np
import pytest

from analysis import load, reproduce
from analysis.reproductions import EXPERIMENTS, Claim, Experiment
from analysis.reproductions.claim import Estimate, estimated, growth_by_layer, slope
from sweep.cli import parse
from sweep.ensemble import Ensemble
from sweep.plan import structures_of
from sweep.presets import PRESETS
from sweep.store import create


@pytest.mark.parametrize(
    ("relation", "measured", "tolerance", "verdict"),
    [
        ("=", Estimate(1.05), 0.1, "holds"),
        ("=", Estimate(1.15), 0.1, "fails"),
        # Student's t of 7 degrees of freedom is 3.5 at 1 %, of 2 it is 9.9.
        ("=", Estimate(1.15, 0.02, 7), 0.1, "holds"),
        ("=", Estimate(1.18, 0.02, 7), 0.1, "fails"),
        ("=", Estimate(1.18, 0.02, 2), 0.1, "holds"),
        ("=", Estimate(1.0, 0.1, 2), 0.1, "undecided"),
        (">", Estimate(1.5, 0.1, 7), 0.0, "holds"),
        (">", Estimate(1.3, 0.1, 7), 0.0, "undecided"),
        (">", Estimate(0.9, 0.1, 7), 0.0, "fails"),
        ("<", Estimate(0.5), 0.0, "holds"),
        ("<", Estimate(1.0), 0.0, "fails"),
        (">", Estimate(float("inf")), 0.0, "fails"),
        ("=", Estimate(1.0, float("nan"), 3), 0.1, "fails"),
    ],
)
def test_verdicts(relation, measured, tolerance, verdict):
    assert Claim("x", "someone", relation, 1.0, measured, tolerance=tolerance).verdict == verdict


def test_a_true_claim_fails_as_seldom_as_chance_allows():
    """1 % of 3000 means of three: 30, give or take 5.4."""
    samples = np.random.default_rng(0).normal(1.0, 0.1, (3000, 3))
    failed = sum(Claim("x", "someone", "=", 1.0, estimated(row)).verdict == "fails" for row in samples)
    assert 10 <= failed <= 50


def test_estimates():
    rng = np.random.default_rng(0)
    mean, error, freedom = estimated(rng.normal(3.0, 1.0, 400))
    assert abs(mean - 3) < 4 * error
    assert error == pytest.approx(1 / 20, rel=0.2)
    assert freedom == 399
    assert np.isnan(estimated(np.ones(1)).error)
    x = np.linspace(0, 1, 50)
    found, stated, freedom = np.transpose([slope(x, 2 * x + rng.normal(0, 0.3, 50)) for _ in range(300)])
    assert found.mean() == pytest.approx(2, abs=0.05)
    assert stated.mean() == pytest.approx(found.std(), rel=0.15)
    assert set(freedom) == {48}
    assert np.isnan(slope(np.arange(2), np.arange(2)).error)
    np.testing.assert_allclose(growth_by_layer(3.0 * 1.5 ** -np.arange(9)[None]), [1.5])


def test_experiments_are_presets():
    for name, experiment in EXPERIMENTS.items():
        assert name == experiment.preset
        assert name in PRESETS
    assert len(EXPERIMENTS) == 10


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_numbers_at_random_are_judged_and_do_not_pass(tmp_path, name):
    """Runs as the experiment asks for them, with noise in the place of everything that they would have measured."""
    experiment, rng, runs = EXPERIMENTS[name], np.random.default_rng(0), {}
    for label, flags in experiment.runs.items():
        config = parse(["--preset", name, *reproduce._merged(flags, experiment.quick)])
        shape = (8, 8, 1) if config.dataset == "digits" else (32, 32, 3)
        ensembles = [Ensemble.of(*group) for group in structures_of(config, shape, 10).items()]
        create(tmp_path / (label or "only"), config, ensembles, {})
        results = load(tmp_path / (label or "only"))
        noise = {
            variable: (array.dims, np.sort(rng.uniform(0.1, 3, array.shape), -1))  # percentiles increase
            for variable, array in results.items()
            if array.dtype.kind == "f" and variable != "diverged_step"
        }
        runs[label] = results.assign(noise)
    claims = experiment.judge(runs)
    verdicts = [claim.verdict for claim in claims]
    assert set(verdicts) <= {"holds", "fails", "undecided"}
    assert verdicts.count("holds") < len(verdicts)


def test_flags_of_the_quick_setting_take_the_place_of_others():
    found = reproduce._merged(("--depths", "2", "4", "--report"), ("--seeds", "0", "--depths", "8"))
    assert found == ["--depths", "8", "--report", "--seeds", "0"]


SMALL = ("--width", "8", "--depths", "2", "--seeds", "0", "1", "--probe-batch-size", "16", "--no-report")


@pytest.fixture
def tiny(monkeypatch):
    def judge(runs):
        growth = [growth_by_layer(r.output_gradient.isel(probe_step=0).values, skipped=0) for r in runs.values()]
        return [
            Claim("growth | of it", "nobody", "=", 1.5, estimated(growth[0])._replace(error=0.1), tolerance=1.0),
            Claim("a wrong one", "nobody", "<", 0.0, Estimate(float(growth[1].mean()))),
        ]

    runs = {"one": SMALL, "two": (*SMALL, "--activation", "tanh")}
    experiment = Experiment("yang2019-explosion", "Tiny", judge, ("--seeds", "0", "1", "2"), runs)
    monkeypatch.setattr(reproduce, "EXPERIMENTS", {"yang2019-explosion": experiment})
    return experiment


@pytest.mark.slow
def test_an_experiment_from_nothing_and_again(tiny, tmp_path, capfd):
    arguments = ["yang2019-explosion", "--quick", "--out", str(tmp_path / "new")]
    assert reproduce.main(arguments) == 0
    printed = " ".join(capfd.readouterr().out.split())
    assert "2 claims: 1 holds, 1 fails" in printed
    table = (tmp_path / "new" / "yang2019-explosion.md").read_text()
    assert table.count("\n") == 4
    assert "growth \\| of it" in table
    assert "| fails |" in table
    assert reproduce.main(arguments) == 0
    assert capfd.readouterr().out.count("is there already") == 2
    # Runs of other settings are neither judged nor overwritten.
    assert reproduce.main([a for a in arguments if a != "--quick"]) == 2
    assert "is of other settings" in capfd.readouterr().err
    (tmp_path / "new" / "yang2019-explosion-one" / "config.yaml").unlink()
    assert reproduce.main(arguments) == 2
    assert "is not a run directory" in capfd.readouterr().err


def test_a_run_that_fails_is_told(tiny, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(sys, "executable", "false")
    assert reproduce.main(["all", "--out", str(tmp_path)]) == 1
    assert capfd.readouterr().err.splitlines()[-1] == "analysis.reproduce: error: a run failed with exit code 1"


def test_an_unknown_experiment(capsys):
    assert reproduce.main(["yang2019"]) == 2
    assert "unknown experiment 'yang2019'; did you mean 'yang2019-explosion'?" in capsys.readouterr().err

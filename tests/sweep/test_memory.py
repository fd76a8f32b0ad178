"""Memory from shapes against XLA's own analysis; waves; the plan."""

import dataclasses
import io
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from sweep import Config, UserError, plan, run
from sweep.data import load
from sweep.devices import ONE_DEVICE, Grid
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.memory import available_bytes, program_bytes, step_bytes
from sweep.plan import structures_of
from sweep.waves import fewest_waves
from tests.tiers import slow

CONFIG = Config(norms=("batch",), nets=("residual",), depths=(4, 32), seeds=(0, 1), width=48, report=False)


def parts(config):
    ((structure, members),) = structures_of(config, (8, 8, 1), 10).items()
    return structure, members, put(load("digits"))


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "adam"},
        slow({"remat": "sqrt", "depths": (64,)}),
        slow({}),
        slow({"optimizer": "adam", "batch_size": 512}),
        slow({"arch": "isotropic-cnn", "width": 8}),
    ],
    ids=lambda changes: "-".join(map(str, changes.values())) or "default",
)
def test_the_estimate_is_what_the_program_takes(changes):
    config = dataclasses.replace(CONFIG, **changes)
    structure, members, data = parts(config)
    ensemble = Ensemble.of(structure, members)
    engine = Engine(config, ensemble)
    state = jax.eval_shape(lambda: engine.init(ensemble.traits, 1437))
    compiled = program_bytes(engine.train.lower(state, data, jnp.int32(1)).compile())
    assert compiled is not None
    estimate = step_bytes(engine, data)
    # A program's temporaries come on top: a layer's states and products, and copies of what the loop carries.
    # XLA of jax 0.12 does with less of what is kept: for the CNN 0.82 of the estimate, where 0.10 takes 0.9 at least.
    least = 0.9 if jax.__version_info__ < (0, 12) else 0.8
    assert least * estimate < compiled < 2.5 * estimate


def test_as_few_waves_as_fit():
    structure, members, data = parts(CONFIG)
    whole = step_bytes(Engine(CONFIG, Ensemble.of(structure, members)), data)
    assert len(fewest_waves(CONFIG, structure, members, ONE_DEVICE, data, None)) == 1
    assert len(fewest_waves(CONFIG, structure, members, ONE_DEVICE, data, whole)) == 1
    halves = fewest_waves(CONFIG, structure, members, ONE_DEVICE, data, whole - 1)
    assert len(halves) == 2
    for wave in halves:
        assert step_bytes(Engine(CONFIG, wave), data) < whole
    # Every member once, neighbours together.
    places = [sorted(members.index(member) for member in wave.members) for wave in halves]
    assert [place for own in places for place in own] == list(range(len(members)))
    with pytest.raises(UserError, match=r"one network of depth 32 takes 0\.0\d GB to train, and there are 0\.00"):
        fewest_waves(CONFIG, structure, members, ONE_DEVICE, data, 1000)


def test_waves_give_the_same_numbers(tmp_path, monkeypatch):
    small = {
        "depths": (1, 2),
        "nets": ("plain",),
        "norms": ("none",),
        "width": 8,
        "batch_size": 32,
        "steps": 6,
        "probe_steps": (3,),
    }
    small |= {"seeds": (0, 1), "probes": ("signals",), "probe_batch_size": 16, "out": tmp_path, "report": False}
    together = run(Config(**small, name="together"), Console(file=io.StringIO()))
    structure, members, data = parts(Config(**small))

    def too_little(devices):
        return step_bytes(Engine(Config(**small), Ensemble.of(structure, members, Grid(devices))), data) - 1

    monkeypatch.setattr("sweep.prepare.available_bytes", too_little)
    console = Console(file=io.StringIO(), width=200)
    apart = run(Config(**small, name="apart"), console)
    assert re.search(r"in [2-4] waves, for the memory there is", console.file.getvalue())
    import analysis

    one, other = analysis.load(together), analysis.load(apart)
    for name in one.data_vars:
        if one[name].dtype.kind == "f":
            np.testing.assert_allclose(other[name], one[name], rtol=2e-3, atol=2e-5, err_msg=name)


def test_a_plan_says_what_it_would_take_and_writes_nothing(tmp_path):
    console = Console(file=io.StringIO(), width=100)
    config = dataclasses.replace(CONFIG, depths=(1, 2), probes=("signals",), steps=1000, out=tmp_path, name="x")
    plan(config, console)
    printed = console.file.getvalue()
    assert re.search(r"mlp norm=batch +4 ", printed)
    assert "4 members in 1 programs" in printed
    assert "GB are available" in printed
    assert not list(tmp_path.iterdir())


def test_there_is_memory():
    assert available_bytes(1)

"""Members spread over devices, and batches shared by them: the numbers of one device."""

import dataclasses
import os
import subprocess
import sys
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sweep.devices import ONE_DEVICE, Grid
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.measure import chosen, measurement
from sweep.plan import structures_of
from tests.sweep.test_member import CONFIG, assert_same, dataset, extract
from tests.tiers import slow

# Three members a depth: on two or four devices some places are left over.
UNEVEN = dataclasses.replace(
    CONFIG,
    nets=("residual",),
    depths=(1, 2, 5),
    learning_rates=(0.03,),
    spectrum_batch_size=2,
    probes=("signals",),
)

SPECTRA = {"probes": ("spectra",)}


@lru_cache
def trained(grid, config):
    """Parameters by member, what is measured by member, and the compiled training."""
    ((structure, members),) = structures_of(config, (1, 5, 1), 3).items()
    ensemble, data = Ensemble.of(structure, members, grid), put(dataset(), grid)
    engine = Engine(config, ensemble)
    state = engine.init(ensemble.traits, len(data.train_labels))
    compiled = engine.train.lower(state, data, jnp.int32(12)).compile()
    state, losses = compiled(state, data, jnp.int32(12))
    loss, accuracy = engine.evaluate(state.params, state.rest, data)
    arrays = state.traits, state.params, state.rest
    found = measurement(chosen(config, ensemble), 2, ensemble)(*arrays, data, jnp.arange(8))
    numbers = {"losses": jnp.swapaxes(losses, 1, 2), "loss": loss, "accuracy": accuracy} | dict(found)
    params = {}
    for shard in range(grid.members):
        parts = jax.tree.map(lambda leaf, i=shard: np.asarray(leaf)[i], (state.params, state.rest))
        for depth, group in ensemble.groups.items():
            extracted = [extract(ensemble, depth)(part) for part in parts]
            for i, member in enumerate(ensemble.members[shard * ensemble.size :][group]):
                params[member] = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], extracted)
    by_member = {name: ensemble.by_member(array, members) for name, array in numbers.items()}
    return params, by_member, compiled.as_text()


def assert_as_on_one_device(grid, config):
    params, numbers, program = trained(grid, config)
    expected, expected_numbers, _ = trained(ONE_DEVICE, config)
    assert params.keys() == expected.keys()
    for member in expected:
        assert_same(params[member], expected[member], 1e-10)
    for name, array in expected_numbers.items():
        # Of the spectra, which are compared; the smallest values of a singular matrix, all rounding, decide them.
        if name.endswith(("condition_number", "isometry_distance")):
            continue
        np.testing.assert_allclose(numbers[name], array, rtol=1e-9, atol=1e-10, err_msg=name)
    assert f"num_partitions={grid.size}" in program
    return program


EXCHANGES = ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter")


@pytest.mark.parametrize(("members", "settings"), [(2, {}), slow(8, SPECTRA)], ids=["2", "8"])
def test_members_over_devices(double, members, settings):
    program = assert_as_on_one_device(Grid(members), dataclasses.replace(UNEVEN, **settings))
    assert not [exchange for exchange in EXCHANGES if exchange in program]


@pytest.mark.parametrize(
    ("grid", "settings"),
    [
        (Grid(1, 3), {}),  # 6, 6 and 4 of 16 samples
        *(
            slow(*case)
            for case in (
                (Grid(4, 2), SPECTRA),
                (Grid(2, 4), {"order": "pre"} | SPECTRA),
                (Grid(1, 8), {"batch_size": 17}),  # two of them have none
                (Grid(2, 2), SPECTRA | {"optimizer": "adam", "remat": "sqrt", "activation": "tanh", "batch_size": 15}),
            )
        ),
    ],
    ids=str,
)
def test_batches_shared_by_devices(double, grid, settings):
    program = assert_as_on_one_device(grid, dataclasses.replace(UNEVEN, **settings))
    assert "all-reduce" in program


@pytest.mark.slow
def test_networks_one_after_the_other_share_batches_too(double, monkeypatch):
    monkeypatch.setattr("sweep.ensemble._LARGE", 1)
    assert_as_on_one_device(Grid(2, 2), dataclasses.replace(UNEVEN, width=9, batch_size=15, probes=("signals",)))


@pytest.mark.parametrize(
    ("flags", "start", "expected"),
    [
        ("", "", "cores"),
        ("", "jax.devices();", "1"),  # too late
        slow("--xla_force_host_platform_device_count=3", "", "3"),
        slow("", "jax.config.update('jax_num_cpu_devices', 5);", "5"),
    ],
)
def test_every_core_is_a_device_unless_told_otherwise(flags, start, expected):
    code = f"import jax; {start} from sweep.devices import use_every_core as use; use(); print(jax.device_count())"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (str(len(os.sched_getaffinity(0))) if expected == "cores" else expected)

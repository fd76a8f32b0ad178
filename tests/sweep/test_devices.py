"""Members spread over devices: the same numbers, and nothing exchanged."""

import dataclasses
import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.measure import chosen, measure
from sweep.plan import structures_of
from tests.sweep.test_member import CONFIG, assert_same, dataset

# Three members a depth: on two or four devices some places are left over.
UNEVEN = dataclasses.replace(
    CONFIG, nets=("residual",), depths=(1, 2, 5), learning_rates=(0.03,), spectrum_batch_size=2
)


def trained(shards):
    """Parameters by member, evaluation and spectra by member, and the compiled step."""
    ((structure, members),) = structures_of(UNEVEN, (1, 5, 1), 3).items()
    ensemble, data = Ensemble.of(structure, members, shards), put(dataset(), shards)
    engine = Engine(UNEVEN, ensemble)
    state = engine.init(ensemble.traits, 50)
    compiled = engine.train.lower(engine, state, data, jnp.int32(12)).compile()
    state, losses = compiled(state, data, jnp.int32(12))
    loss, accuracy = engine.evaluate(state.params, state.rest, data)
    arrays = state.traits, state.params, state.rest
    found = measure(chosen(UNEVEN, ensemble), 2, ensemble, *arrays, data, jnp.arange(8))
    numbers = {"losses": jnp.swapaxes(losses, 1, 2), "loss": loss, "accuracy": accuracy} | dict(found)
    params = {}
    for shard in range(shards):
        parts = jax.tree.map(lambda leaf, i=shard: leaf[i], state.params)
        for depth, group in ensemble.groups.items():
            for i, member in enumerate(ensemble.members[shard * ensemble.size :][group]):
                params[member] = jax.tree.map(lambda leaf, i=i: np.asarray(leaf[i]), ensemble.extract(parts, depth))
    by_member = {name: ensemble.by_member(array, members) for name, array in numbers.items()}
    return params, by_member, compiled.as_text()


@pytest.mark.parametrize("shards", [2, 4])
def test_one_device_or_several(double, shards):
    params, numbers, program = trained(shards)
    expected, expected_numbers, _ = trained(1)
    assert params.keys() == expected.keys()
    for member in expected:
        assert_same(params[member], expected[member], 1e-10)
    for name, array in expected_numbers.items():
        np.testing.assert_allclose(numbers[name], array, rtol=1e-9, atol=1e-10, err_msg=name)
    assert f"num_partitions={shards}" in program
    for exchange in ("all-reduce", "all-gather", "all-to-all", "collective-permute", "reduce-scatter"):
        assert exchange not in program


@pytest.mark.parametrize(
    ("flags", "start", "expected"),
    [
        ("", "", "cores"),
        ("", "jax.devices();", "1"),  # too late
        ("--xla_force_host_platform_device_count=3", "", "3"),
        ("", "jax.config.update('jax_num_cpu_devices', 5);", "5"),
    ],
)
def test_every_core_is_a_device_unless_told_otherwise(flags, start, expected):
    code = f"import jax; {start} from sweep.devices import use_every_core as use; use(); print(jax.device_count())"
    environment = os.environ | {"XLA_FLAGS": flags}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == (str(len(os.sched_getaffinity(0))) if expected == "cores" else expected)

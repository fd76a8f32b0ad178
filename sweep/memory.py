"""What training takes of memory, from the shapes of its arrays, and what there is of it."""

from pathlib import Path

import jax
from jax import Array
from jax.stages import Compiled
from jaxtyping import PyTree

from sweep.engine import Data, Engine
from sweep.members import Traits
from sweep.processes import count, hosts, most

# What programs, libraries, and arrays that live between two operations take besides.
_ALLOWANCE = 2**29


def step_bytes(engine: Engine, data: Data) -> int:
    """Bytes that the training of an ensemble takes on all of its devices together, from shapes alone.

    The state (parameters, the optimizer's moments, variables, orders of the data), what a step keeps for its derivative
    with the gradients, each member's batch, and the data. A program's temporaries come on top.
    """
    grid = engine.ensemble.grid

    def held(traits: Traits, data: Data) -> PyTree[Array]:
        state = engine.initial(traits, len(data.train_labels))
        _, x, _ = engine.batch(state.traits, state.order, state.step, data)
        return state, engine.room(state, data), x

    rows = jax.eval_shape(grid.over_shards(held), engine.ensemble.traits, data)
    return grid.batch * _bytes(rows) + grid.size * _bytes(data)


def program_bytes(program: Compiled) -> int | None:
    """Bytes that a compiled program takes on one device, by XLA's own analysis; None where it has none."""
    found = program.memory_analysis()
    if found is None:
        return None
    return (
        found.argument_size_in_bytes + found.output_size_in_bytes + found.temp_size_in_bytes - found.alias_size_in_bytes
    )


def available_bytes(devices: int) -> int | None:
    """Bytes that arrays may take on so many devices together; None where nobody says.

    On CPUs, which share it, what the systems have to give; on others what they hold in all. All processes get the same.
    """
    here = _available_here(devices // count())
    if count() == 1:
        return here
    # In MiB, which 32 bits hold; of what is negated the most is the least.
    unknown, negated = most(int(here is None), -((here or 0) // 2**20))
    return None if unknown else -negated * 2**20 * (hosts() if jax.default_backend() == "cpu" else count())


def _available_here(devices: int) -> int | None:
    """Bytes that arrays may take on so many of this process's devices."""
    if jax.default_backend() == "cpu":
        try:
            lines = Path("/proc/meminfo").read_text().splitlines()
        except OSError:
            return None
        free = next((line.split()[1] for line in lines if line.startswith("MemAvailable:")), None)
        return None if free is None else max(int(free) * 1024 - _ALLOWANCE, 0)
    stats = [device.memory_stats() for device in jax.local_devices()[:devices]]
    limits = [one["bytes_limit"] for one in stats if one and "bytes_limit" in one]
    return sum(limits) if len(limits) == devices else None


def _bytes(arrays: PyTree) -> int:
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(arrays))

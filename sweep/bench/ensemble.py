"""fathom's own way: all members in one program, on all devices."""

import time

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Float

from sweep.bench.way import Start, Trainer, Workload
from sweep.compiling import Compiler
from sweep.devices import Grid, use_every_core
from sweep.engine import STEPS_PER_CALL, Engine, put
from sweep.ensemble import Ensemble
from sweep.placement import shard_count


def ensemble(workload: Workload) -> Start:
    """One ensemble, as a run has it. Other ways get its initial weights for nothing; it makes them after the start."""
    use_every_core()
    grid = Grid(shard_count(workload.members, jax.device_count()))
    together = Ensemble.of(workload.structure, workload.members, grid)
    return lambda: _Ensemble(workload, together)


class _Ensemble(Trainer):
    def __init__(self, workload: Workload, together: Ensemble):
        self._members, self._together = workload.members, together
        self._data = put(workload.dataset, together.grid)
        engine = Engine(workload.config, together)
        started = time.perf_counter()
        with Compiler() as compiler:
            lowered = engine.init.lower(together.traits, len(workload.dataset.train_labels))
            init = compiler.quickly(lowered)
            outline = together.grid.sharded(lowered.out_info)
            train = compiler.compile(engine.train.lower(outline, self._data, jnp.int32(0)))
            self._train, self._state = train.result(), init.result()(together.traits)
        self.compile_seconds = time.perf_counter() - started

    def take(self, first: int, count: int) -> Float[np.ndarray, "step member"]:
        del first  # the state counts
        found, left = [], count
        while left:
            now = min(left, STEPS_PER_CALL)
            self._state, losses = self._train(self._state, self._data, jnp.int32(now))
            found.append(self._together.by_member(jnp.swapaxes(losses, 1, 2), self._members)[:, :now].T)
            left -= now
        return np.concatenate(found)

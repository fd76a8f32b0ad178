"""The batches that all ways train on: fathom's."""

from collections.abc import Sequence
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array

from sweep.bench.way import Workload
from sweep.engine import Data, Engine, put
from sweep.ensemble import Ensemble
from sweep.members import Member, Traits

Batch = tuple[Array, Array]


class Batches:
    """`batches(step)` is a batch for each group of members, of one step after the other.

    Args:
      workload: whose data and seeds.
      groups: the members of one program. A batch of several has an axis of members, and so has that of one if it is
        `stacked`.
    """

    def __init__(self, workload: Workload, groups: Sequence[Sequence[Member]], stacked: bool):
        by_seed = {member.seed: member for member in workload.members}
        engine = Engine(workload.config, Ensemble.of(workload.structure, tuple(by_seed.values())))
        data, traits = put(workload.dataset), jax.tree.map(lambda array: array[0], engine.ensemble.traits)
        seeds = [member.seed for member in engine.ensemble.members]
        by_group = [[seeds.index(member.seed) for member in group] for group in groups]
        places = [jnp.array(rows) if stacked else rows[0] for rows in by_group]
        self._order = jnp.zeros((len(seeds), len(data.train_labels)), jnp.int32)

        @partial(jax.jit, donate_argnums=0)
        def batch(order: Array, step: Array, traits: Traits, data: Data) -> tuple[Array, list[Batch]]:
            order, x, labels = engine.batch(traits, order, step, data)
            # A number for members alone, an array for those with an axis.
            return order, [(x[place], labels[place]) for place in places]

        self._shared = traits, data
        self._batch = batch.lower(self._order, jnp.int32(0), *self._shared).compile()

    def __call__(self, step: int) -> list[Batch]:
        self._order, found = self._batch(self._order, jnp.int32(step), *self._shared)
        return found

"""How an ensemble uses many devices: each trains a shard of its members, or shares their batches with others."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from jax.typing import ArrayLike
from jaxtyping import Int, PyTree

# The mesh's axes; modules that share batch statistics name the second.
_MEMBERS, BATCH = "members", "batch"
_AUTO = AxisType.Auto


def use_every_core() -> None:
    """Makes every CPU core a device of its own, unless JAX has started or was told otherwise.

    XLA spreads one small operation over the cores badly: 24 MLPs train 1.6 to 2 times as fast on two devices of one
    core each as on one device of two. Accelerators are not affected.
    """
    told = jax.config.jax_num_cpu_devices != -1  # pyright: ignore[reportAttributeAccessIssue]
    if told or "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        jax.config.update("jax_num_cpu_devices", cores)
    except RuntimeError:
        return  # the backends are there already: their devices are what there is


@dataclass(frozen=True)
class Grid:
    """The devices of an ensemble, in rows: each row trains a shard of the members, each batch is shared along a row.

    Rows exchange nothing. The devices of a row exchange batch statistics and add up their gradients.

    Attributes:
      members: how many shards the members are in.
      batch: how many devices share each batch.
    """

    members: int = 1
    batch: int = 1

    @property
    def size(self) -> int:
        """How many devices."""
        return self.members * self.batch

    @cached_property
    def mesh(self) -> Mesh:
        """The devices themselves."""
        shape = self.members, self.batch
        return jax.make_mesh(shape, (_MEMBERS, BATCH), devices=jax.devices()[: self.size], axis_types=(_AUTO, _AUTO))

    def over_shards(self, function: Callable[[Any, Any], Any]) -> Callable[[Any, Any], Any]:
        """`function(shard, shared)` on all devices at once.

        Args:
          function: of one shard's arrays and of arrays that all devices share. What it returns is the same on all
            devices of a row.

        Returns:
          A function of all shards' arrays, stacked on a new first axis, and of the shared ones; so are its results
            stacked.
        """

        def local(stacked: PyTree, shared: PyTree) -> PyTree:
            found = function(jax.tree.map(lambda array: array[0], stacked), shared)
            return jax.tree.map(lambda array: array[None], found)

        # What varies over a row is not tracked: batch norm's own derivative sums over it, and gradients once more here.
        rows = P(_MEMBERS)
        return jax.shard_map(local, mesh=self.mesh, in_specs=(rows, P()), out_specs=rows, check_vma=False)

    def sharded(self, arrays: PyTree) -> PyTree:
        """The outline of all shards' arrays, stacked on a first axis, as they lie on their devices."""
        where = NamedSharding(self.mesh, P(_MEMBERS))
        return jax.tree.map(lambda array: jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=where), arrays)

    def share(self, arrays: PyTree[np.ndarray]) -> PyTree[Array]:
        """Copies arrays, which all processes have, to every device."""
        where = NamedSharding(self.mesh, P())

        def of(array: np.ndarray) -> Array:
            array = np.asarray(array, jax.dtypes.canonicalize_dtype(array.dtype))
            return jax.make_array_from_callback(array.shape, where, array.__getitem__)

        return jax.tree.map(of, arrays)

    @cached_property
    def owners(self) -> tuple[int, ...]:
        """By shard, the process that has its results: that of the first device of its row."""
        return tuple(row[0].process_index for row in self.mesh.devices)

    def owned(self, array: ArrayLike) -> np.ndarray:
        """Those shards of an array `[shard, ...]` that are this process's, in order."""
        if jax.process_count() == 1:
            return np.asarray(array)
        assert isinstance(array, Array)
        here = {shard.device: shard.data for shard in array.addressable_shards}
        own = [np.asarray(here[row[0]]) for row in self.mesh.devices if row[0] in here]
        return np.concatenate(own) if own else np.zeros((0, *array.shape[1:]), array.dtype)

    def places(self, entries: int) -> Int[Array, " own"]:
        """Inside of `over_shards`: which of so many entries are this device's; places past the end are padding."""
        own = -(-entries // self.batch)
        first = lax.axis_index(BATCH) * own if self.batch > 1 else 0
        return first + jnp.arange(own)

    def divided(self, function: Callable[[PyTree], PyTree], rows: PyTree, count: int) -> PyTree:
        """Inside of `over_shards`: `function(rows)` of so many rows, a part of them on every device of a row."""
        if self.batch == 1:
            return function(rows)
        own = jnp.minimum(self.places(count), count - 1)
        found = function(jax.tree.map(lambda array: array[own], rows))
        return jax.tree.map(lambda array: lax.all_gather(array, BATCH, tiled=True)[:count], found)

    def total(self, arrays: PyTree) -> PyTree:
        """Inside of `over_shards`: the sums of what the devices of a row have."""
        return lax.psum(arrays, BATCH) if self.batch > 1 else arrays


ONE_DEVICE = Grid()

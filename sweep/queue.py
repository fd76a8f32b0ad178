"""The queue: networks of different depth that run one after the other, without padding.

All layers of the first member stand before all of the second, stacked `[layer, ...]`. A member's stack is a loop as
long as it is deep, so that one program serves all members and all depths.
"""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Bool, Float, Int, PyTree

from sweep.rows import chosen_rows, finite_rows, scaled


@dataclass(frozen=True)
class Queue:
    """The layout for members with these numbers of layers."""

    depths: tuple[int, ...]

    @property
    def starts(self) -> np.ndarray:
        """Every member's first layer."""
        return np.cumsum(self.depths) - self.depths

    def extract(self, arrays: PyTree[Array], members: slice) -> PyTree[Array]:
        """The layers of neighbours that have as many, at least one: arrays `[member, layer, ...]`."""
        layers = self.depths[members]
        start = self.starts[members.start]
        return jax.tree.map(
            lambda leaf: leaf[start : start + sum(layers)].reshape(len(layers), -1, *leaf.shape[1:]), arrays
        )

    def scale(self, arrays: PyTree[Array], factors: Float[Array, " member"]) -> PyTree[Array]:
        """Multiplies every member's arrays by its own factor."""
        return scaled(arrays, self._by_layer(factors))

    def where(
        self, chosen: Bool[Array, " member"], arrays: PyTree[Array], others: PyTree[Array] | float
    ) -> PyTree[Array]:
        """The chosen members' arrays, and in the place of the rest's those of `others`, or one number."""
        return chosen_rows(self._by_layer(chosen), arrays, others)

    def is_finite(self, arrays: PyTree[Array]) -> Bool[Array, " member"]:
        """Which members' arrays are all finite; those of members without layers are."""
        owners = self._by_layer(jnp.arange(len(self.depths)))
        return jnp.ones(len(self.depths), bool).at[owners].min(finite_rows(arrays))

    def _by_layer(self, of_member: Array) -> Array:
        """Each member's entry, as often as it has layers."""
        return jnp.repeat(of_member, np.asarray(self.depths), total_repeat_length=sum(self.depths))

    def padded(self, arrays: PyTree[Array]) -> PyTree[Array]:
        """The arrays with room for a window that starts at the last member."""
        return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, max(self.depths))] + [(0, 0)] * (leaf.ndim - 1)), arrays)

    def room(self, window: PyTree[Any]) -> PyTree[Array]:
        """Padded arrays of zeros, into which windows shaped like this one can be put."""
        layers = sum(self.depths) + max(self.depths)
        return jax.tree.map(lambda leaf: jnp.zeros((layers, *leaf.shape[1:]), leaf.dtype), window)

    def unpadded(self, padded: PyTree[Array]) -> PyTree[Array]:
        """The inverse of `padded`."""
        return jax.tree.map(lambda leaf: leaf[: sum(self.depths)], padded)

    def window(self, padded: PyTree[Array], start: Int[Array, ""]) -> PyTree[Array]:
        """A member's layers, and after them those of the next ones: as many for every member."""
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, max(self.depths)), padded)

    def put(self, padded: PyTree[Array], window: PyTree[Array], start: Int[Array, ""]) -> PyTree[Array]:
        """Writes a window. What of it is not the member's own the next ones must write, in their order."""
        return jax.tree.map(lambda leaf, w: lax.dynamic_update_slice_in_dim(leaf, w, start, 0), padded, window)

"""Arrays with a row for every member, or for every layer of one."""

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PyTree


def scaled(arrays: PyTree[Array], factors: Float[Array, " row"]) -> PyTree[Array]:
    """Multiplies every row of arrays `[row, ...]` by its own factor."""

    def of(array: Array) -> Array:
        return array * factors.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)

    return jax.tree.map(of, arrays)


def chosen_rows(chosen: Bool[Array, " row"], arrays: PyTree[Array], others: PyTree[Array] | float) -> PyTree[Array]:
    """The chosen rows of arrays `[row, ...]`, and in the place of the rest those of `others`, or one number."""

    def of(array: Array, other: Array | float) -> Array:
        return jnp.where(chosen.reshape(-1, *[1] * (array.ndim - 1)), array, other)

    if isinstance(others, float):
        return jax.tree.map(lambda array: of(array, others), arrays)
    return jax.tree.map(of, arrays, others)


def finite_rows(arrays: PyTree[Array]) -> Bool[Array, " row"]:
    """Which rows of arrays `[row, ...]` are finite throughout."""
    found = [jnp.isfinite(array).all(tuple(range(1, array.ndim))) for array in jax.tree.leaves(arrays)]
    return jnp.stack(found).all(0)

"""Arrays with a row for every member, or for every layer of one."""

import jax
from jax import Array
from jaxtyping import Float, PyTree


def scaled(arrays: PyTree[Array], factors: Float[Array, " row"]) -> PyTree[Array]:
    """Multiplies every row of arrays `[row, ...]` by its own factor."""

    def of(array: Array) -> Array:
        return array * factors.reshape(-1, *[1] * (array.ndim - 1)).astype(array.dtype)

    return jax.tree.map(of, arrays)

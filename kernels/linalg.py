"""Dense decompositions of one matrix that may be mapped over many, on any backend.

On CPUs jaxlib spreads a batch of LAPACK calls over XLA's thread pool and waits for them in a thread of that pool; as
many batches at a time as there are threads then wait for one another forever. One matrix at a time cannot. Accelerators
take the whole batch.
"""

import jax.numpy as jnp
from jax import Array, lax
from jax.custom_batching import sequential_vmap
from jaxtyping import Float


def _qr(matrix: Array) -> tuple[Array, Array]:
    q, r = jnp.linalg.qr(matrix)
    return q, r


def _singular_values(matrix: Array) -> Array:
    return jnp.linalg.svd(matrix, compute_uv=False)


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


_qr_one_at_a_time = sequential_vmap(_qr)
_singular_values_one_at_a_time = sequential_vmap(_singular_values)
_svd_one_at_a_time = sequential_vmap(_svd)


def qr(matrix: Float[Array, "rows columns"]) -> tuple[Float[Array, "rows k"], Float[Array, "k columns"]]:
    """The reduced QR decomposition."""
    return lax.platform_dependent(matrix, cpu=_qr_one_at_a_time, default=_qr)


def singular_values(matrix: Float[Array, "rows columns"]) -> Float[Array, " k"]:
    """All singular values, largest first."""
    return lax.platform_dependent(matrix, cpu=_singular_values_one_at_a_time, default=_singular_values)


def svd(
    matrix: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows k"], Float[Array, " k"], Float[Array, "k columns"]]:
    """The reduced singular value decomposition: left vectors, values, largest first, and right vectors in rows."""
    return lax.platform_dependent(matrix, cpu=_svd_one_at_a_time, default=_svd)

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
    # LAPACK is never shown a NaN: some builds do not return from one.
    finite = jnp.isfinite(matrix).all()
    values = jnp.linalg.svd(jnp.where(finite, matrix, 0), compute_uv=False)
    return jnp.where(finite, values, jnp.nan)


def _svd(matrix: Array) -> tuple[Array, Array, Array]:
    left, values, right = jnp.linalg.svd(matrix, full_matrices=False)
    return left, values, right


def _eigh(matrix: Array) -> tuple[Array, Array]:
    values, vectors = jnp.linalg.eigh(matrix)
    return values, vectors


_qr_one_at_a_time = sequential_vmap(_qr)
_singular_values_one_at_a_time = sequential_vmap(_singular_values)
_svd_one_at_a_time = sequential_vmap(_svd)
_eigh_one_at_a_time = sequential_vmap(_eigh)


def qr(matrix: Float[Array, "rows columns"]) -> tuple[Float[Array, "rows k"], Float[Array, "k columns"]]:
    """The reduced QR decomposition."""
    return lax.platform_dependent(matrix, cpu=_qr_one_at_a_time, default=_qr)


def singular_values(matrix: Float[Array, "rows columns"]) -> Float[Array, " k"]:
    """All singular values, largest first; NaN where the matrix is not finite."""
    return lax.platform_dependent(matrix, cpu=_singular_values_one_at_a_time, default=_singular_values)


def svd(
    matrix: Float[Array, "rows columns"],
) -> tuple[Float[Array, "rows k"], Float[Array, " k"], Float[Array, "k columns"]]:
    """The reduced singular value decomposition: left vectors, values, largest first, and right vectors in rows."""
    return lax.platform_dependent(matrix, cpu=_svd_one_at_a_time, default=_svd)


def eigh(matrix: Float[Array, "n n"]) -> tuple[Float[Array, " n"], Float[Array, "n n"]]:
    """The eigenvalues of a symmetric matrix, smallest first, and eigenvectors in columns."""
    return lax.platform_dependent(matrix, cpu=_eigh_one_at_a_time, default=_eigh)

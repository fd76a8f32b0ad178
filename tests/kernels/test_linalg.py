"""Decompositions mapped over many matrices, against NumPy's."""

import jax
import jax.numpy as jnp
import numpy as np

from kernels.linalg import qr, singular_values, svd


def test_many_matrices_at_once(double):
    matrices = jax.random.normal(jax.random.key(0), (2, 3, 6, 4))
    many = jax.jit(jax.vmap(jax.vmap(lambda matrix: (qr(matrix), singular_values(matrix), svd(matrix)))))
    (q, r), values, (left, same, right) = many(matrices)
    np.testing.assert_allclose(q @ r, matrices, atol=1e-12)
    np.testing.assert_allclose(jnp.swapaxes(q, -1, -2) @ q, np.broadcast_to(np.eye(4), (2, 3, 4, 4)), atol=1e-12)
    np.testing.assert_allclose(values, np.linalg.svd(np.asarray(matrices), compute_uv=False), rtol=1e-12)
    np.testing.assert_allclose(same, values, rtol=1e-12)
    np.testing.assert_allclose(left * same[..., None, :] @ right, matrices, atol=1e-12)

"""Against the explicit Jacobian of the logits by all parameters."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nets import CNN, MLP
from probes.tangent import label_alignment, tangent_kernel, tangent_spectrum
from tests.tiers import slow

LABELS = jnp.asarray([0, 2, 1, 1, 0, 2])

NETWORKS = {
    "post": lambda: (MLP(4, 3, 2, 5, net="residual", norm="batch", rngs=nnx.Rngs(0)), (4,)),
    "plain": lambda: (MLP(4, 3, 2, 5, activation="tanh", bias_std=0.3, rngs=nnx.Rngs(0)), (4,)),
    "cnn": lambda: (CNN(1, width=2, out_features=3, layout="isotropic", rngs=nnx.Rngs(0)), (4, 4, 3)),
}


def made(name):
    network, shape = NETWORKS[name]()
    return network, jax.random.normal(jax.random.key(1), (6, *shape), float)


def dense(network, x):
    """`J Jᵀ`, J block by block: one derivative for every parameter array."""
    graphdef, params, rest = nnx.split(network, nnx.Param, ...)

    def logits(params):
        return nnx.merge(graphdef, params, rest, copy=True)(x).ravel()

    J = jax.tree.leaves(jax.jit(jax.jacrev(logits))(nnx.as_pure(params)))
    return sum(np.asarray(j).reshape(len(j), -1) @ np.asarray(j).reshape(len(j), -1).T for j in J)


@pytest.mark.parametrize("name", ["post", slow("plain"), slow("cnn")])
def test_kernel_and_spectrum(double, name):
    network, x = made(name)
    exact = dense(network, x)
    found = jax.jit(lambda x: tangent_kernel(network, x, chunk=5))(x)
    assert found.size == 324
    np.testing.assert_allclose(found, exact, rtol=1e-9, atol=1e-11 * np.abs(exact).max())
    np.testing.assert_array_equal(found, found.T)
    spectrum = jax.jit(lambda x: tangent_spectrum(network, x, LABELS))(x)
    values = np.linalg.eigvalsh(exact)[::-1]
    np.testing.assert_allclose(spectrum.values, values, rtol=1e-8, atol=1e-11 * values[0])


@pytest.mark.parametrize("centered", [slow(False), True])
def test_alignment(double, centered):
    """Written out with the projection as a matrix."""
    network, x = made("plain")
    kernel = dense(network, x[:5])
    blocks = kernel.reshape(5, 3, 5, 3)
    summed = sum(blocks[:, c, :, c] for c in range(3))
    same = np.equal.outer(np.asarray(LABELS[:5]), np.asarray(LABELS[:5])).astype(float)
    if centered:
        project = np.eye(5) - 1 / 5
        summed, same = project @ summed @ project, project @ same @ project
    expected = (summed * same).sum() / np.linalg.norm(summed) / np.linalg.norm(same)
    found = jax.jit(lambda x: tangent_spectrum(network, x, LABELS, 5, centered=centered))(x)
    assert 0 < expected < 1
    np.testing.assert_allclose(found.alignment, expected, rtol=1e-9)
    assert found.values.shape == (15,)


def test_the_alignment_of_known_kernels(double):
    same = (LABELS[:, None] == LABELS).astype(float)
    np.testing.assert_allclose(label_alignment(3e200 * jnp.kron(same, jnp.eye(3)), LABELS), 1, rtol=1e-12)
    constant = jnp.ones((18, 18))
    # Of the 36 pairs of samples 12 have one label.
    np.testing.assert_allclose(label_alignment(constant, LABELS), np.sqrt(12 / 36), rtol=1e-12)
    assert np.isnan(label_alignment(jnp.kron(same, jnp.eye(3)), jnp.zeros_like(LABELS), centered=True))


@pytest.mark.slow
@pytest.mark.parametrize("bits", [32, 64])
def test_networks_at_once(bits):
    with jax.enable_x64(bits == 64):
        x = jax.random.normal(jax.random.key(1), (6, 4), float)

        def measure(seed):
            return tangent_spectrum(MLP(4, 3, 2, 5, norm="batch", activation="tanh", rngs=nnx.Rngs(seed)), x, LABELS)

        seeds = jax.random.split(jax.random.key(0), 3)
        mapped, single = jax.jit(jax.vmap(measure))(seeds), jax.jit(measure)
        for i in range(3):
            one = single(seeds[i])
            assert one.values.dtype == x.dtype
            tolerance = 2e-5 if bits == 32 else 1e-11
            np.testing.assert_allclose(mapped.values[i], one.values, atol=tolerance * one.values[0])
            np.testing.assert_allclose(mapped.alignment[i], one.alignment, rtol=tolerance)


def test_what_is_not_finite_is_nan():
    network = MLP(4, 3, 2, 5, rngs=nnx.Rngs(0))
    network.blocks.layers.linear.kernel[...] = network.blocks.layers.linear.kernel[...] * np.inf
    assert np.isnan(jax.jit(lambda x: tangent_spectrum(network, x, LABELS).values)(jnp.ones((6, 4)))).all()


def test_refuses():
    network, x = made("plain")
    with pytest.raises(ValueError, match="samples must be between 1 and the batch's 6, got 7"):
        tangent_spectrum(network, x, LABELS, 7)
    with pytest.raises(ValueError, match="chunk must be at least 1, got 0"):
        tangent_kernel(network, x, chunk=0)
    with pytest.raises(ValueError, match="10 rows of a kernel are no multiple of 6 labels"):
        label_alignment(jnp.eye(10), LABELS)

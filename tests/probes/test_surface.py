"""The loss along its gradient against losses and finite differences computed one step size at a time."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from nets import MLP
from probes import loss_surface
from probes.network import loss_of
from probes.surface import STEP_SIZES
from tests.probes.networks import LABELS
from tests.tiers import slow

RATE = 0.2


@pytest.fixture(params=[slow("none"), "batch"])
def network(request, double):
    return MLP(5, 3, 3, 4, net="residual", norm=request.param, activation="tanh", bias_std=0.3, rngs=nnx.Rngs(0))


def test_by_finite_differences(network):
    """Trusts no derivative: gradients are central differences of the loss, one parameter after the other."""
    x = jax.random.normal(jax.random.key(1), (9, 5), float)
    loss, params = loss_of(network, x, LABELS)
    at, unravel = ravel_pytree(params)
    value = jax.jit(lambda flat: loss(unravel(flat)))
    step = 1e-5
    moves = step * jnp.eye(at.size)

    @jax.jit
    def gradient(flat):
        ahead, behind = (jax.vmap(lambda move, s=s: value(flat + s * move))(moves) for s in (1, -1))
        return (ahead - behind) / (2 * step)

    start = gradient(at)
    found = jax.jit(lambda x: loss_surface(network, x, LABELS, RATE))(x)
    betas = []
    for i, size in enumerate(STEP_SIZES):
        there = at - RATE * size * start
        change = np.linalg.norm(gradient(there) - start)
        betas.append(change / np.linalg.norm(there - at))
        np.testing.assert_allclose(found.loss[i], value(there), rtol=1e-7)
        np.testing.assert_allclose(found.gradient_change[i], change, rtol=1e-6)
    np.testing.assert_allclose(found.smoothness, max(betas), rtol=1e-6)


@pytest.mark.slow
def test_a_small_step_sees_the_curvature_along_the_gradient(network):
    """`‖∇L(θ - ηg) - ∇L(θ)‖ / (η ‖g‖)` tends to `‖H g‖ / ‖g‖`."""
    x = jax.random.normal(jax.random.key(1), (9, 5), float)

    @jax.jit
    def both(x):
        loss, params = loss_of(network, x, LABELS)
        gradient = jax.grad(loss)(params)
        _, curved = jax.jvp(jax.grad(loss), (params,), (gradient,))
        size, curvature = (jnp.linalg.norm(ravel_pytree(tree)[0]) for tree in (gradient, curved))
        return loss_surface(network, x, LABELS, 1e-8).smoothness, curvature / size

    np.testing.assert_allclose(*both(x), rtol=1e-4)

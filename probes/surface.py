"""How rough the loss is along its own gradient."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from nets import Network
from probes.network import Inputs, Labels, loss_of, norm

# Lengths of the step at which the surface is looked at, in learning rates: Santurkar et al. 2018's range.
STEP_SIZES = (0.5, 1.0, 1.5, 2.0, 2.5, 3.0, 3.5, 4.0)


class LossSurface(NamedTuple):
    """Along `θ(η) = θ - η ∇L(θ)`, for `η = learning_rate * STEP_SIZES`.

    Attributes:
      loss: `L(θ(η))`.
      gradient_change: `‖∇L(θ(η)) - ∇L(θ)‖`.
      smoothness: the largest `‖∇L(θ(η)) - ∇L(θ)‖ / ‖θ(η) - θ‖`, the effective β; NaN where
        the gradient or the learning rate is 0.
    """

    loss: Float[Array, " step_size"]
    gradient_change: Float[Array, " step_size"]
    smoothness: Float[Array, ""]


def loss_surface(network: Network, x: Inputs, labels: Labels, learning_rate: float | Float[Array, ""]) -> LossSurface:
    """Loss and gradient along the gradient of the batch's loss, batch norm in training mode.

    The spread of `loss` over step sizes is the paper's variation of the loss; small `gradient_change` its gradient
    predictiveness; `smoothness` its effective β-smoothness.

    Cost: as many forward and backward passes as there are step sizes, and one more, one at a time.
    Source: Santurkar et al. 2018, section 3.2 and figure 4.
    """
    loss, params = loss_of(network, x, labels)
    gradient = jax.grad(loss)(params)
    rates = learning_rate * jnp.asarray(STEP_SIZES, x.dtype)

    def at(rate: Array) -> tuple[Array, Array]:
        ahead = jax.tree.map(lambda param, slope: param - rate * slope, params, gradient)
        value, there = jax.value_and_grad(loss)(ahead)
        return value, norm(jax.tree.map(jnp.subtract, there, gradient))

    losses, changes = lax.map(at, rates)
    return LossSurface(losses, changes, (changes / (rates * norm(gradient))).max())

"""Internal covariate shift: how a layer's gradient changes because the layers before it have taken their step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PyTree

from nets import Network
from probes.network import Inputs, Labels, layer_indices, loss_of, norm, weights_by_layer


class CovariateShift(NamedTuple):
    """By layer, index 0 the stem (which has none before it, and so no shift), index l block l.

    Attributes:
      distance: `‖G_l - G'_l‖`.
      cosine: `G_l · G'_l / (‖G_l‖ ‖G'_l‖)`; NaN where a gradient is 0.
    """

    distance: Float[Array, " layer"]
    cosine: Float[Array, " layer"]


def covariate_shift(
    network: Network, x: Inputs, labels: Labels, learning_rate: float | Float[Array, ""]
) -> CovariateShift:
    """Santurkar et al.'s measure of internal covariate shift, batch norm in training mode.

    `G_l` is the gradient of the batch's loss by layer l's weights; `G'_l` the same, on the same batch, after all
    parameters of every earlier layer have taken their step `-learning_rate gradient`, one of plain gradient descent
    whatever the optimizer; layer l and later ones have not.

    Cost: depth + 2 forward and backward passes, one at a time. Source: Santurkar et al. 2018, definition 2.1.
    """
    loss, params = loss_of(network, x, labels)
    gradient = jax.grad(loss)(params)
    indices = layer_indices(network)

    def stepped_before(layer: Array) -> PyTree[Array]:
        def step(path: tuple, param: Array, slope: Array) -> Array:
            moves = indices[path[0].key] < layer
            moves = moves.reshape(*moves.shape, *[1] * (param.ndim - moves.ndim))
            return jnp.where(moves, param - learning_rate * slope, param)

        return jax.tree.map_with_path(step, params, gradient)

    # Squares of a vanishing or exploding net's gradients leave the range of floats.
    scale = norm(gradient)
    divisor = jnp.where(scale == 0, 1, scale)

    def of(layer: Array) -> tuple[Array, Array]:
        before, after = (
            jax.tree.map(lambda slope: slope / divisor, found)
            for found in (gradient, jax.grad(loss)(stepped_before(layer)))
        )

        def product(one: PyTree[Array], other: PyTree[Array]) -> Array:
            return weights_by_layer(network, jax.tree.map(jnp.multiply, one, other))[layer]

        change = jax.tree.map(jnp.subtract, before, after)
        lengths = jnp.sqrt(product(before, before)) * jnp.sqrt(product(after, after))
        return scale * jnp.sqrt(product(change, change)), product(before, after) / lengths

    return CovariateShift(*lax.map(of, jnp.arange(network.block_count + 1)))

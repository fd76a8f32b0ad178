"""How gradients fare on the way back: their squared norm at every layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets import Network, Stack, Trace
from probes.network import Inputs, Labels, training_copy


class GradientFlow(NamedTuple):
    """Squared gradient norms of the mean cross-entropy, index 0 the stem, index l block l.

    Attributes:
      output: `‖∂loss/∂h_l‖²`, summed over batch and units.
      weight: `‖∂loss/∂W_l‖²`, over the layer's weight matrices (biases, scales left out).
    """

    output: Float[Array, " layer"]
    weight: Float[Array, " layer"]


def _by_layer(arrays: list[Array]) -> Array:
    """Sum of squares of arrays `[layer, ...]`, of each layer separately."""
    return jnp.stack([jnp.square(a).sum(tuple(range(1, a.ndim))) for a in arrays]).sum(0)


def gradient_flow(network: Network, x: Inputs, labels: Labels) -> GradientFlow:
    """Squared gradient norms of the batch's loss by every layer's output and weights, batch norm in training mode.

    Cost: one forward and one backward pass. Source: Glorot & Bengio 2010; Yang et al. 2019 for the norm by outputs.
    """
    graphdef, params, rest = nnx.split(training_copy(network), nnx.Param, ...)
    params, rest = nnx.as_pure((params, rest))

    def trace(params: nnx.State, offsets: dict[str, Array] | None) -> Trace:
        return nnx.merge(graphdef, params, rest).trace(x, offsets)

    def loss(params: nnx.State, offsets: dict[str, Array]) -> Array:
        return optax.softmax_cross_entropy_with_integer_labels(trace(params, offsets).logits, labels).mean()

    outputs = jax.eval_shape(trace, params, None).outputs
    offsets = jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), outputs)
    by_params, by_outputs = jax.grad(loss, argnums=(0, 1))(params, offsets)

    def by_weights(name: str) -> Array:
        stacked = isinstance(network.sections[name], Stack)
        matrices = [g for g in jax.tree.leaves(by_params[name]) if g.ndim >= 2 + stacked]
        return _by_layer(matrices if stacked else [g[None] for g in matrices])

    names = network.section_names[:-1]  # JAX returns the dictionaries sorted by name
    return GradientFlow(
        jnp.concatenate([_by_layer([by_outputs[name]]) for name in names]),
        jnp.concatenate([by_weights(name) for name in names]),
    )

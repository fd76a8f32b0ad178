"""How gradients fare on the way back: their squared norm at every layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets import Network
from probes.network import Inputs, Labels, training_copy


class GradientFlow(NamedTuple):
    """Squared gradient norms of the mean cross-entropy, index 0 the stem, index l block l.

    Attributes:
      output: `‖∂loss/∂h_l‖²`, summed over batch and units.
      weight: `‖∂loss/∂W_l‖²`, over the layer's weight matrices (biases, scales left out).
    """

    output: Float[Array, " layer"]
    weight: Float[Array, " layer"]


def _squared_norm(gradients: nnx.State, layered: bool) -> Array:
    """Sum of squares over all weight matrices, of each layer separately where a leading layer axis is present."""
    matrices = [g for g in jax.tree.leaves(gradients) if g.ndim >= 2 + layered]
    return jnp.stack([jnp.square(g).sum(tuple(range(int(layered), g.ndim))) for g in matrices]).sum(0)


def gradient_flow(network: Network, x: Inputs, labels: Labels) -> GradientFlow:
    """Squared gradient norms of the batch's loss by every layer's output and weights, batch norm in training mode.

    Cost: one forward and one backward pass. Source: Glorot & Bengio 2010; Yang et al. 2019 for the norm by outputs.
    """
    graphdef, params, rest = nnx.split(training_copy(network), nnx.Param, ...)
    params, rest = nnx.as_pure((params, rest))
    first = jax.eval_shape(lambda: nnx.merge(graphdef, params, rest).stem(x))
    stem_offset = jnp.zeros(first.shape, first.dtype)
    offsets = jnp.zeros((network.blocks.depth, *first.shape), first.dtype)

    def loss(params, stem_offset, offsets):
        model = nnx.merge(graphdef, params, rest)
        h, _, _ = model.blocks.trace(model.stem(x) + stem_offset, offsets)
        return optax.softmax_cross_entropy_with_integer_labels(model.head(h), labels).mean()

    by_params, by_first, by_outputs = jax.grad(loss, argnums=(0, 1, 2))(params, stem_offset, offsets)
    output = jnp.concatenate([jnp.square(by_first).sum()[None], jnp.square(by_outputs).sum((1, 2))])
    weight = jnp.concatenate([_squared_norm(by_params["stem"], False)[None], _squared_norm(by_params["blocks"], True)])
    return GradientFlow(output, weight)

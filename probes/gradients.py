"""How gradients fare on the way back, and perturbations on the way down: their squared norm at every layer."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray

from nets import Network, Trace
from probes.network import Inputs, Labels, sum_by_layer, training_copy, weights_by_layer

# Random tangents that partial Jacobians' norms are estimated from.
VECTORS = 8


class GradientFlow(NamedTuple):
    """Squared gradient norms of the mean cross-entropy, index 0 the stem, index l block l.

    Attributes:
      output: `‖∂loss/∂h_l‖²`, summed over batch and units.
      weight: `‖∂loss/∂W_l‖²`, over the layer's weight matrices (biases, scales left out).
    """

    output: Float[Array, " layer"]
    weight: Float[Array, " layer"]


class PartialJacobianNorms(NamedTuple):
    """Averaged partial Jacobian norms from the first hidden state, `l = 0..depth`.

    Attributes:
      norm: an estimate of `‖∂h_l/∂h_0‖_F²`, all samples of the batch by all, over the number of entries of h_l.
      error: its standard error over the random tangents.
    """

    norm: Float[Array, " layer"]
    error: Float[Array, " layer"]


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
    names = network.section_names[:-1]  # JAX returns the dictionaries sorted by name
    return GradientFlow(
        jnp.concatenate([sum_by_layer([jnp.square(by_outputs[name])]) for name in names]),
        weights_by_layer(network, jax.tree.map(jnp.square, by_params)),
    )


def partial_jacobian_norms(
    network: Network, x: Inputs, key: PRNGKeyArray, vectors: int = VECTORS
) -> PartialJacobianNorms:
    """How far a random perturbation of the first hidden state carries, at every layer; batch norm in training mode.

    `J_l = ‖∂h_l/∂h_0‖_F² / N_l`, N_l the entries of h_l over the batch. For a Gaussian tangent v of unit variance
    `E‖∂h_l/∂h_0 v‖²` is the squared Frobenius norm. In a plain net without norm `J_(l+1)/J_l` is mean field theory's χ.

    Cost: `vectors` forward derivatives, one at a time.
    Source: Doshi, He & Gromov 2023, definition 1.1 (there an average over initializations as well).
    """
    copy = training_copy(network)
    names = network.section_names[:-1]

    def hidden(offset: Array) -> list[Array]:
        outputs = nnx.clone(copy).trace(x, {"stem": offset}).outputs
        return [outputs[name] for name in names]

    stem = jax.eval_shape(lambda: nnx.clone(copy).trace(x).outputs["stem"])
    at = jnp.zeros(stem.shape, stem.dtype)

    def carried(key: Array) -> Array:
        _, tangents = jax.jvp(hidden, (at,), (jax.random.normal(key, at.shape, at.dtype),))
        return jnp.concatenate([jnp.square(t).mean(tuple(range(1, t.ndim))) for t in tangents])

    found = lax.map(carried, jax.random.split(key, vectors))
    return PartialJacobianNorms(found.mean(0), found.std(0, ddof=1) / jnp.sqrt(vectors))

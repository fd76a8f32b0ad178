"""Whether gradients at different inputs still resemble one another."""

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray

from nets import Network
from probes.network import Inputs, frozen_copy
from probes.representation import pairwise_cosine


def gradient_correlation(network: Network, x: Inputs, key: PRNGKeyArray) -> Float[Array, " layer"]:
    """Mean cosine of the gradients at two inputs, over all pairs, by the hidden state `h_l` of each, `l = 0..depth`.

    The gradient is that of `v · logits(x_i)` by the sample's own h_l, with one random v for all samples. Batch norm
    holds the statistics of `x`: differentiated, they would take the gradients' mean over the batch away, and their
    correlation with it. From the last layer to the first it falls, about by half a layer in a plain net of ReLUs, by
    3/4 in a residual net without norm, and like 1/√depth in one with batch norm.

    Cost: two forward passes and one backward pass. Source: Balduzzi et al. 2017, sections 2 and 3.
    """
    copy = frozen_copy(network, x)

    def readout(offsets: dict[str, Array]) -> Array:
        logits = nnx.clone(copy).trace(x, offsets).logits
        direction = jax.random.normal(key, logits.shape[1:], logits.dtype)
        return (logits * direction).sum()

    outputs = jax.eval_shape(lambda: nnx.clone(copy).trace(x).outputs)
    gradients = jax.grad(readout)(jax.tree.map(lambda like: jnp.zeros(like.shape, like.dtype), outputs))
    sections = [gradients[name] for name in network.section_names[:-1]]
    return jnp.concatenate([lax.map(pairwise_cosine, g.reshape(*g.shape[:2], -1)) for g in sections])

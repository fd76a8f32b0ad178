"""How signals fare on the way down: the size of every hidden state and the distribution of every pre-activation."""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from nets import Network
from probes.network import Inputs, training_copy

PERCENTILES = (15.0, 50.0, 85.0)


class ForwardSignals(NamedTuple):
    """What a batch looks like inside a network.

    Attributes:
      second_moment: mean of `h_l²` over batch and units, `l = 0..depth`.
      batch_variance: variance of `h_l` over the batch, mean over units, `l = 0..depth`.
      percentiles: the 15th, 50th and 85th percentile of block l's pre-activations over batch and units, `l = 1..depth`.
      unit_percentiles: the same over the batch alone, for the first unit: what Ioffe & Szegedy 2015, figure 1, draws.
    """

    second_moment: Float[Array, " layer"]
    batch_variance: Float[Array, " layer"]
    percentiles: Float[Array, "block percentile"]
    unit_percentiles: Float[Array, "block percentile"]


def forward_signals(network: Network, x: Inputs) -> ForwardSignals:
    """Second moments, variances and pre-activation percentiles by layer, batch norm in training mode.

    Cost: one forward pass. Source: Poole et al. 2016 (second moments); Ioffe & Szegedy 2015 (percentiles).
    """
    copy = training_copy(network)
    first = copy.stem(x)
    depth = copy.blocks.depth
    _, outputs, before = copy.blocks.trace(first, jnp.zeros((depth, *first.shape), first.dtype))
    hidden = jnp.concatenate([first[None], outputs])
    q = jnp.asarray(PERCENTILES, before.dtype)
    return ForwardSignals(
        second_moment=jnp.square(hidden).mean((1, 2)),
        batch_variance=hidden.var(1).mean(1),
        percentiles=jnp.percentile(before.reshape(depth, -1), q, axis=1).T,
        unit_percentiles=jnp.percentile(before[:, :, 0], q, axis=1).T,
    )

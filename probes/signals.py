"""How signals fare on the way down: the size of every hidden state and the distribution of every pre-activation."""

import math
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from nets import Network
from probes.network import Inputs, training_copy

PERCENTILES = (15.0, 50.0, 85.0)
# Values of a layer that percentiles are taken of, at most: sorting all of a large image net's would take minutes.
_VALUES = 2**17


class ForwardSignals(NamedTuple):
    """What a batch looks like inside a network; a unit of a convolutional one is a channel, its batch all pixels.

    Attributes:
      second_moment: mean of `h_l²` over batch and units, `l = 0..depth`.
      batch_variance: variance of `h_l` over the batch, mean over units, `l = 0..depth`.
      percentiles: the 15th, 50th and 85th percentile of block l's pre-activations over batch and units, `l = 1..depth`;
        where these are more than 131,072, over evenly spaced samples and pixels, no more than that many values.
      unit_percentiles: the same (of the same samples and pixels) over the batch alone, for the first unit: what Ioffe &
        Szegedy 2015, figure 1, draws.
    """

    second_moment: Float[Array, " layer"]
    batch_variance: Float[Array, " layer"]
    percentiles: Float[Array, "block percentile"]
    unit_percentiles: Float[Array, "block percentile"]


def forward_signals(network: Network, x: Inputs) -> ForwardSignals:
    """Second moments, variances and pre-activation percentiles by layer, batch norm in training mode.

    Cost: one forward pass. Source: Poole et al. 2016 (second moments); Ioffe & Szegedy 2015 (percentiles).
    """
    trace = training_copy(network).trace(x)

    def by_unit(layers: Array) -> Float[Array, "layer row unit"]:
        return layers.reshape(layers.shape[0], -1, layers.shape[-1])

    def percentiles(layers: Array, dims: tuple[int, ...]) -> Array:
        return jnp.percentile(layers, jnp.asarray(PERCENTILES, layers.dtype), axis=dims).T

    def thinned(layers: Array) -> Array:
        # A step that shares no factor with the pixels of an image, so as not to pick the same ones of every image.
        pixels = layers.shape[1] // len(x)
        step = -(-layers[0].size // _VALUES)
        while math.gcd(step, pixels) > 1:
            step += 1
        return layers[:, ::step]

    hidden = [by_unit(layers) for layers in trace.outputs.values()]
    before = [thinned(by_unit(layers)) for layers in trace.before.values()]
    return ForwardSignals(
        second_moment=jnp.concatenate([jnp.square(h).mean((1, 2)) for h in hidden]),
        batch_variance=jnp.concatenate([h.var(1).mean(1) for h in hidden]),
        percentiles=jnp.concatenate([percentiles(z, (1, 2)) for z in before]),
        unit_percentiles=jnp.concatenate([percentiles(z[:, :, 0], (1,)) for z in before]),
    )

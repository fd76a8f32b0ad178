"""How much of a residual block's output comes from its branch, and how much from its skip."""

from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float

from nets import Block, Hyperparameter, Network, Stack
from nets.blocks import Hidden
from probes.network import Inputs, training_copy


def branch_share(network: Network, x: Inputs) -> Float[Array, " block"]:
    """The residual branch's share in the variance of every block: `Var(branch) / Var(skip + branch)`.

    The sum is the block's output where nothing follows it (`pre`), and else what its last activation is applied to
    (`post`). Variances are over the batch (and pixels), averaged over units; batch norm is in training mode. The share
    is 1 without a skip, and may be above it where branch and skip cancel.

    Cost: three forward passes. Source: De & Smith 2020, section 3: near initialization it falls like 1/l, so that
    normalized residual blocks tend to the identity.
    """
    copy = training_copy(network)
    outputs = nnx.clone(copy).trace(x).outputs
    found, h = [], outputs["stem"][0]
    for name, section in copy.hidden.items():
        if isinstance(section, Stack):
            found.append(_of_stack(section, jnp.concatenate([h[None], outputs[name][:-1]])))
        else:
            found.append(_share(section, h)[None])
        h = outputs[name][-1]
    return jnp.concatenate(found)


def _of_stack(stack: Stack, inputs: Array) -> Array:
    graphdef, state = nnx.split(stack.layers)

    def layer(arrays: tuple) -> Array:
        state, h = arrays
        return _share(nnx.merge(graphdef, state), h)

    return lax.map(layer, (nnx.as_pure(state), inputs))


def _share(block: Block, h: Hidden) -> Array:
    def total(skip: float) -> Array:
        module = nnx.clone(block)
        settings = nnx.state(module, Hyperparameter)
        nnx.update(module, jax.tree.map(partial(jnp.multiply, skip), settings))
        return module(h) if block.activates_first else module.preactivation(h)

    def variance(z: Array) -> Array:
        return z.var(tuple(range(z.ndim - 1))).mean()

    return variance(total(0.0)) / variance(total(1.0))

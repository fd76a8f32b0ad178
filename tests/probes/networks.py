"""Small networks as explicit lists of layers: what probes of layers are compared with."""

import jax
import jax.numpy as jnp
import optax
from flax import nnx

DEPTH = 4
LABELS = jnp.arange(9) % 3


def blocks_of(network):
    """The stack's blocks as modules of their own."""
    graphdef, state = nnx.split(network.blocks.layers)
    states = [jax.tree.map(lambda leaf, i=i: leaf[i], nnx.as_pure(state)) for i in range(network.blocks.depth)]
    return [nnx.merge(graphdef, state) for state in states]


def layers_of(network):
    """Stem, blocks and head."""
    network = nnx.clone(network)
    return [network.stem, *blocks_of(network), network.head]


def hidden_states(layers, x):
    """h_0 to h_L, and the logits."""
    found = []
    for layer in layers:
        found.append(x := nnx.clone(layer)(x))
    return found[:-1], found[-1]


def states_of(layers):
    """Every layer's parameters, and a function of these: the loss of a batch."""
    splits = [nnx.split(layer, nnx.Param, ...) for layer in layers]
    params = [nnx.as_pure(split[1]) for split in splits]
    others = [(split[0], nnx.as_pure(split[2])) for split in splits]

    def loss(params, x, labels):
        for (graphdef, rest), own in zip(others, params, strict=True):
            x = nnx.merge(graphdef, own, rest)(x)
        return optax.softmax_cross_entropy_with_integer_labels(x, labels).mean()

    return params, loss

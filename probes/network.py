"""What every probe starts from."""

from collections.abc import Callable
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, PyTree

from nets import Network, Stack

Inputs = Float[Array, "batch *features"]
Labels = Int[Array, " batch"]

N = TypeVar("N", bound=Network)


def training_copy(network: N) -> N:
    """A copy in training mode, whose variables may change without the caller's network noticing."""
    copy = nnx.clone(network)
    copy.train()
    return copy


def frozen_copy(network: N, x: Inputs) -> N:
    """A copy whose batch norm holds the statistics of the batch `x`. Cost: one forward pass, if there is any."""
    copy = training_copy(network)
    # With momentum 0 the running statistics become the batch's; evaluation mode then holds them there.
    copy.set_attributes(momentum=0.0, raise_if_not_found=False)
    copy(x)
    copy.eval()
    return copy


def loss_of(
    network: Network, x: Inputs, labels: Labels
) -> tuple[Callable[[nnx.State], Float[Array, ""]], PyTree[Array]]:
    """The batch's mean cross-entropy as a pure function of the parameters, and these; batch norm in training mode."""
    graphdef, params, rest = nnx.split(training_copy(network), nnx.Param, ...)
    params, rest = nnx.as_pure((params, rest))

    def loss(params: nnx.State) -> Array:
        logits = nnx.merge(graphdef, params, rest)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    return loss, params


def weights_by_layer(network: Network, arrays: PyTree[Array]) -> Float[Array, " layer"]:
    """The sum of all entries of arrays shaped like a network's parameters, by layer: index 0 the stem, l block l.

    Weight matrices and convolutions count; biases and scales do not, and neither does the head.
    """

    def of(name: str) -> Array:
        stacked = isinstance(network.sections[name], Stack)
        matrices = [leaf for leaf in jax.tree.leaves(arrays[name]) if leaf.ndim >= 2 + stacked]
        return sum_by_layer(matrices if stacked else [leaf[None] for leaf in matrices])

    return jnp.concatenate([of(name) for name in network.section_names[:-1]])


def sum_by_layer(arrays: list[Array]) -> Float[Array, " layer"]:
    """The sum of arrays `[layer, ...]`, of each layer separately."""
    return jnp.stack([array.sum(tuple(range(1, array.ndim))) for array in arrays]).sum(0)


def layer_indices(network: Network) -> dict[str, Int[Array, "..."]]:
    """Every section's layers as they are counted: the stem 0, block l is l, the head one more than the last block."""
    found, count = {}, 0
    for name, section in network.sections.items():
        layers = section.depth if isinstance(section, Stack) else 1
        indices = jnp.arange(count, count + layers)
        found[name] = indices if isinstance(section, Stack) else indices[0]
        count += layers
    return found


def norm(arrays: PyTree[Array]) -> Float[Array, ""]:
    """The Euclidean norm of all entries together, whose squares may leave the range of floats."""
    leaves = jax.tree.leaves(arrays)
    largest = jnp.stack([jnp.abs(leaf).max() for leaf in leaves]).max()
    scale = jnp.where(largest == 0, 1, largest)
    return largest * jnp.sqrt(sum(jnp.square(leaf / scale).sum() for leaf in leaves))

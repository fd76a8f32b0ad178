"""What a probe asks of a network: a stem, a stack of blocks, a head. `nets.MLP` is one; any module of this shape will do."""

from typing import Protocol

from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from nets import Stack

Inputs = Float[Array, "batch *features"]
Labels = Int[Array, " batch"]
Hidden = Float[Array, "batch width"]


class Network(Protocol):
    """Maps inputs to logits as `head(blocks(stem(x)))`."""

    stem: nnx.Module
    blocks: Stack
    head: nnx.Module


def training_copy(network: nnx.Module) -> nnx.Module:
    """A copy whose variables may change without the caller's network noticing, in training mode."""
    copy = nnx.clone(network)
    copy.train()
    return copy

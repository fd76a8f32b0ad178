"""What every probe starts from."""

from typing import TypeVar

from flax import nnx
from jax import Array
from jaxtyping import Float, Int

from nets import Network

Inputs = Float[Array, "batch *features"]
Labels = Int[Array, " batch"]

N = TypeVar("N", bound=Network)


def training_copy(network: N) -> N:
    """A copy in training mode, whose variables may change without the caller's network noticing."""
    copy = nnx.clone(network)
    copy.train()
    return copy

"""The shape of every deep network here: a stem, a stack of blocks, a head. Sweeps and probes ask for no more."""

from abc import ABC, abstractmethod

from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.stack import Stack


class Part(nnx.Module, ABC):
    """A module of one input and one output."""

    @abstractmethod
    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The part's output."""


class Network(nnx.Module):
    """`head(blocks(stem(x)))`: the first hidden state is `h_0 = stem(x)`, the last `h_depth`."""

    stem: Part
    blocks: Stack
    head: Part

    def __call__(self, x: Float[Array, "batch *features"]) -> Float[Array, "batch classes"]:
        """The logits. Uses and updates batch statistics in training mode, running ones in evaluation mode."""
        return self.head(self.blocks(self.stem(x)))

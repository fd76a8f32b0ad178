"""The two ends of a network: from the input to the first hidden state, and from the last one to the logits."""

from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.activations import ACTIVATIONS
from nets.network import Part


class _Edge(Part):
    """A linear map and, where the blocks leave it open, a norm and an activation."""

    def __init__(self, linear: nnx.Module, norm: nnx.Module | None, activation: str):
        self.linear = linear
        self.norm = nnx.data(norm)
        self.activation = ACTIVATIONS[activation]

    def normalize(self, h: Float[Array, "batch *features"]) -> Float[Array, "batch *features"]:
        return h if self.norm is None else self.norm(h, activation=self.activation)


class DenseStem(_Edge):
    """Linear first, on all of the input's numbers."""

    def __call__(self, x: Float[Array, "batch *features"]) -> Float[Array, "batch width"]:
        return self.normalize(self.linear(x.reshape(len(x), -1)))


class ConvolutionStem(_Edge):
    """Linear first, on images."""

    def __call__(self, x: Float[Array, "batch height width channel"]) -> Float[Array, "batch height width channel_out"]:
        return self.normalize(self.linear(x))


class Head(_Edge):
    """Linear last, on the mean over pixels where there are any (Lin et al. 2014)."""

    def __call__(self, h: Float[Array, "batch *pixels width"]) -> Float[Array, "batch classes"]:
        h = self.normalize(h)
        return self.linear(h.mean(tuple(range(1, h.ndim - 1))))

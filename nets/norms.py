"""Norms by name. A norm is called as `norm(x, residual=None, activation=None)`, so that it may fuse what follows it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from flax import nnx
from jax import Array
from jaxtyping import Float

from kernels.batchnorm.activations import Activation
from nets.batchnorm import BatchNorm


class NoNorm(nnx.Module):
    """`activation(x + residual)`: the place of a norm, with none in it."""

    def __init__(self, num_features: int, *, rngs: nnx.Rngs):
        del num_features, rngs  # the signature every norm shares

    def __call__(
        self,
        x: Float[Array, "*rows features"],
        *,
        residual: Float[Array, "*rows features"] | None = None,
        activation: Activation | None = None,
    ) -> Float[Array, "*rows features"]:
        if residual is not None:
            x = x + residual
        return x if activation is None else activation(x)


@dataclass(frozen=True)
class Norm:
    """How networks get a norm.

    Attributes:
      make: `make(num_features, rngs=...)` returns the module.
      absorbs_bias: whether a bias added before the norm is undone by it; linear maps before such a norm have none.
    """

    make: Callable[..., nnx.Module]
    absorbs_bias: bool


# 300 steps are a usual length here: Flax's momentum of 0.99 would still hold 5 % of the initial statistics.
NORMS: dict[str, Norm] = {
    "none": Norm(NoNorm, absorbs_bias=False),
    "batch": Norm(partial(BatchNorm, momentum=0.9), absorbs_bias=True),
}

"""The layer a network is deep in. Two published orders of linear map, norm, activation and skip.

A block maps a hidden state to the next, `[batch, width]` or `[batch, height, width, channel]`, and, for the probes,
gives the pre-activation it computes on the way. Any `Block` can stand in the place of the first two: add it to `ORDERS`
and the commands know it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable

import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from kernels.batchnorm.activations import Activation
from nets.activations import ACTIVATIONS
from nets.norms import NORMS
from nets.variables import Hyperparameter

Hidden = Float[Array, "batch *features"]

# Kinds of net by the strength of their skips.
SKIP_STRENGTH = {"plain": 0.0, "residual": 1.0}


class Block(nnx.Module, ABC):
    """What a network asks of its layers."""

    activates_first: bool
    """Whether norm and activation precede the weights; if so the readout needs a last pair of them."""

    @abstractmethod
    def __call__(self, h: Hidden) -> Hidden:
        """The next hidden state."""

    @abstractmethod
    def preactivation(self, h: Hidden) -> Hidden:
        """What the block's activation is applied to, the last of them if it has several."""


class _LinearNormActivation(Block):
    """One linear map, made by `linear(use_bias=..., rngs=...)`, of `features` (units or channels) to as many."""

    def __init__(
        self,
        features: int,
        linear: Callable[..., nnx.Linear | nnx.Conv],
        *,
        skip: float | Float[Array, ""],
        norm: str,
        activation: str,
        rngs: nnx.Rngs,
    ):
        self.linear = linear(use_bias=not NORMS[norm].absorbs_bias, rngs=rngs)
        self.norm = NORMS[norm].make(features, rngs=rngs)
        self.activation: Activation = ACTIVATIONS[activation]
        self.skip = Hyperparameter(jnp.asarray(skip, self.linear.kernel.dtype))

    def _skipped(self, h: Hidden) -> Hidden:
        return self.skip[...].astype(h.dtype) * h


class PostActivation(_LinearNormActivation):
    """`h' = φ(norm(W h + b) + skip h)`: the order of He et al. 2015; with `skip` 0 the usual plain layer."""

    activates_first = False

    def preactivation(self, h: Hidden) -> Hidden:
        return self.norm(self.linear(h), residual=self._skipped(h))

    def __call__(self, h: Hidden) -> Hidden:
        return self.norm(self.linear(h), residual=self._skipped(h), activation=self.activation)


class PreActivation(_LinearNormActivation):
    """`h' = skip h + W φ(norm(h)) + b`: the order of He et al. 2016, whose skip path nothing interrupts."""

    activates_first = True

    def preactivation(self, h: Hidden) -> Hidden:
        return self.norm(h)

    def __call__(self, h: Hidden) -> Hidden:
        return self._skipped(h) + self.linear(self.norm(h, activation=self.activation))


ORDERS: dict[str, type[_LinearNormActivation]] = {"post": PostActivation, "pre": PreActivation}

"""The block of two convolutions that residual networks for CIFAR are deep in, with what may change size on the way."""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from kernels.batchnorm.activations import Activation
from nets.activations import ACTIVATIONS
from nets.blocks import Block, Hidden
from nets.initializers import Scale, convolution
from nets.norms import NORMS
from nets.variables import Hyperparameter

Resized = Float[Array, "batch height_out width_out channel_out"]


class ZeroChannels(nnx.Module):
    """Every `stride`-th pixel, and channels of zeros: no parameters (He et al. 2015, section 3.3, option A)."""

    def __init__(self, in_channels: int, channels: int, stride: int, **settings: Any):
        del settings  # the signature every shortcut shares
        self.stride = stride
        self.added_channels = channels - in_channels

    def __call__(self, h: Hidden) -> Resized:
        return jnp.pad(h[:, :: self.stride, :: self.stride], [(0, 0)] * 3 + [(0, self.added_channels)])


class Projection(nnx.Module):
    """A strided convolution of single pixels, and the norm it is given, if any (ibid., option B)."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, norm: str, rngs: nnx.Rngs, **scales: Any):
        biased = not NORMS[norm].absorbs_bias
        self.linear = convolution(in_channels, channels, window=1, stride=stride, use_bias=biased, rngs=rngs, **scales)
        self.norm = NORMS[norm].make(channels, rngs=rngs)

    def __call__(self, h: Hidden) -> Resized:
        return self.norm(self.linear(h))


# What brings a hidden state to the size of the next.
SHORTCUTS: dict[str, Callable[..., nnx.Module]] = {"A": ZeroChannels, "B": Projection}


class BasicBlock(Block):
    """Two 3x3 convolutions and a skip around them (He et al. 2015, figure 5 left; He et al. 2016, figure 4).

    post: `h' = φ(norm_2(W_2 φ(norm_1(W_1 h))) + skip shortcut(h))`
    pre:  `h' = skip shortcut(h) + W_2 φ(norm_2(W_1 φ(norm_1(h))))`

    Args:
      in_channels, channels: of h and of h'.
      stride: of the first convolution.
      order: `"post"` or `"pre"`.
      shortcut: `"A"` or `"B"`, see `SHORTCUTS`, where sizes differ.
      skip: 0 makes it two plain layers.
      norm, activation, init, weight_std, bias_std, rngs: see `nets.CNN`.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        *,
        order: str,
        shortcut: str,
        skip: Scale,
        norm: str,
        activation: str,
        init: str,
        weight_std: Scale,
        bias_std: Scale,
        rngs: nnx.Rngs,
    ):
        scales = {"init": init, "weight_std": weight_std, "bias_std": bias_std}
        layer = partial(convolution, use_bias=not NORMS[norm].absorbs_bias, **scales)
        # A stream each, so that weights do not depend on what norms and shortcut draw beside them.
        one, two, side = (nnx.Rngs(key) for key in jax.random.split(rngs.params(), 3))
        self.activates_first = order == "pre"
        self.linear1 = layer(in_channels, channels, stride=stride, rngs=one)
        self.norm1 = NORMS[norm].make(in_channels if self.activates_first else channels, rngs=one)
        self.linear2 = layer(channels, channels, rngs=two)
        self.norm2 = NORMS[norm].make(channels, rngs=two)
        self.activation: Activation = ACTIVATIONS[activation]
        self.skip = Hyperparameter(jnp.asarray(skip, self.linear1.kernel.dtype))
        self.shortcut: nnx.Module | None = nnx.data(None)
        if stride > 1 or in_channels != channels:
            # Nothing but a linear map interrupts the skips of pre-activation nets.
            side_norm = "none" if self.activates_first else norm
            self.shortcut = SHORTCUTS[shortcut](in_channels, channels, stride, norm=side_norm, rngs=side, **scales)

    def _skipped(self, h: Hidden) -> Resized:
        return self.skip[...].astype(h.dtype) * (h if self.shortcut is None else self.shortcut(h))

    def _last(self, h: Hidden, activation: Activation | None) -> Resized:
        """Post-activation's last norm, with what follows it."""
        between = self.norm1(self.linear1(h), activation=self.activation)
        return self.norm2(self.linear2(between), residual=self._skipped(h), activation=activation)

    def _inner(self, h: Hidden, activation: Activation | None) -> Resized:
        """Pre-activation's last norm, with what follows it."""
        return self.norm2(self.linear1(self.norm1(h, activation=self.activation)), activation=activation)

    def preactivation(self, h: Hidden) -> Resized:
        return self._inner(h, None) if self.activates_first else self._last(h, None)

    def __call__(self, h: Hidden) -> Resized:
        if not self.activates_first:
            return self._last(h, self.activation)
        return self._skipped(h) + self.linear2(self._inner(h, self.activation))

"""Weight distributions at unit scale, variance 1/fan_in; a layer multiplies them by its `weight_std`."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import normal, variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from kernels import conv
from kernels.linalg import qr

Scale = float | Float[Array, ""]


def _orthogonal(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = float
) -> Float[Array, "*window fan_in fan_out"]:
    """Orthonormal columns; where there are more columns than rows, orthonormal rows scaled to variance 1/fan_in.

    The Q of a Gaussian matrix, columns signed by R's diagonal, is uniform over such matrices (Mezzadri 2007). The rows
    of a convolution's matrix are its window's pixels and channels.
    """
    fan_in, fan_out = math.prod(shape[:-1]), shape[-1]
    q, r = qr(jax.random.normal(key, (max(fan_in, fan_out), min(fan_in, fan_out)), dtype))
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype)
    return (q if fan_in >= fan_out else q.T * (fan_out / fan_in) ** 0.5).reshape(shape)


def _delta_orthogonal(
    key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = float
) -> Float[Array, "*window fan_in fan_out"]:
    """An orthogonal matrix in the window's middle and zeros around it, which keeps an image's norm.

    A matrix without a window is its own middle. Source: Xiao et al. 2018, section 3.1.
    """
    *window, fan_in, fan_out = shape
    middle = tuple((size - 1) // 2 for size in window)
    return jnp.zeros(shape, dtype).at[middle].set(_orthogonal(key, (fan_in, fan_out), dtype))


INITIALIZERS: dict[str, Callable[..., Array]] = {
    "normal": variance_scaling(1.0, "fan_in", "normal"),
    "orthogonal": _orthogonal,
    "delta-orthogonal": _delta_orthogonal,
}


def _settings(init: str, weight_std: Scale, bias_std: Scale) -> dict[str, Any]:
    """Arguments that Flax's linear maps share. The scales may be traced: networks of many scales in one `vmap`."""
    unit, unit_bias = INITIALIZERS[init], normal(1.0)
    return {
        "kernel_init": lambda *args: weight_std * unit(*args),
        "bias_init": lambda *args: bias_std * unit_bias(*args),
        "param_dtype": float,  # double where JAX is told to compute in double
    }


def dense(
    in_features: int,
    out_features: int,
    *,
    init: str,
    weight_std: Scale,
    bias_std: Scale,
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer with weights of variance `weight_std**2 / in_features` and biases of variance `bias_std**2`."""
    return nnx.Linear(in_features, out_features, use_bias=use_bias, rngs=rngs, **_settings(init, weight_std, bias_std))


def convolution(
    in_channels: int,
    out_channels: int,
    *,
    window: int = 3,
    stride: int = 1,
    init: str,
    weight_std: Scale,
    bias_std: Scale,
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Conv:
    """A 2D convolution, weights of variance `weight_std**2 / (window**2 in_channels)`, biases of `bias_std**2`.

    Flax's module on `kernels.conv`: zero padding, windows centred on every `stride`-th pixel.
    """
    return nnx.Conv(
        in_channels,
        out_channels,
        (window, window),
        use_bias=use_bias,
        conv_general_dilated=Strided(stride),
        rngs=rngs,
        **_settings(init, weight_std, bias_std),
    )


@dataclass(frozen=True)
class Strided:
    """`kernels.conv` where Flax expects `lax.conv_general_dilated`; equal ones are equal, so programs are reused."""

    stride: int

    def __call__(self, x: Array, w: Array, *unit_strides_and_padding: Any, **defaults: Any) -> Array:
        """The convolution."""
        del unit_strides_and_padding, defaults  # those of a convolution without strides, which `convolution` asked for
        return conv(x, w, stride=self.stride, padding="centred")

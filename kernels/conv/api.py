"""Convolutions with a member axis on images and kernels."""

from typing import Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from kernels.conv import primitive, reference
from kernels.conv.geometry import Geometry, Padding

Implementation = Literal["reference", "grouped", "native", "matmul"]


def ensemble_conv(
    x: Float[Array, "member batch height width channel"],
    w: Float[Array, "member rows columns channel channel_out"],
    *,
    stride: int = 1,
    padding: Padding = "same",
    implementation: Implementation | None = None,
) -> Float[Array, "member batch height_out width_out channel_out"]:
    """Convolves every member's images with its own kernel: 2D, strided, padded with zeros.

    `y[m, b, h, k, o] = sum_ijc x[m, b, h s + i - p, k s + j - p, c] w[m, i, j, c, o]`, p the zeros before the image.
    Every derivative of every order, in both modes, under `jit`, `vmap`, `scan` and `shard_map`, is made of three maps,
    the convolution and its two transposes, each as fast as this one. Sums are in float32 at least.

    Args:
      x: images.
      w: kernels.
      stride: on both axes.
      padding: `same`, as XLA has it, or `centred`, an odd window's middle on every `stride`-th pixel, as in PyTorch.
      implementation: how the three maps are computed: `native`, one member at a time by XLA's forward convolution;
        `matmul`, all members at once by a batched product for every pixel of the window; `grouped`, XLA's convolution
        under `vmap`, with XLA's derivatives; `reference`, the textbook. None chooses `native` on CPUs and for one
        member, else `matmul`, which was not measured there.

    Returns:
      `height_out = ceil(height / stride)`, and so the width.

    Raises:
      TypeError: x is not floating, or w is of another dtype.
      ValueError: shapes that do not fit, no pixels, a stride below 1, an unknown padding or implementation.
    """
    _check(x, w, stride, padding, implementation)
    geometry = Geometry.of((x.shape[2], x.shape[3]), (w.shape[1], w.shape[2]), stride, padding)
    precision = jax.config.jax_default_matmul_precision  # pyright: ignore[reportAttributeAccessIssue]
    if implementation == "reference":
        return reference.ensemble_conv(x, w, geometry)
    if implementation == "grouped":
        return jax.vmap(
            lambda x, w: lax.conv_general_dilated(
                x, w, (stride, stride), geometry.zeros, dimension_numbers=("NHWC", "HWIO", "NHWC")
            )
        )(x, w)
    return primitive.bind(x, w, gives="y", geometry=geometry, implementation=implementation, precision=precision)


def conv(
    x: Float[Array, "batch height width channel"],
    w: Float[Array, "rows columns channel channel_out"],
    *,
    stride: int = 1,
    padding: Padding = "same",
    implementation: Implementation | None = None,
) -> Float[Array, "batch height_out width_out channel_out"]:
    """One network's convolution; under `vmap` it is `ensemble_conv`, whose arguments and errors it has."""
    return ensemble_conv(x[None], w[None], stride=stride, padding=padding, implementation=implementation)[0]


def _check(x: Array, w: Array, stride: int, padding: str, implementation: str | None) -> None:
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"ensemble_conv: x must be floating, got {x.dtype}")
    if w.dtype != x.dtype:
        raise TypeError(f"ensemble_conv: w must have x's dtype {x.dtype}, got {w.dtype}")
    if x.ndim != 5 or 0 in x.shape:
        raise ValueError(f"ensemble_conv: x must be [member, batch, height, width, channel], none empty, got {x.shape}")
    if w.ndim != 5 or 0 in w.shape or (w.shape[0], w.shape[3]) != (x.shape[0], x.shape[4]):
        expected = f"[{x.shape[0]}, rows, columns, {x.shape[4]}, channel_out]"
        raise ValueError(f"ensemble_conv: w must be {expected} to go with x {x.shape}, got {w.shape}")
    if stride < 1:
        raise ValueError(f"ensemble_conv: stride must be at least 1, got {stride}")
    if padding not in get_args(Padding):
        raise ValueError(f"ensemble_conv: padding must be one of {', '.join(get_args(Padding))}, got {padding!r}")
    known = get_args(Implementation)
    if implementation is not None and implementation not in known:
        raise ValueError(
            f"ensemble_conv: implementation must be None or one of {', '.join(known)}, got {implementation!r}"
        )

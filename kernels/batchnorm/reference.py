"""The textbook: batch norm as Ioffe & Szegedy 2015, Algorithm 1, prints it. The twin of every fast form."""

from typing import Any

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from kernels.batchnorm.activations import Activation


def normalize(
    x: Float[Array, "*rows features"],
    mean: Float[Array, " features"],
    var: Float[Array, " features"],
    scale: Float[Array, " features"] | None,
    bias: Float[Array, " features"] | None,
    *,
    residual: Float[Array, "*rows features"] | None = None,
    activation: Activation | None = None,
    epsilon: float = 1e-5,
) -> Float[Array, "*rows features"]:
    """`activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)` with given statistics: evaluation mode.

    Computed in float32 at least, returned in `x`'s dtype.

    Raises:
      ValueError: a residual that is not shaped like `x`.
    """
    if residual is not None and residual.shape != x.shape:
        raise ValueError(f"normalize: residual must have shape {x.shape}, got {residual.shape}")
    # By dtype alone: a weakly typed mean, as `jnp.full` makes, would be rounded to x's.
    wide = jnp.promote_types(jnp.promote_types(x.dtype, mean.dtype), jnp.float32)
    multiplier = lax.rsqrt(var.astype(wide) + epsilon)
    if scale is not None:
        multiplier = multiplier * scale
    y = (x.astype(wide) - mean.astype(wide)) * multiplier
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual
    return (y if activation is None else activation(y)).astype(x.dtype)


def batch_norm(
    x: Float[Array, "rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    residual: Float[Array, "rows features"] | None,
    mask: Bool[Array, "rows #features"] | None,
    activation: Activation | None,
    epsilon: float,
    axis_name: Any,
    axis_index_groups: Any,
) -> tuple[Float[Array, "rows features"], Float[Array, " features"], Float[Array, " features"]]:
    """Batch norm in two passes over `x`, with whatever derivative autodiff finds; see `kernels.batch_norm`."""
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    counts = jnp.broadcast_to(True if mask is None else mask, x.shape)

    def total(values: Array) -> Array:
        local = jnp.where(counts, values, 0).sum(0)
        return local if axis_name is None else lax.psum(local, axis_name, axis_index_groups=axis_index_groups)

    count = total(jnp.ones_like(wide))
    mean = total(wide) / count
    var = total(jnp.square(wide - mean)) / count
    y = normalize(wide, mean, var, scale, bias, residual=residual, activation=activation, epsilon=epsilon)
    return y.astype(x.dtype), mean, var

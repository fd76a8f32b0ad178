"""The textbook: batch norm as Ioffe & Szegedy 2015, Algorithm 1, prints it. The twin of every fast form."""

from collections.abc import Callable

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

Activation = Callable[[Array], Array]


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
    """`activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)` with given statistics: evaluation mode."""
    multiplier = lax.rsqrt(var + epsilon)
    if scale is not None:
        multiplier = multiplier * scale
    y = (x - mean) * multiplier
    if bias is not None:
        y = y + bias
    if residual is not None:
        y = y + residual
    y = y.astype(x.dtype)
    return y if activation is None else activation(y)


def batch_norm(
    x: Float[Array, "*rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    residual: Float[Array, "*rows features"] | None = None,
    activation: Activation | None = None,
    epsilon: float = 1e-5,
) -> tuple[Float[Array, "*rows features"], Float[Array, " features"], Float[Array, " features"]]:
    """Batch norm in two passes over `x`, with whatever derivative autodiff finds; see `kernels.batch_norm`."""
    rows = tuple(range(x.ndim - 1))
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean = wide.mean(rows)
    var = jnp.square(wide - mean).mean(rows)
    y = normalize(wide, mean, var, scale, bias, residual=residual, activation=activation, epsilon=epsilon)
    return y.astype(x.dtype), mean, var

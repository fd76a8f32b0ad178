"""One call for batch norm: checks its arguments at trace time and dispatches to an implementation."""

from typing import Literal

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from kernels.batchnorm import reference, xla
from kernels.batchnorm.reference import Activation

Implementation = Literal["reference", "xla"]
IMPLEMENTATIONS = {"reference": reference.batch_norm, "xla": xla.batch_norm}


def batch_norm(
    x: Float[Array, "*rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    residual: Float[Array, "*rows features"] | None = None,
    activation: Activation | None = None,
    epsilon: float = 1e-5,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "*rows features"], Float[Array, " features"], Float[Array, " features"]]:
    """Batch norm: `y = activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)`, features last.

    Differentiable in reverse mode by every array argument, through all three results, under `jit`, `vmap`, `scan` and
    `remat`. Statistics are computed in float32 at least.

    Args:
      x: the input, features last, any number of leading axes.
      scale: γ, one number per feature.
      bias: β, one number per feature.
      residual: added before the activation, shaped like `x`.
      activation: an elementwise function, or None.
      epsilon: added to the variance.
      implementation: `"xla"` (fused, every backend), `"reference"` (the textbook), or None to choose.

    Returns:
      `(y, mean, var)`: the output in `x`'s dtype, and the batch's mean and biased variance per feature.

    Raises:
      TypeError: `x` is not floating point.
      ValueError: no rows, a shape that does not fit `x`, or an unknown implementation.

    Source: Ioffe & Szegedy 2015, Algorithm 1.
    """
    if not jnp.issubdtype(x.dtype, jnp.floating):
        raise TypeError(f"batch_norm: x must be floating point, got {x.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"batch_norm: x must have shape [rows..., features] and at least one row, got {x.shape}")
    for name, given, expected in (
        ("scale", scale.shape, x.shape[-1:]),
        ("bias", bias.shape, x.shape[-1:]),
        ("residual", x.shape if residual is None else residual.shape, x.shape),
    ):
        if given != expected:
            raise ValueError(f"batch_norm: {name} must have shape {expected}, got {given}")
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"batch_norm: implementation must be None or one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}"
        )
    chosen = IMPLEMENTATIONS[implementation or "xla"]
    return chosen(x, scale, bias, residual=residual, activation=activation, epsilon=epsilon)

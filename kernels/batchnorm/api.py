"""One call for batch norm: checks its arguments at trace time and dispatches to an implementation."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float

from kernels.batchnorm import chips, fused, reference, xla
from kernels.batchnorm.activations import Activation, resolve
from kernels.batchnorm.fused import Settings

Implementation = Literal["reference", "xla", "pallas", "pallas_interpret"]
IMPLEMENTATIONS = get_args(Implementation)


def batch_norm(
    x: Float[Array, "*rows features"],
    scale: Float[Array, " features"],
    bias: Float[Array, " features"],
    *,
    residual: Float[Array, "*rows features"] | None = None,
    activation: str | Activation | None = None,
    epsilon: float = 1e-5,
    mask: Bool[Array, "..."] | None = None,
    axis_name: str | tuple[str, ...] | None = None,
    axis_index_groups: Sequence[Sequence[int]] | None = None,
    implementation: Implementation | None = None,
) -> tuple[Float[Array, "*rows features"], Float[Array, " features"], Float[Array, " features"]]:
    """Batch norm: `y = activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)`, features last.

    Differentiable to any order, forward and reverse, by every array argument but the mask and through all three
    results, under `jit`, `vmap`, `scan`, `remat` and `shard_map`. Statistics are computed in float32 at least. A NaN or
    infinity stays in its feature. For the backward pass `x` is kept and numbers per feature; where an activation
    follows a residual, its slope needs more than x tells: after relu `y` is kept, after others the residual.

    Args:
      x: the input, features last, any number of leading axes.
      scale: γ, one number per feature.
      bias: β, one number per feature.
      residual: added before the activation, shaped like `x`.
      activation: None, `"relu"`, `"tanh"`, `"gelu"`, `"silu"`, or an elementwise function.
      epsilon: added to the variance.
      mask: True where an entry of `x` counts for the statistics, broadcast against `x`; all entries are normalized.
      axis_name: a mapped axis (of `vmap` or `shard_map`), or several, whose batches share their statistics; each may
        count differently many entries.
      axis_index_groups: parts of that axis that share, as in `jax.lax.psum`.
      implementation: `"xla"` (fused, every backend), `"pallas"` (kernels for GPUs and TPUs; persistent where
        `kernels.batchnorm.chips.tile_width` finds room, with neither `mask` nor `axis_name`, else split; on GPUs
        from Hopper on, an activation of operations that Mosaic GPU does not compile is applied after the kernel),
        `"pallas_interpret"` (the same emulated, on any backend, slowly), `"reference"` (the textbook), or None to
        choose: `"xla"`, until measurements on an accelerator say otherwise.

    Returns:
      `(y, mean, var)`: the output in `x`'s dtype, and the batch's mean and biased variance per feature; NaN for a
        feature of which no entry counts. Of a constant feature y is `bias + residual` under the activation, and x's
        cotangent, like that of any feature whose variance is small beside epsilon, `scale (g - mean(g))/sqrt(epsilon)`.

    Raises:
      TypeError: `x`, `residual` or `mask` of a wrong dtype, an activation that is no function.
      ValueError: no rows, a shape that does not fit `x`, an unknown activation or implementation, groups without an
        axis.

    Source: Ioffe & Szegedy 2015, Algorithm 1; statistics of several devices, Chan, Golub & LeVeque 1983.
    """
    activation = resolve(activation)
    _check(x, scale, bias, residual, mask, activation, axis_name, axis_index_groups, implementation)
    rows, features = x.size // x.shape[-1], x.shape[-1]

    def flat(array: Any) -> Any:
        return None if array is None else array.reshape(rows, features)

    if mask is not None:
        # A mask that is the same for all features stays one column.
        shape = (1,) * (x.ndim - mask.ndim) + mask.shape
        mask = jnp.broadcast_to(mask, (*x.shape[:-1], shape[-1])).reshape(rows, shape[-1])
    arrays = flat(x), scale, bias, flat(residual), mask
    if implementation == "reference":
        y, mean, var = reference.batch_norm(*arrays, activation, epsilon, axis_name, axis_index_groups)
        return y.reshape(x.shape), mean, var
    chip = None
    if implementation in ("pallas", "pallas_interpret"):
        chip = chips.EMULATED if implementation == "pallas_interpret" else chips.chip_here()
    precision, after = fused.precision(x), None
    if activation is not None and (
        # Its derivative by those arrays is JAX's to find.
        _closes_over_arrays(activation, x) or (chip is not None and not _takes(chip, activation, precision))
    ):
        # It is given what is not rounded yet.
        activation, after = None, activation
        arrays = arrays[0].astype(precision), *arrays[1:]
    options = activation, epsilon, axis_name, _frozen(axis_index_groups)
    if chip is not None:
        from kernels.batchnorm import pallas  # takes a quarter of a second, of those who ask for it

        y, statistics = pallas.batch_norm(Settings(pallas.reductions(chip), *options), chip, *arrays)
    else:
        y, statistics = fused.batch_norm(Settings(xla.REDUCTIONS, *options), *arrays)
    y = y.reshape(x.shape)
    return y if after is None else after(y).astype(x.dtype), statistics.mean, statistics.var


def _takes(chip: chips.Chip, activation: Activation, precision: jnp.dtype) -> bool:
    from kernels.batchnorm.mosaic import takes

    return takes(chip, activation, precision)


def check_implementation(implementation: str | None) -> None:
    """Raises ValueError for an implementation that is unknown or cannot run here, saying why."""
    if implementation is not None and implementation not in IMPLEMENTATIONS:
        raise ValueError(
            f"batch_norm: implementation must be None or one of {', '.join(IMPLEMENTATIONS)}, got {implementation!r}"
        )
    if implementation == "pallas":
        chips.chip_here()


def _frozen(groups: Sequence[Sequence[int]] | None) -> tuple[tuple[int, ...], ...] | None:
    return None if groups is None else tuple(map(tuple, groups))


def _closes_over_arrays(activation: Activation, x: Array) -> bool:
    return bool(jax.make_jaxpr(activation)(jnp.zeros(1, x.dtype)).consts)


def _check(
    x: Array,
    scale: Array,
    bias: Array,
    residual: Array | None,
    mask: Array | None,
    activation: Activation | None,
    axis_name: Any,
    groups: Any,
    implementation: str | None,
) -> None:
    """Refuses what cannot be meant; see `batch_norm`."""
    for name, array in (("x", x), ("scale", scale), ("bias", bias), ("residual", residual)):
        if array is not None and not jnp.issubdtype(array.dtype, jnp.floating):
            raise TypeError(f"batch_norm: {name} must be floating point, got {array.dtype}")
    if x.ndim < 2 or x.size == 0:
        raise ValueError(f"batch_norm: x must have shape [rows..., features] and at least one row, got {x.shape}")
    for name, given, expected in (
        ("scale", scale.shape, x.shape[-1:]),
        ("bias", bias.shape, x.shape[-1:]),
        ("residual", x.shape if residual is None else residual.shape, x.shape),
    ):
        if given != expected:
            raise ValueError(f"batch_norm: {name} must have shape {expected}, got {given}")
    if groups is not None and axis_name is None:
        raise ValueError(f"batch_norm: axis_index_groups are groups of axis_name, which is None, got {groups}")
    if mask is not None:
        if mask.dtype != bool:
            raise TypeError(f"batch_norm: mask must be bool, got {mask.dtype}")
        fits = mask.ndim <= x.ndim and all(m in (1, n) for m, n in zip(mask.shape[::-1], x.shape[::-1], strict=False))
        if not fits:
            raise ValueError(f"batch_norm: mask must broadcast to x's shape {x.shape}, got {mask.shape}")
    check_implementation(implementation)
    if activation is not None:
        try:
            out = jax.eval_shape(activation, jax.ShapeDtypeStruct((2, 3), x.dtype))
        except (TypeError, ValueError) as error:
            reason = str(error).partition("\n")[0]
            raise ValueError(
                f"batch_norm: activation must be elementwise, but fails on shape (2, 3): {reason}"
            ) from error
        if getattr(out, "shape", None) != (2, 3):
            raise ValueError(f"batch_norm: activation must be elementwise, but maps shape (2, 3) to {out}")

"""Batch norm fused for XLA on every backend: one pass for the statistics, and a derivative rule of its own.

Autodiff of the textbook keeps the centred and the normalized input, the mask and their intermediates for the backward
pass. This rule keeps `x`, `mean`, `rstd` and (where the activation needs it and can use it) the output `y`, which the
next layer holds anyway.
"""

from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from kernels.batchnorm.reference import Activation, normalize


def _relu_slope(y: Array) -> Array:
    return (y > 0).astype(y.dtype)


def _tanh_slope(y: Array) -> Array:
    return 1 - y * y


# Activations whose derivative can be read off their output, so that their input need not be kept.
_SLOPE_FROM_OUTPUT = {jax.nn.relu: _relu_slope, jnp.tanh: _tanh_slope, jax.nn.tanh: _tanh_slope}


def _statistics(x: Array) -> tuple[Array, Array]:
    """Mean and biased variance over all axes but the last, in one pass.

    E[x²] - E[x]² loses the variance where the mean is large; subtracting any sample of the channel first restores it
    without a second pass (Chan, Golub & LeVeque 1983, section 1).
    """
    rows = tuple(range(x.ndim - 1))
    shift = lax.stop_gradient(x[(0,) * (x.ndim - 1)])
    centred = x - shift
    count = x.size // x.shape[-1]
    first = centred.sum(rows) / count
    second = jnp.square(centred).sum(rows) / count
    return first + shift, jnp.maximum(second - first * first, 0)


@partial(jax.custom_vjp, nondiff_argnums=(4, 5))
def _batch_norm(x, scale, bias, residual, activation: Activation | None, epsilon: float):
    return _forward(x, scale, bias, residual, activation, epsilon)[0]


def _forward(x, scale, bias, residual, activation, epsilon):
    wide = x.astype(jnp.promote_types(x.dtype, jnp.float32))
    mean, var = _statistics(wide)
    y = normalize(wide, mean, var, scale, bias, residual=residual, activation=activation, epsilon=epsilon).astype(
        x.dtype
    )
    return (y, mean, var), (x, scale, bias, residual, mean, var, y)


def _forward_rule(x, scale, bias, residual, activation, epsilon):
    primals = (x, scale, bias, residual)
    x, scale, bias, residual = jax.tree.map(lambda p: p.value, primals, is_leaf=lambda leaf: hasattr(leaf, "perturbed"))
    outputs, (x, scale, bias, residual, mean, var, y) = _forward(x, scale, bias, residual, activation, epsilon)
    kept_y = y if activation in _SLOPE_FROM_OUTPUT else None
    # An activation without a rule above is differentiated at its input, which is recomputed, so the residual is kept.
    kept_residual = residual if kept_y is None and activation is not None else None
    residual_type = None if residual is None else jnp.zeros((0,), residual.dtype)
    return outputs, (x, scale, bias, kept_residual, mean, var, kept_y, residual_type)


def _backward_rule(activation, epsilon, saved, cotangents):
    x, scale, bias, residual, mean, var, y, residual_type = saved
    dy, dmean, dvar = cotangents
    wide = x.astype(mean.dtype)
    rstd = lax.rsqrt(var + epsilon)
    rows = tuple(range(x.ndim - 1))
    count = x.size // x.shape[-1]
    centred = wide - mean

    if isinstance(dy, SymbolicZero):
        g = jnp.zeros_like(wide)
    elif activation is None:
        g = dy.astype(mean.dtype)
    elif y is not None:
        g = dy.astype(mean.dtype) * _SLOPE_FROM_OUTPUT[activation](y).astype(mean.dtype)
    else:
        before = normalize(wide, mean, var, scale, bias, residual=residual, epsilon=epsilon)
        g = jax.vjp(activation, before)[1](dy.astype(before.dtype))[0]

    dbias = g.sum(rows)
    dscale = (g * centred).sum(rows) * rstd
    dx = scale * rstd * (g - dbias / count - centred * (rstd * dscale / count))
    if not isinstance(dmean, SymbolicZero):
        dx = dx + dmean / count
    if not isinstance(dvar, SymbolicZero):
        dx = dx + centred * (2 / count * dvar)
    dresidual = None if residual_type is None else g.astype(residual_type.dtype)
    return dx.astype(x.dtype), dscale.astype(scale.dtype), dbias.astype(bias.dtype), dresidual


_batch_norm.defvjp(_forward_rule, _backward_rule, symbolic_zeros=True)


@partial(jax.jit, static_argnames=("activation", "epsilon"))
def batch_norm(x, scale, bias, *, residual=None, activation=None, epsilon=1e-5):
    """See `kernels.batch_norm`."""
    return _batch_norm(x, scale, bias, residual, activation, epsilon)

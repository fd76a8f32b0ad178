"""Batch norm in one pass for the statistics and one for the output, with every derivative, whoever does the sums.

`y = activation((x - mean) multiplier + bias + residual)`, `multiplier = scale / sqrt(var + epsilon)`. Its tangent is
two maps over the rows with arithmetic on single features between them, which stays plain JAX, collectives included:

    sums:   dx -> Σ dx, Σ (x - mean) dx                                      giving dmean and dvar
    output: dx, dmultiplier, dshift, dresidual -> slope (multiplier dx + (x - mean) dmultiplier + dshift + dresidual)

Transposed, output is the backward pass's reduction and sums joins its last elementwise pass. Both keep `x` and numbers
by feature, nothing of `x`'s size besides, unless an activation follows a residual: then its slope needs the residual,
or for relu the output, which the next layer holds anyway.

An implementation gives the two reductions over rows (`Reductions`); elementwise passes are best left to XLA.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial, reduce
from operator import add
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero

from kernels.batchnorm.activations import Activation
from kernels.batchnorm.statistics import Statistics, across
from kernels.linear import Arrays, Direction, linear_map

Elementwise = Callable[[Arrays, Arrays], tuple[Array, ...]]


@dataclass(frozen=True)
class Reductions:
    """What of batch norm reduces rows, and so can be done in more than one way.

    Attributes:
      statistics: `(x, mask) -> Statistics` of the rows of one device, `x` of any dtype, computing in float32 at least.
      sums: `(function, rows, features)`, the arrays of `function(rows, features)` summed over rows; `rows` are arrays
        `[rows, features]` and `features` arrays `[features]`, either may hold None, and the function is elementwise.
    """

    statistics: Callable[[Array, Array | None], Statistics]
    sums: Callable[[Elementwise, Arrays, Arrays], tuple[Array, ...]]


@dataclass(frozen=True)
class Settings:
    """What is known of a call when it is traced."""

    reductions: Reductions
    activation: Activation | None
    epsilon: float
    axis_name: Any
    groups: Any


def precision(x: Array) -> Any:
    """The dtype to compute in: float32 at least."""
    return jnp.promote_types(x.dtype, jnp.float32)


def centre(x: Array, shift: Array, offset: Array) -> Array:
    """`x - mean`, without rounding the mean."""
    return (x.astype(shift.dtype) - shift) - offset


def before_activation(centred: Array, multiplier: Array, bias: Array, residual: Array | None) -> Array:
    """What the activation is applied to."""
    z = centred * multiplier + bias.astype(centred.dtype)
    return z if residual is None else z + residual.astype(centred.dtype)


def multiplier(scale: Array, var: Array, epsilon: float) -> Array:
    """What centred entries are multiplied by."""
    return scale.astype(var.dtype) * lax.rsqrt(var + epsilon)


def output(activation: Activation | None, x: Array, features: Arrays, residual: Array | None) -> Array:
    """The output from what is known by feature, shift, offset, multiplier and bias, in `x`'s dtype."""
    shift, offset, multiplier, bias = features
    z = before_activation(centre(x, shift, offset), multiplier, bias, residual)
    return (z if activation is None else activation(z)).astype(x.dtype)


def widened(tangent: Any, dtype: Any) -> Array | None:
    """A tangent in the precision to compute in; None if there is none."""
    return None if tangent is None or isinstance(tangent, SymbolicZero) else tangent.astype(dtype)


def kept_for_slope(activation: Activation | None, y: Array, residual: Array | None) -> tuple[Any, Any]:
    """What an activation's slope needs beside x: nothing, the output (only its sign), or the residual."""
    if activation is None or residual is None:
        return None, None
    return (y, None) if activation is jax.nn.relu else (None, residual)


def slope_times(activation: Activation | None, g: Array, centred: Array, operands: Arrays) -> Array:
    """`g` times the activation's slope, given what `kept_for_slope` keeps: `operands` multiplier, bias, y, residual."""
    multiplier, bias, y, residual = operands
    if activation is None:
        return g
    if y is not None:
        return jnp.where(y > 0, g, 0)
    return jax.vjp(activation, before_activation(centred, multiplier, bias, residual))[1](g)[0]


@partial(jax.custom_jvp, nondiff_argnums=(0,))
def batch_norm(
    settings: Settings, x: Array, scale: Array, bias: Array, residual: Array | None, mask: Array | None
) -> tuple[Array, Statistics]:
    """The output of rows `x [rows, features]` and their statistics; see `kernels.batch_norm`."""
    statistics = settings.reductions.statistics(x, mask)
    if settings.axis_name is not None:
        statistics = across(statistics, settings.axis_name, settings.groups)
    if mask is not None:  # the mean of nothing is no number
        empty = statistics.counts == 0
        offset, var = (jnp.where(empty, jnp.nan, array) for array in (statistics.offset, statistics.var))
        statistics = statistics._replace(offset=offset, var=var)
    shift, offset, var, _ = statistics
    features = shift, offset, multiplier(scale, var, settings.epsilon), bias
    y = output(settings.activation, x, features, residual)
    return y, statistics


def _derivative(settings: Settings, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    x, scale, bias, residual, mask = primals
    y, statistics = batch_norm(settings, *primals)
    shift, offset, var, counts = statistics
    rstd = lax.rsqrt(var + settings.epsilon)
    multiplier = scale.astype(var.dtype) * rstd
    dx, dscale, dbias, dresidual = (widened(tangent, var.dtype) for tangent in tangents[:4])
    dmean = dvar = jnp.zeros_like(var)
    dmultiplier = None if dscale is None else dscale * rstd
    dshift = dbias
    if dx is not None:
        push, pull = _sums_map(settings.reductions)
        sums = jnp.stack(linear_map(push, pull, (x, shift, offset, mask), (dx,), outputs=2))
        if settings.axis_name is not None:
            sums = lax.psum(sums, settings.axis_name, axis_index_groups=settings.groups)
        dmean, dvar = sums / jnp.maximum(counts, 1)
        dvar = 2 * dvar
        moved = -0.5 * multiplier * jnp.square(rstd) * dvar
        dmultiplier = moved if dmultiplier is None else dmultiplier + moved
        dshift = -multiplier * dmean if dshift is None else dshift - multiplier * dmean
    inputs = (dx, dmultiplier, dshift, dresidual)
    dstatistics = Statistics(jnp.zeros_like(shift), dmean, dvar, jnp.zeros_like(counts))
    if all(tangent is None for tangent in inputs):
        return (y, statistics), (jnp.zeros_like(y), dstatistics)
    push, pull = _output_map(settings.activation, settings.reductions)
    operands = (x, shift, offset, multiplier, bias, *kept_for_slope(settings.activation, y, residual))
    (dy,) = linear_map(push, pull, operands, inputs, outputs=1)
    return (y, statistics), (dy, dstatistics)


batch_norm.defjvp(_derivative, symbolic_zeros=True)


def plain_sums(function: Elementwise, rows: Arrays, features: Arrays) -> tuple[Array, ...]:
    """Sums over rows in ordinary JAX."""
    return tuple(array.sum(0) for array in function(rows, features))


@lru_cache
def _sums_map(reductions: Reductions) -> tuple[Direction, Direction]:
    """`dx -> Σ dx, Σ (x - mean) dx` over the rows that count, and its transpose."""

    def terms(rows: Arrays, features: Arrays) -> tuple[Array, ...]:
        (x, mask, dx), statistics = rows, features
        dx = dx if mask is None else jnp.where(mask, dx, 0)
        return dx, dx * centre(x, *statistics)

    def push(sums: Callable, operands: Arrays, inputs: Arrays) -> Arrays:
        x, shift, offset, mask = operands
        return sums(terms, (x, mask, *inputs), (shift, offset))

    def pull(operands: Arrays, cotangents: Arrays) -> Arrays:
        (x, shift, offset, mask), (first, second) = operands, cotangents
        dx = first + centre(x, shift, offset) * second
        return (dx if mask is None else jnp.where(mask, dx, 0),)

    return Direction(partial(push, reductions.sums), partial(push, plain_sums)), Direction(pull)


@lru_cache
def _output_map(activation: Activation | None, reductions: Reductions) -> tuple[Direction, Direction]:
    """`dx, dmultiplier, dshift, dresidual -> dy` and its transpose."""

    def push(operands: Arrays, inputs: Arrays) -> Arrays:
        x, shift, offset, multiplier, *_ = operands
        dx, dmultiplier, dshift, dresidual = inputs
        centred = centre(x, shift, offset)
        terms = [dx * multiplier] if dx is not None else []
        terms += [centred * dmultiplier] if dmultiplier is not None else []
        terms += [jnp.broadcast_to(dshift, centred.shape)] if dshift is not None else []
        terms += [dresidual] if dresidual is not None else []
        # In x's dtype, so that a kernel that sums the cotangent reads it as it comes.
        return (slope_times(activation, reduce(add, terms), centred, operands[3:]).astype(x.dtype),)

    def terms(rows: Arrays, features: Arrays) -> tuple[Array, ...]:
        (x, y, residual, g), (shift, offset, multiplier, bias) = rows, features
        centred = centre(x, shift, offset)
        g = slope_times(activation, g.astype(centred.dtype), centred, (multiplier, bias, y, residual))
        return g, g * centred

    def pull(sums: Callable, operands: Arrays, cotangents: Arrays) -> Arrays:
        x, shift, offset, multiplier, bias, y, residual = operands
        rows, features = (x, y, residual, *cotangents), (shift, offset, multiplier, bias)
        g, _ = terms(rows, features)
        first, second = sums(terms, rows, features)
        return g * multiplier, second, first, g

    return Direction(push), Direction(partial(pull, reductions.sums), partial(pull, plain_sums))

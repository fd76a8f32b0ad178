"""Batch norm as Pallas kernels, for NVIDIA GPUs and TPUs; nothing in them is of one backend.

Persistent: a tile holds all rows of a few features, so that the forward pass reads `x` once and writes `y` once, and
the backward pass reads `x` and the cotangent once and writes `x`'s. Split: where a tile that high does not fit, kernels
sum blocks of rows and XLA does what is elementwise.
"""

from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.typing import DTypeLike

from kernels.batchnorm import fused, xla
from kernels.batchnorm.activations import Activation
from kernels.batchnorm.chips import Chip, block, height, tile_width
from kernels.batchnorm.fused import (
    Elementwise,
    Reductions,
    Settings,
    centre,
    kept_for_slope,
    precision,
    slope_times,
    widened,
)
from kernels.batchnorm.launch import Columns, launch
from kernels.batchnorm.rows import total
from kernels.batchnorm.statistics import Statistics, combined
from kernels.linear import Arrays, Direction, linear_map, opaque


def tiles_of(activation: Activation | None, residual: Array | None) -> int:
    """Arrays of x's size that the backward pass holds: x, two cotangents; the residual's, and what its slope needs."""
    return 3 if residual is None else 4 if activation is None else 5


def smallest(*arrays: Array | None) -> int:
    """Bytes of a number of the array that has the smallest."""
    return min(array.dtype.itemsize for array in arrays if array is not None)


def batch_norm(
    settings: Settings,
    chip: Chip,
    x: Array,
    scale: Array,
    bias: Array,
    residual: Array | None,
    mask: Array | None,
) -> tuple[Array, Statistics]:
    """The output of rows `x [rows, features]` and their statistics, by the path that fits."""
    rows, features = x.shape
    tiles = tiles_of(settings.activation, residual)
    width = tile_width(rows, features, precision(x).itemsize, smallest(x, residual), tiles, chip)
    if mask is None and settings.axis_name is None and width is not None:
        return persistent(settings, chip, width, x, scale, bias, residual)
    return fused.batch_norm(settings, x, scale, bias, residual, mask)


def _moments(columns: Columns, x: Array, counts: Array) -> tuple[Array, Array, Array, Array]:
    """Shift, offset, variance and count of a tile's entries by feature; the mean is taken twice."""
    # The first entry that counts, found by sums alone: not every backend can index.
    row = columns.row(x.shape)
    first = columns.min(jnp.where(counts, row, x.shape[0]))
    shift = columns.sum(jnp.where(row == columns.spread(first), x, 0))
    total = columns.sum(jnp.where(counts, 1.0, 0.0).astype(x.dtype))
    safe = jnp.maximum(total, 1)
    centred = jnp.where(counts, x - columns.spread(shift), 0)
    offset = columns.sum(centred) / safe
    var = columns.sum(jnp.where(counts, jnp.square(centred - columns.spread(offset)), 0)) / safe
    return shift, offset, var, total


# Split


def _statistics(chip: Chip, operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    dtype = precision(x)

    def kernel(columns: Columns, rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        x, counted = rows
        return _moments(columns, x.astype(dtype), valid if counted is None else valid & (counted > 0))

    # Booleans have no tiles on every backend.
    counted = None if mask is None else jnp.broadcast_to(mask, x.shape).astype(dtype)
    tile = block(x.shape, dtype.itemsize, smallest(x), 2, chip)
    parts = launch(kernel, [x, counted], [], tile, [None] * 4, chip)
    return tuple(combined([Statistics(*parts)]))


def _plain_statistics(operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    statistics = xla.REDUCTIONS.statistics(x, mask)
    return *statistics[:3], jnp.broadcast_to(statistics.counts, statistics.var.shape)


def _sums(chip: Chip, function: Elementwise, rows: Arrays, features: Arrays) -> tuple[Array, ...]:
    given = [array for array in rows if array is not None]
    like = given[0]

    def kernel(columns: Columns, rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        vectors = tuple(None if a is None else columns.spread(a) for a in features)
        return tuple(columns.sum(jnp.where(valid, a, 0)) for a in function(tuple(rows), vectors))

    spread = [None if a is None else jnp.broadcast_to(a, like.shape) for a in rows]
    spread = [a.astype(precision(like)) if a is not None and a.dtype == bool else a for a in spread]
    tile = block(like.shape, precision(like).itemsize, smallest(*spread), len(given), chip)
    parts = launch(kernel, spread, list(features), tile, [None] * 2, chip)
    return tuple(total(part) for part in parts)


@lru_cache
def reductions(chip: Chip) -> Reductions:
    """The split form's reductions, for `fused.batch_norm`."""
    statistics = Direction(partial(_statistics, chip), _plain_statistics)

    def of(x: Array, mask: Array | None) -> Statistics:
        return Statistics(*opaque(statistics, (x, mask), outputs=4))

    return Reductions(of, partial(_sums, chip))


# Persistent


@partial(jax.custom_jvp, nondiff_argnums=(0, 1, 2))
def persistent(
    settings: Settings, chip: Chip, width: int, x: Array, scale: Array, bias: Array, residual: Array | None
) -> tuple[Array, Statistics]:
    """The output of rows `x [rows, features]` and their statistics, all rows in one tile; no mask, one device."""
    forward = _forward(settings.activation, settings.epsilon, chip, width)
    y, shift, offset, var = opaque(forward, (x, scale, bias, residual), 4)
    return y, Statistics(shift, offset, var, jnp.asarray(len(x), var.dtype))


@lru_cache
def _forward(activation: Activation | None, epsilon: float, chip: Chip, width: int) -> Direction:
    """`x, scale, bias, residual -> y, shift, offset, var`."""

    def apply(operands: Arrays, _: Arrays) -> Arrays:
        x, scale, bias, residual = operands

        def kernel(columns: Columns, rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
            (x, residual), (scale, bias) = rows, features
            shift, offset, var, _ = _moments(columns, x.astype(precision(x)), valid)
            vectors = map(columns.spread, (shift, offset, fused.multiplier(scale, var, epsilon), bias))
            return fused.output(activation, x, tuple(vectors), residual), shift, offset, var

        tile = height(len(x), chip), width
        y, *moments = launch(kernel, [x, residual], [scale, bias], tile, [x.dtype, None, None, None], chip)
        return y, *(moment[0] for moment in moments)

    def plain(operands: Arrays, _: Arrays) -> Arrays:
        x, scale, bias, residual = operands
        shift, offset, var = xla.REDUCTIONS.statistics(x, None)[:3]
        vectors = shift, offset, fused.multiplier(scale, var, epsilon), bias
        return fused.output(activation, x, vectors, residual), shift, offset, var

    return Direction(apply, plain)


def _derivative(settings: Settings, chip: Chip, width: int, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    x, scale, bias, residual = primals
    y, statistics = persistent(settings, chip, width, *primals)
    shift, offset, var, counts = statistics
    rstd = lax.rsqrt(var + settings.epsilon)
    push, pull = _maps(settings.activation, None if residual is None else residual.dtype, chip, width)
    kept = kept_for_slope(settings.activation, y, residual)
    operands = (x, shift, offset, rstd, scale.astype(var.dtype) * rstd, bias, *kept)
    # The large ones in their own dtypes: a cast before or after a kernel would be one more pass over memory.
    dx, _, _, dresidual = (None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents)
    inputs = (dx, *(widened(tangent, var.dtype) for tangent in tangents[1:3]), dresidual)
    dy, dmean, dvar = linear_map(push, pull, operands, inputs, outputs=3)
    return (y, statistics), (dy, Statistics(jnp.zeros_like(shift), dmean, dvar, jnp.zeros_like(counts)))


persistent.defjvp(_derivative, symbolic_zeros=True)


@lru_cache
def _maps(
    activation: Activation | None, residual_dtype: DTypeLike | None, chip: Chip, width: int
) -> tuple[Direction, Direction]:
    """`dx, dscale, dbias, dresidual -> dy, dmean, dvar` and its transpose."""

    def push(operands: Arrays, inputs: Arrays) -> Arrays:
        x, shift, offset, rstd, multiplier, *_ = operands
        dx, dscale, dbias, dresidual = inputs
        centred = centre(x, shift, offset)
        dmean = dvar = jnp.zeros_like(rstd)
        dz = jnp.zeros_like(centred)
        if dx is not None:
            dx = dx.astype(centred.dtype)
            first, second = dx.sum(0), (dx * centred).sum(0)
            dmean, dvar = first / len(x), 2 * second / len(x)
            dz = multiplier * (dx - dmean - 0.5 * centred * jnp.square(rstd) * dvar)
        dz = dz if dscale is None else dz + centred * (rstd * dscale)
        dz = dz if dbias is None else dz + dbias
        dz = dz if dresidual is None else dz + dresidual
        return slope_times(activation, dz, centred, operands[4:]).astype(x.dtype), dmean, dvar

    def formula(
        columns: Columns, count: int, rows: Arrays, features: Arrays, cotangents: Arrays, valid: Array | bool
    ) -> Arrays:
        (x, y, residual), (shift, offset, rstd, multiplier, bias), (dy, dmean, dvar) = rows, features, cotangents
        centred = centre(x, columns.spread(shift), columns.spread(offset))
        kept = columns.spread(multiplier), columns.spread(bias), y, residual
        g = jnp.where(valid, slope_times(activation, dy.astype(rstd.dtype), centred, kept), 0)
        first, second = columns.sum(g), columns.sum(g * centred)
        constant = (dmean - multiplier * first) / count
        linear = (2 * dvar - multiplier * jnp.square(rstd) * second) / count
        dx = columns.spread(multiplier) * g + columns.spread(constant) + centred * columns.spread(linear)
        found = dx.astype(x.dtype), rstd * second, first
        return found if residual_dtype is None else (*found, g.astype(residual_dtype))

    def plain_pull(operands: Arrays, cotangents: Arrays) -> Arrays:
        x, shift, offset, rstd, multiplier, bias, y, residual = operands
        vectors = shift, offset, rstd, multiplier, bias
        dx, dscale, dbias, *g = formula(Columns(), len(x), (x, y, residual), vectors, cotangents, True)
        return dx, dscale[0], dbias[0], *(g or [None])

    def pull(operands: Arrays, cotangents: Arrays) -> Arrays:
        x, shift, offset, rstd, multiplier, bias, y, residual = operands
        dy, dmean, dvar = cotangents

        def kernel(columns: Columns, rows: list[Any], features: list[Any], valid: Array) -> Arrays:
            (x, y, residual, dy), (*vectors, dmean, dvar) = rows, features
            return formula(columns, count, (x, y, residual), tuple(vectors), (dy, dmean, dvar), valid)

        count = len(x)
        features = [shift, offset, rstd, multiplier, bias, dmean, dvar]
        outputs = [x.dtype, None, None] + ([] if residual_dtype is None else [residual_dtype])
        tile = height(count, chip), width
        dx, dscale, dbias, *g = launch(kernel, [x, y, residual, dy], features, tile, outputs, chip)
        return dx, dscale[0], dbias[0], *(g or [None])

    return Direction(push), Direction(pull, plain_pull)

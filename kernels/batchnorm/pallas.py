"""Batch norm as Pallas kernels, for NVIDIA GPUs and TPUs; nothing in them is of one backend.

Persistent: a tile holds all rows of a few features, so that the forward pass reads `x` once and writes `y` once, and
the backward pass reads `x` and the cotangent once and writes `x`'s. Split: where a tile that high does not fit, kernels
sum blocks of rows and XLA does what is elementwise. Under `vmap` the members become an axis of the grid: one launch.
"""

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl

from kernels.batchnorm import fused, xla
from kernels.batchnorm.activations import Activation
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
from kernels.batchnorm.statistics import Statistics, combined
from kernels.linear import Arrays, Direction, linear_map, opaque

# Features side by side in a tile, the width of a TPU's vector registers.
_LANES = 128
# Numbers in a tile: 64 KiB of float32, of which a GPU's multiprocessor holds the three of the backward pass.
_TILE = 2**14


def _lanes(features: int) -> int:
    return min(_LANES, _power_of_two(features))


def _power_of_two(n: int) -> int:
    return 1 << (n - 1).bit_length()


def is_persistent(rows: int, features: int) -> bool:
    """Whether all rows of a tile's features fit into one tile.

    The rule: rows, rounded up to a power of two, times features, rounded up likewise and at most 128, are at most
    2**14; so 128 rows of any number of features, or 256 rows of 64.
    """
    return _power_of_two(rows) * _lanes(features) <= _TILE


def check_runs_here() -> None:
    """Raises ValueError where these kernels cannot run, saying why."""
    backend = jax.default_backend()
    if backend == "cpu":
        raise ValueError("batch_norm: implementation 'pallas' needs a GPU or TPU, and the backend here is cpu")
    if backend == "gpu" and not compiles_for_gpu():
        raise ValueError(f"batch_norm: implementation 'pallas' needs jax 0.11 or newer on GPUs, got {jax.__version__}")


def compiles_for_gpu() -> bool:
    """Whether this jax compiles them for GPUs: before 0.11 its GPU backend had no kernels under `vmap`."""
    return jax.__version_info__ >= (0, 11)


def batch_norm(
    settings: Settings,
    interpret: bool,
    x: Array,
    scale: Array,
    bias: Array,
    residual: Array | None,
    mask: Array | None,
) -> tuple[Array, Statistics]:
    """The output of rows `x [rows, features]` and their statistics, by the path that fits."""
    if mask is None and settings.axis_name is None and is_persistent(*x.shape):
        return persistent(settings, interpret, x, scale, bias, residual)
    return fused.batch_norm(settings, x, scale, bias, residual, mask)


def _call(
    kernel: Callable[..., Any], rows: list[Any], features: list[Any], height: int, outputs: list[str], interpret: bool
) -> list[Array]:
    """Runs `kernel` on tiles of `height` rows: of `rows [rows, features]` and `features [features]`, None where none.

    Arrays are padded to whole tiles; `kernel(rows, features, valid)` gets tiles, and which of their entries are no
    padding. Its results are, as `outputs` says, "rows" `[rows, features]` in the first array's dtype, "wide" the same
    in the precision to compute in, or "sums" `[blocks of rows, features]`.
    """
    given = [array for array in rows if array is not None]
    (count, width), dtype = given[0].shape, precision(given[0])
    lanes = _lanes(width)
    padded = math.ceil(count / height) * height, math.ceil(width / lanes) * lanes
    grid = padded[0] // height, padded[1] // lanes
    tile = pl.BlockSpec((height, lanes), lambda i, j: (i, j))
    one = pl.BlockSpec((1, lanes), lambda i, j: (0, j))
    each = pl.BlockSpec((None, 1, lanes), lambda i, j: (i, 0, j))

    def body(*refs: Any) -> None:
        inputs = iter(ref[...] for ref in refs[: -len(outputs)])
        tiles = [None if array is None else next(inputs) for array in rows]
        vectors = [None if array is None else next(inputs) for array in features]
        shape = (height, lanes)
        valid = (lax.broadcasted_iota(jnp.int32, shape, 0) + pl.program_id(0) * height) < count
        results = kernel(tiles, vectors, valid)
        for ref, result in zip(refs[-len(outputs) :], results, strict=True):
            ref[...] = result.astype(ref.dtype)

    def pad(array: Array) -> Array:
        extra = [(0, size - n) for size, n in zip(padded, array.shape, strict=True)]
        return array if not any(after for _, after in extra) else jnp.pad(array, extra)

    def pad_vector(array: Array) -> Array:
        return jnp.pad(array, (0, padded[1] - width))[None]

    arguments = [pad(array) for array in given] + [pad_vector(array) for array in features if array is not None]
    specs = [tile] * len(given) + [one] * (len(arguments) - len(given))
    shapes = {
        "rows": jax.ShapeDtypeStruct(padded, given[0].dtype),
        "wide": jax.ShapeDtypeStruct(padded, dtype),
        "sums": jax.ShapeDtypeStruct((grid[0], 1, padded[1]), dtype),
    }
    found = pl.pallas_call(
        body,
        grid=grid,
        in_specs=specs,
        out_specs=[each if output == "sums" else tile for output in outputs],
        out_shape=[shapes[output] for output in outputs],
        interpret=interpret,
    )(*arguments)
    return [
        array[:, 0, :width] if output == "sums" else array[:count, :width]
        for array, output in zip(found, outputs, strict=True)
    ]


def _moments(x: Array, counts: Array) -> tuple[Array, Array, Array, Array]:
    """Shift, offset, variance and count of a tile's entries, each `[1, features]`; the mean is taken twice."""
    # The first entry that counts, found by sums alone: not every backend can index.
    row = lax.broadcasted_iota(jnp.int32, x.shape, 0)
    first = jnp.where(counts, row, x.shape[0]).min(0, keepdims=True)
    shift = jnp.where(row == first, x, 0).sum(0, keepdims=True)
    total = jnp.where(counts, 1.0, 0.0).astype(x.dtype).sum(0, keepdims=True)
    safe = jnp.maximum(total, 1)
    centred = jnp.where(counts, x - shift, 0)
    offset = centred.sum(0, keepdims=True) / safe
    var = jnp.where(counts, jnp.square(centred - offset), 0).sum(0, keepdims=True) / safe
    return shift, offset, var, total


# Split


def _height(rows: int, features: int) -> int:
    return min(_TILE // _lanes(features), _power_of_two(rows))


def _statistics(interpret: bool, operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    dtype = precision(x)

    def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        x, counted = rows
        return _moments(x.astype(dtype), valid if counted is None else valid & (counted > 0))

    # Booleans have no tiles on every backend.
    counted = None if mask is None else jnp.broadcast_to(mask, x.shape).astype(dtype)
    parts = _call(kernel, [x, counted], [], _height(*x.shape), ["sums"] * 4, interpret)
    return tuple(combined([Statistics(*parts)]))


def _plain_statistics(operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    statistics = xla.REDUCTIONS.statistics(x, mask)
    return *statistics[:3], jnp.broadcast_to(statistics.counts, statistics.var.shape)


def _sums(interpret: bool, function: Elementwise, rows: Arrays, features: Arrays) -> tuple[Array, ...]:
    like = next(array for array in rows if array is not None)

    def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        return tuple(jnp.where(valid, a, 0).sum(0, keepdims=True) for a in function(tuple(rows), tuple(features)))

    spread = [None if a is None else jnp.broadcast_to(a, like.shape) for a in rows]
    spread = [a.astype(precision(like)) if a is not None and a.dtype == bool else a for a in spread]
    parts = _call(kernel, spread, list(features), _height(*like.shape), ["sums"] * 2, interpret)
    return tuple(part.sum(0) for part in parts)


@lru_cache
def reductions(interpret: bool) -> Reductions:
    """The split form's reductions, for `fused.batch_norm`."""
    statistics = Direction(partial(_statistics, interpret), _plain_statistics)

    def of(x: Array, mask: Array | None) -> Statistics:
        return Statistics(*opaque(statistics, (x, mask), outputs=4))

    return Reductions(of, partial(_sums, interpret))


# Persistent


@partial(jax.custom_jvp, nondiff_argnums=(0, 1))
def persistent(
    settings: Settings, interpret: bool, x: Array, scale: Array, bias: Array, residual: Array | None
) -> tuple[Array, Statistics]:
    """The output of rows `x [rows, features]` and their statistics, all rows in one tile; no mask, one device."""
    y, shift, offset, var = opaque(
        _forward(settings.activation, settings.epsilon, interpret), (x, scale, bias, residual), 4
    )
    return y, Statistics(shift, offset, var, jnp.asarray(len(x), var.dtype))


@lru_cache
def _forward(activation: Activation | None, epsilon: float, interpret: bool) -> Direction:
    """`x, scale, bias, residual -> y, shift, offset, var`."""

    def apply(operands: Arrays, _: Arrays) -> Arrays:
        x, scale, bias, residual = operands

        def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
            (x, residual), (scale, bias) = rows, features
            moments = _moments(x.astype(precision(x)), valid)[:3]
            return fused.output(activation, epsilon, x, *moments, scale, bias, residual), *moments

        outputs = ["rows", "sums", "sums", "sums"]
        y, *moments = _call(kernel, [x, residual], [scale, bias], _power_of_two(len(x)), outputs, interpret)
        return y, *(moment[0] for moment in moments)

    def plain(operands: Arrays, _: Arrays) -> Arrays:
        x, scale, bias, residual = operands
        moments = xla.REDUCTIONS.statistics(x, None)[:3]
        return fused.output(activation, epsilon, x, *moments, scale, bias, residual), *moments

    return Direction(apply, plain)


def _derivative(settings: Settings, interpret: bool, primals: tuple, tangents: tuple) -> tuple[Any, Any]:
    x, scale, bias, residual = primals
    y, statistics = persistent(settings, interpret, *primals)
    shift, offset, var, counts = statistics
    rstd = lax.rsqrt(var + settings.epsilon)
    push, pull = _maps(settings.activation, residual is not None, interpret)
    kept = kept_for_slope(settings.activation, y, residual)
    operands = (x, shift, offset, rstd, scale.astype(var.dtype) * rstd, bias, *kept)
    # The large ones in their own dtypes: a cast before or after a kernel would be one more pass over memory.
    dx, *others = (None if isinstance(tangent, SymbolicZero) else tangent for tangent in tangents)
    inputs = (dx, *(widened(tangent, var.dtype) for tangent in others))
    dy, dmean, dvar = linear_map(push, pull, operands, inputs, outputs=3)
    return (y, statistics), (dy, Statistics(jnp.zeros_like(shift), dmean, dvar, jnp.zeros_like(counts)))


persistent.defjvp(_derivative, symbolic_zeros=True)


@lru_cache
def _maps(activation: Activation | None, with_residual: bool, interpret: bool) -> tuple[Direction, Direction]:
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

    def formula(count: int, x: Array, operands: Arrays, cotangents: Arrays, valid: Array | bool) -> Arrays:
        shift, offset, rstd, multiplier, *_ = operands
        dy, dmean, dvar = cotangents
        centred = centre(x, shift, offset)
        g = jnp.where(valid, slope_times(activation, dy.astype(rstd.dtype), centred, operands[3:]), 0)
        first, second = g.sum(0, keepdims=True), (g * centred).sum(0, keepdims=True)
        mean = (dmean - multiplier * first) / count
        spread = (2 * dvar - multiplier * jnp.square(rstd) * second) / count
        dx = multiplier * g + mean + centred * spread
        return (dx.astype(x.dtype), rstd * second, first, g)[: 3 + with_residual]

    def plain_pull(operands: Arrays, cotangents: Arrays) -> Arrays:
        dx, dscale, dbias, *g = formula(len(operands[0]), operands[0], operands[1:], cotangents, True)
        return dx, dscale[0], dbias[0], *(g or [None])

    def pull(operands: Arrays, cotangents: Arrays) -> Arrays:
        x, shift, offset, rstd, multiplier, bias, y, residual = operands
        dy, dmean, dvar = cotangents

        def kernel(rows: list[Any], features: list[Any], valid: Array) -> Arrays:
            (x, y, residual, dy), (*vectors, dmean, dvar) = rows, features
            return formula(count, x, (*vectors, y, residual), (dy, dmean, dvar), valid)

        count = len(x)
        features = [shift, offset, rstd, multiplier, bias, dmean, dvar]
        outputs = ["rows", "sums", "sums", "wide"][: 3 + with_residual]
        dx, dscale, dbias, *g = _call(kernel, [x, y, residual, dy], features, _power_of_two(count), outputs, interpret)
        return dx, dscale[0], dbias[0], *(g or [None])

    return Direction(push), Direction(pull, plain_pull)

"""Batch norm as Pallas kernels, for NVIDIA GPUs and TPUs; nothing in them is of one backend.

Persistent: a tile holds all rows of a few features, so that the forward pass reads `x` once and writes `y` once, and
the backward pass reads `x` and the cotangent once and writes `x`'s. Split: where a tile that high does not fit, kernels
sum blocks of rows and XLA does what is elementwise. Under `vmap` the members become an axis of the grid: one launch.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.custom_derivatives import SymbolicZero
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.typing import DTypeLike

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


@dataclass(frozen=True)
class Chip:
    """What kernels are compiled for.

    Attributes:
      memory: bytes that the tiles of one kernel take together at most.
      narrowest: features side by side in a tile at least, where there are as many.
      triton: whether the compiler is Triton, the GPU compiler of Pallas that takes kernels under `vmap`.
      interpret: whether the kernels are emulated.
    """

    memory: int
    narrowest: int
    triton: bool = False
    interpret: bool = False

    def compiler_params(self, numbers: int) -> Any:
        """Settings of the compiler for tiles of so many numbers."""
        # A thread holds 32 numbers of a tile at most: of three tiles 96, and of registers it has 128 among 16 warps.
        return triton.CompilerParams(num_warps=min(16, max(1, numbers // 1024))) if self.triton else None


# A multiprocessor's registers and shared memory are 256 KiB each; 32 float32 are a full transaction of its memory.
GPU = Chip(memory=3 * 2**16, narrowest=32, triton=True)
# Every tile is there twice, one computed with and one moved, in 16 MiB. A register is 128 numbers wide.
TPU = Chip(memory=2**22, narrowest=128)
INTERPRETER = Chip(GPU.memory, GPU.narrowest, interpret=True)

# Features side by side in a tile at most.
_WIDEST = 128


def _power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()


def _power_within(n: int) -> int:
    """The largest that is not above n."""
    return 1 << (n.bit_length() - 1)


def _widest(features: int) -> int:
    return min(_WIDEST, _power_of_two(features))


def tile_width(rows: int, features: int, itemsize: int, tiles: int, chip: Chip) -> int | None:
    """How many features' rows, all of them, a kernel holds side by side; None where not enough fit: split.

    The rule: `tiles` tiles of rows times features, each rounded up to a power of two, take at most `chip.memory`; the
    most features, up to 128, and at least `chip.narrowest`, or all. The tiles are those of the backward pass
    (`tiles_of`), and count in the precision computed in. So on a GPU, without a residual and in float32, 128 rows of
    128 features or 512 rows of 32.
    """
    width = _widest(features)
    most = chip.memory // (_power_of_two(rows) * itemsize * tiles)
    if most < min(chip.narrowest, width):
        return None
    return min(width, _power_within(most))


def tiles_of(activation: Activation | None, residual: Array | None) -> int:
    """Arrays of x's size that the backward pass holds: x, two cotangents; the residual's, and what its slope needs."""
    return 3 if residual is None else 4 if activation is None else 5


def chip_here() -> Chip:
    """The chip that kernels would run on.

    Raises:
      ValueError: there is none.
    """
    chips = {"gpu": GPU, "tpu": TPU}
    backend = jax.default_backend()
    if backend not in chips:
        raise ValueError(f"batch_norm: implementation 'pallas' needs a GPU or TPU, and the backend here is {backend}")
    return chips[backend]


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
    width = tile_width(rows, features, precision(x).itemsize, tiles_of(settings.activation, residual), chip)
    if mask is None and settings.axis_name is None and width is not None:
        return persistent(settings, chip, width, x, scale, bias, residual)
    return fused.batch_norm(settings, x, scale, bias, residual, mask)


def _call(
    kernel: Callable[..., Any],
    rows: list[Any],
    features: list[Any],
    tile: tuple[int, int],
    outputs: list[DTypeLike | None],
    chip: Chip,
) -> list[Array]:
    """Runs `kernel` on tiles `(height, width)`: of `rows [rows, features]` and `features [features]`, None where none.

    Arrays are padded to whole tiles; `kernel(rows, features, valid)` gets tiles, and which of their entries are no
    padding. Its results are, where `outputs` has a dtype, arrays `[rows, features]` of it, and where it has None, sums
    `[blocks of rows, features]` in the precision to compute in.
    """
    given = [array for array in rows if array is not None]
    (count, width), dtype = given[0].shape, precision(given[0])
    height, lanes = tile
    padded = math.ceil(count / height) * height, math.ceil(width / lanes) * lanes
    grid = padded[0] // height, padded[1] // lanes
    whole = pl.BlockSpec(tile, lambda i, j: (i, j))
    one = pl.BlockSpec((1, lanes), lambda i, j: (0, j))
    each = pl.BlockSpec((None, 1, lanes), lambda i, j: (i, 0, j))

    def body(*refs: Any) -> None:
        inputs = iter(ref[...] for ref in refs[: -len(outputs)])
        tiles = [None if array is None else next(inputs) for array in rows]
        vectors = [None if array is None else next(inputs) for array in features]
        valid = (lax.broadcasted_iota(jnp.int32, tile, 0) + pl.program_id(0) * height) < count
        results = kernel(tiles, vectors, valid)
        for ref, result in zip(refs[-len(outputs) :], results, strict=True):
            ref[...] = result.astype(ref.dtype)

    def pad(array: Array) -> Array:
        extra = [(0, size - n) for size, n in zip(padded, array.shape, strict=True)]
        return array if not any(after for _, after in extra) else jnp.pad(array, extra)

    def pad_vector(array: Array) -> Array:
        return jnp.pad(array, (0, padded[1] - width))[None]

    arguments = [pad(array) for array in given] + [pad_vector(array) for array in features if array is not None]
    specs = [whole] * len(given) + [one] * (len(arguments) - len(given))
    # Inside `shard_map` results vary over the axes that the operands vary over, all alike (`kernels.linear`).
    struct = partial(jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(given[0]).manual_axis_type)
    found = pl.pallas_call(
        body,
        grid=grid,
        in_specs=specs,
        out_specs=[each if output is None else whole for output in outputs],
        out_shape=[
            struct((grid[0], 1, padded[1]), dtype) if output is None else struct(padded, output) for output in outputs
        ],
        interpret=chip.interpret,
        compiler_params=chip.compiler_params(height * lanes),
    )(*arguments)
    return [
        array[:, 0, :width] if output is None else array[:count, :width]
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


def _block(x: Array, tiles: int, chip: Chip) -> tuple[int, int]:
    """Height and width of the tiles in which rows are summed, so many at a time."""
    rows, features = x.shape
    width = _widest(features)
    most = chip.memory // (width * precision(x).itemsize * tiles)
    return min(_power_of_two(rows), _power_within(most)), width


def _statistics(chip: Chip, operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    dtype = precision(x)

    def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        x, counted = rows
        return _moments(x.astype(dtype), valid if counted is None else valid & (counted > 0))

    # Booleans have no tiles on every backend.
    counted = None if mask is None else jnp.broadcast_to(mask, x.shape).astype(dtype)
    parts = _call(kernel, [x, counted], [], _block(x, 2, chip), [None] * 4, chip)
    return tuple(combined([Statistics(*parts)]))


def _plain_statistics(operands: Arrays, _: Arrays) -> Arrays:
    x, mask = operands
    statistics = xla.REDUCTIONS.statistics(x, mask)
    return *statistics[:3], jnp.broadcast_to(statistics.counts, statistics.var.shape)


def _sums(chip: Chip, function: Elementwise, rows: Arrays, features: Arrays) -> tuple[Array, ...]:
    given = [array for array in rows if array is not None]
    like = given[0]

    def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
        return tuple(jnp.where(valid, a, 0).sum(0, keepdims=True) for a in function(tuple(rows), tuple(features)))

    spread = [None if a is None else jnp.broadcast_to(a, like.shape) for a in rows]
    spread = [a.astype(precision(like)) if a is not None and a.dtype == bool else a for a in spread]
    parts = _call(kernel, spread, list(features), _block(like, len(given), chip), [None] * 2, chip)
    return tuple(part.sum(0) for part in parts)


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

        def kernel(rows: list[Any], features: list[Any], valid: Array) -> tuple[Array, ...]:
            (x, residual), (scale, bias) = rows, features
            moments = _moments(x.astype(precision(x)), valid)[:3]
            return fused.output(activation, epsilon, x, *moments, scale, bias, residual), *moments

        tile = _power_of_two(len(x)), width
        y, *moments = _call(kernel, [x, residual], [scale, bias], tile, [x.dtype, None, None, None], chip)
        return y, *(moment[0] for moment in moments)

    def plain(operands: Arrays, _: Arrays) -> Arrays:
        x, scale, bias, residual = operands
        moments = xla.REDUCTIONS.statistics(x, None)[:3]
        return fused.output(activation, epsilon, x, *moments, scale, bias, residual), *moments

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

    def formula(count: int, x: Array, operands: Arrays, cotangents: Arrays, valid: Array | bool) -> Arrays:
        shift, offset, rstd, multiplier, *_ = operands
        dy, dmean, dvar = cotangents
        centred = centre(x, shift, offset)
        g = jnp.where(valid, slope_times(activation, dy.astype(rstd.dtype), centred, operands[3:]), 0)
        first, second = g.sum(0, keepdims=True), (g * centred).sum(0, keepdims=True)
        mean = (dmean - multiplier * first) / count
        spread = (2 * dvar - multiplier * jnp.square(rstd) * second) / count
        dx = multiplier * g + mean + centred * spread
        found = dx.astype(x.dtype), rstd * second, first
        return found if residual_dtype is None else (*found, g.astype(residual_dtype))

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
        outputs = [x.dtype, None, None] + ([] if residual_dtype is None else [residual_dtype])
        dx, dscale, dbias, *g = _call(
            kernel, [x, y, residual, dy], features, (_power_of_two(count), width), outputs, chip
        )
        return dx, dscale[0], dbias[0], *(g or [None])

    return Direction(push), Direction(pull, plain_pull)

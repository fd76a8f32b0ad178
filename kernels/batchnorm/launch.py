"""One call for kernels over tiles, whichever compiler of Pallas takes them.

A kernel is a pure function of tiles `[height, width]` of rows times features and of vectors by feature. Under `vmap`
the members become an axis of the grid: one launch.
"""

import math
from collections.abc import Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton
from jax.typing import DTypeLike

from kernels.batchnorm import mosaic
from kernels.batchnorm.chips import Chip
from kernels.batchnorm.columns import Body, Columns, Kernel, Result
from kernels.batchnorm.fused import precision


def launch(
    kernel: Kernel,
    rows: list[Any],
    features: list[Any],
    tile: tuple[int, int],
    outputs: list[DTypeLike | None],
    chip: Chip,
) -> list[Array]:
    """Runs `kernel` on tiles `(height, width)`: of `rows [rows, features]` and `features [features]`, None where none.

    Arrays are padded to whole tiles. The results are, where `outputs` has a dtype, arrays `[rows, features]` of it, and
    where it has None, vectors of every block of rows, `[blocks, features]`, in the precision to compute in.
    """
    present = [array for array in rows if array is not None]
    (count, width), dtype = present[0].shape, precision(present[0])
    padded = math.ceil(count / tile[0]) * tile[0], math.ceil(width / tile[1]) * tile[1]
    grid = padded[0] // tile[0], padded[1] // tile[1]

    def pad(array: Array) -> Array:
        extra = [(0, size - n) for size, n in zip(padded[-array.ndim :], array.shape, strict=True)]
        return array if not any(after for _, after in extra) else jnp.pad(array, extra)

    def body(columns: Columns, block: Any, loaded: Sequence[Array]) -> Sequence[Array]:
        inputs = iter(loaded)
        tiles = [None if array is None else next(inputs) for array in rows]
        vectors = [None if array is None else next(inputs) for array in features]
        return kernel(columns, tiles, vectors, columns.row(tile) + block * tile[0] < count)

    tiled, by_feature = map(pad, present), (pad(array) for array in features if array is not None)
    # Inside `shard_map` results vary over the axes that the operands vary over, all alike (`kernels.linear`).
    struct = partial(jax.ShapeDtypeStruct, manual_axis_type=jax.typeof(present[0]).manual_axis_type)
    results = [
        Result(struct((grid[0], padded[1]), dtype), True) if output is None else Result(struct(padded, output), False)
        for output in outputs
    ]
    run = mosaic.run if chip.compiler == "mosaic_gpu" else _block_by_block
    found = run(body, list(tiled), list(by_feature), results, grid, tile, chip)
    return [
        array[:, :width] if result.is_vector else array[:count, :width]
        for array, result in zip(found, results, strict=True)
    ]


def _block_by_block(
    body: Body,
    tiles: list[Array],
    vectors: list[Array],
    results: list[Result],
    grid: tuple[int, int],
    tile: tuple[int, int],
    chip: Chip,
) -> list[Array]:
    """Pallas moves a tile of every array at a time: TPUs, and Triton."""
    whole = pl.BlockSpec(tile, lambda i, j: (i, j))
    one = pl.BlockSpec((1, tile[1]), lambda i, j: (0, j))
    each = pl.BlockSpec((None, 1, tile[1]), lambda i, j: (i, 0, j))

    def on_blocks(*refs: Any) -> None:
        loaded = [ref[...] for ref in refs[: -len(results)]]
        for ref, made in zip(refs[-len(results) :], body(Columns(), pl.program_id(0), loaded), strict=True):
            ref[...] = made.astype(ref.dtype)

    # A thread of Triton's holds 32 numbers of a tile at most: of three tiles 96, and of registers it has 128 among 16
    # warps.
    warps = min(16, max(1, math.prod(tile) // 1024))
    found = pl.pallas_call(
        on_blocks,
        grid=grid,
        in_specs=[whole] * len(tiles) + [one] * len(vectors),
        out_specs=[each if result.is_vector else whole for result in results],
        out_shape=[
            result.type.update(shape=(grid[0], 1, result.type.shape[1])) if result.is_vector else result.type
            for result in results
        ],
        interpret=chip.interpret,
        compiler_params=triton.CompilerParams(num_warps=warps) if chip.compiler == "triton" else None,
    )(*tiles, *(vector[None] for vector in vectors))
    return [array[:, 0] if result.is_vector else array for array, result in zip(found, results, strict=True)]

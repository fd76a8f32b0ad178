"""The chips that batch norm's kernels are compiled for: what fits on one, and which compiler of Pallas it takes."""

from dataclasses import dataclass
from typing import Any, Literal

import jax

Compiler = Literal["mosaic_tpu", "mosaic_gpu", "triton"]


@dataclass(frozen=True)
class Chip:
    """What kernels are compiled for.

    Attributes:
      compiler: which of Pallas's. All take the same kernels; on GPUs the call differs (`kernels.batchnorm.launch`).
      memory: bytes that the tiles of one kernel take together at most.
      narrowest: features side by side in a tile at least, where there are as many.
      least: rows and features of a tile at least; arrays that have fewer are padded.
      line: bytes side by side in a tile at least, of the array with the smallest numbers; arrays are padded to it too.
      interpret: whether, and how, Pallas emulates the kernels.
    """

    compiler: Compiler
    memory: int
    narrowest: int
    least: tuple[int, int] = (1, 1)
    line: int = 1
    interpret: Any = False


# Every tile is there twice, one computed with and one moved, in 16 MiB. A register is 128 numbers wide.
TPU = Chip("mosaic_tpu", memory=2**22, narrowest=128)
# Tiles are held by the 128 threads of a warpgroup, 192 of whose 255 registers are for tiles, the rest for what is by
# feature and for addresses. A row of a tile is a full transaction of a warp, a cache line, without which Mosaic GPU
# refuses to compile since jax 0.12; the four warps hold rows of their own.
HOPPER = Chip("mosaic_gpu", memory=128 * 192 * 4, narrowest=32, least=(4, 32), line=128)
# Before Hopper, Triton: a multiprocessor's registers and shared memory are 256 KiB each.
AMPERE = Chip("triton", memory=3 * 2**16, narrowest=32)
EMULATED = Chip("mosaic_tpu", AMPERE.memory, AMPERE.narrowest, interpret=True)

# Features side by side in a tile at most.
_WIDEST = 128


def power_of_two(n: int) -> int:
    """The least that is not below n."""
    return 1 << (n - 1).bit_length()


def _power_within(n: int) -> int:
    """The largest that is not above n."""
    return 1 << (n.bit_length() - 1)


def height(rows: int, chip: Chip) -> int:
    """Rows of a tile that holds them all."""
    return max(chip.least[0], power_of_two(rows))


def _widest(features: int, smallest: int, chip: Chip) -> int:
    return max(chip.least[1], chip.line // smallest, min(_WIDEST, power_of_two(features)))


def tile_width(rows: int, features: int, itemsize: int, smallest: int, tiles: int, chip: Chip) -> int | None:
    """How many features' rows, all of them, a kernel holds side by side; None where not enough fit: split.

    The rule: `tiles` tiles of rows times features, each rounded up to a power of two, take at most `chip.memory`; the
    most features, up to 128, and at least `chip.narrowest`, or all, and a `chip.line` of the numbers that have the
    `smallest` size in memory. The tiles are those of the backward pass (`kernels.batchnorm.pallas.tiles_of`), and count
    in the precision computed in, of `itemsize`. So on a Hopper, without a residual and in float32, 64 rows of 128
    features or 256 rows of 32, in bfloat16 128 rows of 64; before, 128 rows of 128 or 512 of 32.
    """
    width = _widest(features, smallest, chip)
    most = chip.memory // (height(rows, chip) * itemsize * tiles)
    if most < min(max(chip.narrowest, chip.line // smallest), width):
        return None
    return min(width, _power_within(most))


def block(shape: tuple[int, ...], itemsize: int, smallest: int, tiles: int, chip: Chip) -> tuple[int, int]:
    """Height and width of the tiles in which `[rows, features]` are summed, so many at a time."""
    rows, features = shape
    width = _widest(features, smallest, chip)
    most = chip.memory // (width * itemsize * tiles)
    return min(height(rows, chip), _power_within(most)), width


def chip_here() -> Chip:
    """The chip that kernels would run on.

    Raises:
      ValueError: there is none.
    """
    backend = jax.default_backend()
    if backend == "tpu":
        return TPU
    if backend == "gpu":
        # Mosaic GPU compiles for Hopper, compute capability 9, and later.
        return HOPPER if float(jax.devices()[0].compute_capability) >= 9 else AMPERE
    raise ValueError(f"batch_norm: implementation 'pallas' needs a GPU or TPU, and the backend here is {backend}")

"""What a kernel over tiles computes with, whichever compiler of Pallas takes it.

Compilers differ in what a vector by feature is and how it meets a tile of rows times features (`Columns`).
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax


@dataclass(frozen=True)
class Columns:
    """Arithmetic between a tile and vectors by feature, where a vector is a row `[1, features]`."""

    def sum(self, tile: Array) -> Array:
        """A vector: the tile's rows added."""
        return tile.sum(0, keepdims=True)

    def min(self, tile: Array) -> Array:
        """A vector: the least of the tile's rows."""
        return tile.min(0, keepdims=True)

    def spread(self, vector: Array) -> Array:
        """What broadcasts against a tile."""
        return vector

    def row(self, shape: tuple[int, ...]) -> Array:
        """The tile of its own row numbers."""
        return lax.broadcasted_iota(jnp.int32, shape, 0)


@dataclass(frozen=True)
class Result:
    """An array that a kernel makes, of tiles or of a vector for each block of rows."""

    type: jax.ShapeDtypeStruct
    is_vector: bool


# `kernel(columns, rows, features, valid)`: tiles and vectors, None where there is none, and what is no padding.
Kernel = Callable[[Columns, list[Any], list[Any], Any], Sequence[Array]]
# `body(columns, block, arrays)`: the number of the block of rows, and the tiles and vectors that are there.
Body = Callable[[Columns, Any, Sequence[Array]], Sequence[Array]]

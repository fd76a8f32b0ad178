"""The staircase: how layers of networks of different depth are stored together, without padding.

Members stand deepest first. Segment k holds the layers between the (k-1)-th and the k-th distinct depth, of every
member at least that deep, stacked `[layer, member, ...]`. Those members are always the first ones, so a segment's
members are a contiguous slice of the segment's before, and the work is exactly the sum of the depths.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PyTree


class Segment(NamedTuple):
    """Layers `start..stop` (0-based, end excluded) of the first `members` members."""

    start: int
    stop: int
    members: int


class Parts(NamedTuple):
    """An ensemble's arrays: parameters, statistics, gradients and optimizer moments all come in this shape.

    Attributes:
      stem, head: pytrees of `[member, ...]`.
      segments: one pytree of `[layer, member, ...]` a segment.
    """

    stem: PyTree[Array]
    segments: tuple[PyTree[Array], ...]
    head: PyTree[Array]


@dataclass(frozen=True)
class Staircase:
    """The layout for members of these depths, which must not increase.

    Raises:
      ValueError: no member, a depth below 1, or a depth larger than the one before.
    """

    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not self.depths or min(self.depths) < 1 or list(self.depths) != sorted(self.depths, reverse=True):
            raise ValueError(f"Staircase: depths must be positive and not increase, got {self.depths}")

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """From the first layer to the last."""
        distinct = sorted(set(self.depths))
        return tuple(
            Segment(start, stop, sum(depth >= stop for depth in self.depths))
            for start, stop in zip([0, *distinct], distinct, strict=False)
        )

    @cached_property
    def groups(self) -> dict[int, slice]:
        """The members of each depth, deepest first."""
        return {
            depth: slice(self.depths.index(depth), self.depths.index(depth) + self.depths.count(depth))
            for depth in sorted(set(self.depths), reverse=True)
        }

    def assemble(self, by_depth: Mapping[int, PyTree[Array]]) -> Parts:
        """Builds the parts from, for each depth, `{"stem", "blocks", "head"}` with a leading member axis."""

        def joined(name: str) -> PyTree[Array]:
            return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *(by_depth[d][name] for d in self.groups))

        def segment(start: int, stop: int) -> PyTree[Array]:
            return jax.tree.map(
                lambda *leaves: jnp.concatenate([jnp.swapaxes(leaf[:, start:stop], 0, 1) for leaf in leaves], 1),
                *(by_depth[depth]["blocks"] for depth in self.groups if depth >= stop),
            )

        return Parts(joined("stem"), tuple(segment(s.start, s.stop) for s in self.segments), joined("head"))

    def extract(self, parts: Parts, depth: int) -> dict[str, PyTree[Array]]:
        """The inverse of `assemble` for one depth: `{"stem", "blocks", "head"}` of its members."""
        group = self.groups[depth]

        def blocks(*leaves: Array) -> Array:
            return jnp.swapaxes(jnp.concatenate([leaf[:, group] for leaf in leaves]), 0, 1)

        segments = [p for s, p in zip(self.segments, parts.segments, strict=True) if s.stop <= depth]
        return {
            "stem": jax.tree.map(lambda leaf: leaf[group], parts.stem),
            "blocks": jax.tree.map(blocks, *segments),
            "head": jax.tree.map(lambda leaf: leaf[group], parts.head),
        }

    def scale(self, parts: Parts, factors: Float[Array, " member"]) -> Parts:
        """Multiplies every member's arrays by its own factor."""

        def edge(leaf: Array) -> Array:
            return leaf * factors.reshape(-1, *(1,) * (leaf.ndim - 1)).astype(leaf.dtype)

        def layered(leaf: Array) -> Array:
            return leaf * factors[: leaf.shape[1]].reshape(1, -1, *(1,) * (leaf.ndim - 2)).astype(leaf.dtype)

        return Parts(
            jax.tree.map(edge, parts.stem),
            tuple(jax.tree.map(layered, segment) for segment in parts.segments),
            jax.tree.map(edge, parts.head),
        )

"""The staircase: how layers of networks of different depth are stored together, without padding.

Members stand deepest first. Segment k holds the layers between the (k-1)-th and the k-th distinct depth, of every
member at least that deep, stacked `[layer, member, ...]`. Those members are always the first ones, so a segment's
members are a contiguous slice of the segment's before, and the work is exactly the sum of the depths.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Bool, Float, PyTree

from sweep.climb import Layer, Room, ascend, climb, room_for
from sweep.rows import chosen_rows, finite_rows, scaled

# By segment, where the derivative may write what it keeps, and the gradients.
Kept = Sequence[tuple[Room, PyTree[Array]]]


class Segment(NamedTuple):
    """Layers `start..stop` (0-based, end excluded) of the first `members` members."""

    start: int
    stop: int
    members: int


@dataclass(frozen=True)
class Staircase:
    """The layout for members with these numbers of layers, which must not increase; the last ones may have none.

    Raises:
      ValueError: no layer at all, a negative number, or one larger than the one before.
    """

    depths: tuple[int, ...]

    def __post_init__(self) -> None:
        if not any(self.depths) or min(self.depths) < 0 or list(self.depths) != sorted(self.depths, reverse=True):
            raise ValueError(f"Staircase: depths must not be negative, all 0, or increase, got {self.depths}")

    @cached_property
    def segments(self) -> tuple[Segment, ...]:
        """From the first layer to the last."""
        distinct = sorted({*self.depths} - {0})
        return tuple(
            Segment(start, stop, sum(depth >= stop for depth in self.depths))
            for start, stop in zip([0, *distinct], distinct, strict=False)
        )

    def assemble(self, groups: Sequence[tuple[int, PyTree[Array]]]) -> tuple[PyTree[Array], ...]:
        """The segments' arrays, each `[layer, member, ...]`.

        Args:
          groups: all members that have layers, in order: how many layers, and arrays `[member, layer, ...]`.
        """

        def segment(start: int, stop: int) -> PyTree[Array]:
            return jax.tree.map(
                lambda *leaves: jnp.concatenate([jnp.swapaxes(leaf[:, start:stop], 0, 1) for leaf in leaves], 1),
                *(arrays for depth, arrays in groups if depth >= stop),
            )

        return tuple(segment(s.start, s.stop) for s in self.segments)

    def extract(self, segments: Sequence[PyTree[Array]], members: slice) -> PyTree[Array]:
        """The inverse of `assemble` for neighbours with as many layers, at least one: arrays `[member, layer, ...]`."""
        depth = self.depths[members.start]

        def joined(*leaves: Array) -> Array:
            return jnp.swapaxes(jnp.concatenate([leaf[:, members] for leaf in leaves]), 0, 1)

        return jax.tree.map(joined, *(part for s, part in zip(self.segments, segments, strict=True) if s.stop <= depth))

    def scale(self, segments: Sequence[PyTree[Array]], factors: Float[Array, " member"]) -> tuple[PyTree[Array], ...]:
        """Multiplies every member's arrays by its own factor."""
        by_layer = jax.vmap(scaled, (0, None))
        return tuple(by_layer(part, factors[: s.members]) for s, part in zip(self.segments, segments, strict=True))

    def where(
        self, chosen: Bool[Array, " member"], segments: Sequence[PyTree[Array]], others: Any
    ) -> tuple[PyTree[Array], ...]:
        """The chosen members' arrays, and in the place of the rest's those of `others`, shaped alike, or one number."""
        one_number = isinstance(others, float)
        by_layer = jax.vmap(chosen_rows, (None, 0, None if one_number else 0))
        return tuple(
            by_layer(chosen[: s.members], part, others if one_number else others[k])
            for k, (s, part) in enumerate(zip(self.segments, segments, strict=True))
        )

    def is_finite(self, segments: Sequence[PyTree[Array]]) -> Bool[Array, " member"]:
        """Which members' arrays are all finite; those of members without layers are."""
        finite = jnp.ones(len(self.depths), bool)
        for s, part in zip(self.segments, segments, strict=True):
            finite = finite.at[: s.members].min(jax.vmap(finite_rows)(part).all(0))
        return finite

    def run(
        self, layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Float[Array, "member ..."]
    ) -> tuple[Float[Array, "member ..."], tuple[PyTree[Array], ...]]:
        """Every member's last hidden state, from its first, and its updated variables.

        One loop a segment over the layers of those that go on; the others wait at the end of theirs.
        """

        def segment(s: Segment, h: Array, params: PyTree[Array], rest: PyTree[Array]) -> tuple:
            return ascend(jax.vmap(layer), params, rest, s.stop - s.start, h)

        return self._through(segment, h, params, rest)

    def climb(
        self, layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Float[Array, "member ..."], kept: Kept
    ) -> tuple[Float[Array, "member ..."], tuple[PyTree[Array], ...], tuple[Room, ...]]:
        """`run` with a derivative, and the rooms it filled."""

        def segment(s: Segment, h: Array, params: PyTree[Array], rest: PyTree[Array], kept: tuple) -> tuple:
            h, updated, room = climb(jax.vmap(layer), params, rest, jnp.int32(s.stop - s.start), h, *kept)
            return h, (updated, room)

        h, found = self._through(segment, h, params, rest, kept)
        updated, rooms = zip(*found, strict=True)
        return h, updated, rooms

    def room(self, layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Any, remat: str) -> Kept:
        """What `climb` needs for a hidden state like `h`, with layers in chunks as `remat` says."""

        def kept(s: Segment, params: PyTree[Array], rest: PyTree[Array]) -> tuple[Room, PyTree[Array]]:
            state = jax.ShapeDtypeStruct((s.members, *h.shape[1:]), h.dtype)
            room = room_for(jax.vmap(layer), params, rest, s.stop - s.start, state, remat)
            return room, jax.tree.map(jnp.zeros_like, params)

        return tuple(map(kept, self.segments, params, rest))

    def _through(self, run: Callable[..., tuple], h: Array, *arrays: Any) -> tuple[Array, tuple]:
        """`run(segment, h, *its arrays) -> h, results` of one segment after the other."""
        found, finished = [], []
        for s, *of_segment in zip(self.segments, *arrays, strict=True):
            finished.append(h[s.members :])
            h, results = run(s, h[: s.members], *of_segment)
            found.append(results)
        return jnp.concatenate([h, *reversed(finished)]), tuple(found)

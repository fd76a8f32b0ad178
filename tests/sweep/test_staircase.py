"""The layouts: what goes in comes out, and the work is the sum of the depths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.queue import Queue
from sweep.staircase import Staircase

DEPTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any).map(lambda d: tuple(sorted(d, reverse=True)))


@given(DEPTHS)
def test_layers_are_exactly_the_sum_of_depths(depths):
    segments = Staircase(depths).segments
    assert sum((s.stop - s.start) * s.members for s in segments) == sum(depths)
    assert [s.start for s in segments] == [0, *(s.stop for s in segments[:-1])]


def groups_of(depths):
    """Arrays of distinct numbers by depth, and the members that have them."""
    numbers = iter(np.random.default_rng(0).permutation(10_000))

    def array(*shape: int):
        return jnp.asarray([next(numbers) for _ in range(int(np.prod(shape)))], jnp.float32).reshape(shape)

    starts = {depth: depths.index(depth) for depth in sorted({*depths} - {0}, reverse=True)}
    groups = [(depth, {"w": array(depths.count(depth), depth, 2)}) for depth in starts]
    return groups, [slice(start, start + depths.count(depth)) for depth, start in starts.items()]


@given(DEPTHS)
@settings(max_examples=10, deadline=None)
def test_extract_undoes_assemble(depths):
    groups, members = groups_of(depths)
    segments = Staircase(depths).assemble(groups)
    for group, (_, expected) in zip(members, groups, strict=True):
        jax.tree.map(np.testing.assert_array_equal, Staircase(depths).extract(segments, group), expected)


@given(DEPTHS)
@settings(max_examples=10, deadline=None)
def test_what_windows_put_stays_the_members_own(depths):
    """Windows as long as the deepest member are put in order, of which only a member's own layers remain."""
    (groups, members), queue = groups_of(depths), Queue(depths)
    window = {"w": jnp.full((max(depths), 2), -1.0)}
    padded = queue.room(window)
    by_member = [layers for _, arrays in groups for layers in arrays["w"]] + [jnp.zeros((0, 2))] * depths.count(0)
    for start, layers in zip(queue.starts, by_member, strict=True):
        padded = queue.put(padded, {"w": window["w"].at[: len(layers)].set(layers)}, jnp.int32(start))
        np.testing.assert_array_equal(queue.window(padded, jnp.int32(start))["w"][: len(layers)], layers)
    for group, (_, expected) in zip(members, groups, strict=True):
        jax.tree.map(np.testing.assert_array_equal, queue.extract(queue.unpadded(padded), group), expected)


@pytest.mark.parametrize("depths", [(), (0,), (1, 2), (1, -1)])
def test_refuses(depths):
    with pytest.raises(ValueError, match="must not be negative, all 0, or increase"):
        Staircase(depths)

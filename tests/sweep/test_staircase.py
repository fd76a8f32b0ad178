"""The layout: what goes in comes out, and the work is the sum of the depths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.staircase import Staircase

DEPTHS = st.lists(st.integers(0, 9), min_size=1, max_size=6).filter(any).map(lambda d: tuple(sorted(d, reverse=True)))


@given(DEPTHS)
def test_layers_are_exactly_the_sum_of_depths(depths):
    segments = Staircase(depths).segments
    assert sum((s.stop - s.start) * s.members for s in segments) == sum(depths)
    assert [s.start for s in segments] == [0, *(s.stop for s in segments[:-1])]


@given(DEPTHS)
@settings(max_examples=10, deadline=None)
def test_extract_undoes_assemble(depths):
    staircase = Staircase(depths)
    numbers = iter(np.random.default_rng(0).permutation(10_000))

    def array(*shape: int):
        return jnp.asarray([next(numbers) for _ in range(int(np.prod(shape)))], jnp.float32).reshape(shape)

    starts = {depth: depths.index(depth) for depth in sorted({*depths} - {0}, reverse=True)}
    groups = [(depth, {"w": array(depths.count(depth), depth, 2)}) for depth in starts]
    segments = staircase.assemble(groups)
    for (depth, start), (_, expected) in zip(starts.items(), groups, strict=True):
        found = staircase.extract(segments, slice(start, start + depths.count(depth)))
        jax.tree.map(np.testing.assert_array_equal, found, expected)


@pytest.mark.parametrize("depths", [(), (0,), (1, 2), (1, -1)])
def test_refuses(depths):
    with pytest.raises(ValueError, match="must not be negative, all 0, or increase"):
        Staircase(depths)

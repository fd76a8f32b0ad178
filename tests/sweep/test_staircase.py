"""The layout: what goes in comes out, and the work is the sum of the depths."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sweep.staircase import Staircase

DEPTHS = st.lists(st.integers(1, 9), min_size=1, max_size=6).map(lambda d: tuple(sorted(d, reverse=True)))


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

    by_depth = {
        depth: {"stem": {"w": array(n, 2)}, "blocks": {"w": array(n, depth, 2)}, "head": {"w": array(n)}}
        for depth in staircase.groups
        for n in [depths.count(depth)]
    }
    parts = staircase.assemble(by_depth)
    for depth in staircase.groups:
        jax.tree.map(np.testing.assert_array_equal, staircase.extract(parts, depth), by_depth[depth])


def test_scale_reaches_each_members_arrays():
    staircase = Staircase((3, 1))
    ones = {
        depth: {"stem": jnp.ones((1, 2)), "blocks": jnp.ones((1, depth, 2)), "head": jnp.ones(1)} for depth in (3, 1)
    }
    scaled = staircase.scale(staircase.assemble(ones), jnp.array([2.0, 5.0]))
    for depth, factor in ((3, 2.0), (1, 5.0)):
        for leaf in jax.tree.leaves(staircase.extract(scaled, depth)):
            np.testing.assert_array_equal(leaf, np.full(leaf.shape, factor))


@pytest.mark.parametrize("depths", [(), (0,), (1, 2)])
def test_refuses(depths):
    with pytest.raises(ValueError, match="must be positive and not increase"):
        Staircase(depths)

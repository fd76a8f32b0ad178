"""Stacks as loops: the same as JAX's scan of them, in memory that may hold anything."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sweep.climb import REMATERIALIZATIONS, ascend, climb, room_for
from tests.tiers import pairwise


def by_product(w, steps, h):
    return jnp.tanh(h * w) + steps * h, steps + h


def by_output(w, steps, h):
    """Its derivative keeps the output."""
    return jnp.exp(h * w / 9), steps * h


@pytest.fixture
def stack(double):
    key = jax.random.key(0)
    w, steps = jax.random.normal(key, (2, 7, 4))
    h, cotangent = jax.random.normal(jax.random.fold_in(key, 1), (2, 4))
    return w, steps, h, cotangent


@pytest.mark.parametrize(
    ("layers", "layer", "remat"), pairwise([0, 1, 5, 7], [by_product, by_output], [*REMATERIALIZATIONS])
)
def test_is_the_scan_of_the_first_layers(stack, remat, layer, layers):
    w, steps, h, cotangent = stack
    room, into = jax.tree.map(lambda leaf: leaf + jnp.nan, (room_for(layer, w, steps, 7, h, remat), w))

    def climbed(w, h):
        h, updated, room_after = climb(layer, w, steps, jnp.int32(layers), h, room, into)
        return h, (updated, room_after)

    def scanned(w, h):
        return jax.lax.scan(lambda h, arrays: layer(*arrays, h), h, (w[:layers], steps[:layers]))

    found, pull, (updated, room_after) = jax.vjp(climbed, w, h, has_aux=True)
    expected, pull_expected, updated_expected = jax.vjp(scanned, w, h, has_aux=True)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    np.testing.assert_allclose(updated, jnp.concatenate([updated_expected, steps[layers:]]), rtol=1e-14)
    if remat == "none":
        np.testing.assert_array_equal(room_after.states[0], h)
        np.testing.assert_allclose(room_after.states[layers], expected, rtol=1e-14)
    (gradient, at_h), (gradient_expected, at_h_expected) = pull(cotangent), pull_expected(cotangent)
    np.testing.assert_allclose(at_h, at_h_expected, rtol=1e-13, atol=1e-15)
    np.testing.assert_allclose(gradient[:layers], gradient_expected[:layers], rtol=1e-13, atol=1e-15)
    assert jnp.isnan(gradient[layers:]).all(), "further layers' are what was there"
    jax.tree.map(
        lambda one, other: np.testing.assert_allclose(one, other, rtol=1e-14),
        ascend(layer, w, steps, layers, h),
        (found, updated),
    )


def test_a_state_is_kept_once(stack):
    """Input and output of a layer are neighbours among the states, and nothing else of their size is kept."""
    w, steps, h, _ = stack
    room = room_for(by_output, w, steps, 7, h)
    assert room.states.shape == (8, 4)
    assert all(other.size <= 7 for other in room.others)


@pytest.mark.parametrize("layers", [1, 2, 9, 10, 100])
def test_rematerialization_keeps_about_the_square_root(stack, layers):
    w, steps, h, _ = stack
    w, steps = (jnp.resize(array, (layers, 4)) for array in (w, steps))
    room = room_for(by_output, w, steps, layers, h, "sqrt")
    chunk = len(room.states) - 1
    assert chunk == math.ceil(math.sqrt(layers))
    assert len(room.entries) == (math.ceil(layers / chunk) if chunk < layers else 0)
    assert all(len(other) == chunk for other in room.others)

"""What is done to images at random: every crop and mirror there is, and nothing else."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from sweep.augmentations import crop_and_flip, none
from sweep.data import load
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.plan import structures_of
from tests.sweep.test_member import CONFIG, only_shard


def test_every_image_is_one_of_the_162_and_all_occur():
    image = np.random.default_rng(0).normal(size=(5, 6, 2)).astype(np.float32)
    padded = np.pad(image, ((4, 4), (4, 4), (0, 0)))
    possible = [
        crop[:, ::step]
        for i in range(9)
        for j in range(9)
        for step in (1, -1)
        for crop in [padded[i : i + 5, j : j + 6]]
    ]
    count = 4000  # each of 162 is missed with probability exp(-25)
    found = np.asarray(crop_and_flip(jax.random.key(1), jnp.asarray(np.tile(image, (count, 1, 1, 1)))))
    known = {one.tobytes() for one in map(np.ascontiguousarray, possible)}
    seen = {np.ascontiguousarray(one).tobytes() for one in found}
    assert seen <= known
    assert seen == known


def test_none_is_the_images_as_they_are():
    images = jnp.arange(24.0).reshape(2, 3, 2, 2)
    np.testing.assert_array_equal(none(jax.random.key(0), images), images)


def test_members_of_a_seed_see_the_same_and_every_step_something_new():
    config = dataclasses.replace(CONFIG, augment="crop-flip", depths=(1,), seeds=(0, 4), learning_rates=(0.1,))
    ((structure, members),) = structures_of(config, (8, 8, 1), 10).items()
    engine, data = Engine(config, Ensemble.of(structure, members)), put(load("digits"))
    order = jnp.zeros((2, 1437), jnp.int32)
    batch = partial(jax.jit(engine.batch), only_shard(engine.ensemble.traits))
    order, x, labels = batch(order, jnp.int32(0), data)
    seeds = [member.seed for member in engine.ensemble.members]
    for i, j in np.ndindex(len(seeds), len(seeds)):
        assert np.array_equal(x[i], x[j]) == (seeds[i] == seeds[j])
    np.testing.assert_array_equal(batch(order, jnp.int32(0), data)[1], x)
    # The first batch of the next epoch's order, but for the order, would be the same images.
    changed = dataclasses.replace(config, augment="none")
    plain = Engine(changed, engine.ensemble)
    same_rows = jax.jit(plain.batch)(only_shard(plain.ensemble.traits), order, jnp.int32(0), data)
    np.testing.assert_array_equal(same_rows[2], labels)
    assert not np.array_equal(same_rows[1], x)

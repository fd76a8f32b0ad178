"""Optimizers, schedules, the order of the data, evaluation."""

import dataclasses
import itertools
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sweep.config import Config
from sweep.engine import STEPS_PER_CALL, Engine, put
from sweep.ensemble import Ensemble
from sweep.optimizers import schedule
from sweep.plan import structures_of
from tests.sweep.test_member import by_member, dataset, only_shard
from tests.tiers import slow, slow_unless

CONFIG = Config(norms=("batch",), depths=(1, 3), seeds=(0,), width=4, batch_size=16, steps=12, probe_batch_size=8)


def engine_of(config):
    ((structure, members),) = structures_of(config, (1, 5, 1), 3).items()
    return Engine(config, Ensemble.of(structure, members))


@pytest.mark.parametrize(
    ("name", "reference"),
    [
        slow(
            "sgd", lambda rate: optax.chain(optax.add_decayed_weights(0.1, mask=kernels), optax.sgd(rate, momentum=0.9))
        ),
        ("adamw", lambda rate: optax.adamw(rate, b1=0.9, weight_decay=0.1, mask=kernels)),
    ],
)
def test_optimizers_are_optaxes_with_a_rate_a_member(double, name, reference):
    config = dataclasses.replace(
        CONFIG,
        depths=(2,),
        optimizer=name,
        learning_rates=(0.01, 0.1),
        schedule="cosine",
        warmup_steps=3,
        weight_decay=0.1,
    )
    engine, data = engine_of(config), put(dataset())
    state = only_shard(engine.init(engine.ensemble.traits, 50))

    def transform(rate):
        return reference(lambda step: rate * schedule("cosine", 12, 3)(step.astype(float)))

    @jax.jit
    def step(state):
        _, x, labels = engine.batch(state.traits, state.order, state.step, data)
        room = engine.room(state, data)
        gradients = engine.gradients(state.params, state.rest, x, labels, room)[0]
        return engine.step(state, data, room)[0], engine.ensemble.extract(gradients, 2)

    @jax.jit
    @jax.vmap
    def expected_step(rate, gradients, moments, params):
        updates, moments = transform(rate).update(gradients, moments, params)
        return moments, optax.apply_updates(params, updates)

    extract = jax.jit(lambda parts: engine.ensemble.extract(parts, 2))
    params = extract(state.params)
    rates = jnp.asarray([member.learning_rate for member in engine.ensemble.members])
    moments = jax.vmap(lambda rate, params: transform(rate).init(params))(rates, params)
    for _ in range(12):
        state, gradients = step(state)
        moments, params = expected_step(rates, gradients, moments, params)
    found = extract(state.params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-7, atol=1e-9), found, params)


@pytest.mark.parametrize(
    ("serial", "arch", "depths"),
    [
        (False, "mlp", (5,)),
        *(slow(serial, arch, (2, 5, 10)) for serial in (False, True) for arch in ("mlp", "isotropic-cnn")),
    ],
)
def test_rematerialization_changes_no_number(double, monkeypatch, arch, depths, serial):
    """Depths beside and between the squares, as a staircase and one after the other."""
    monkeypatch.setattr("sweep.ensemble._LARGE", 1 if serial else 2**30)
    config = dataclasses.replace(CONFIG, arch=arch, depths=depths, nets=("residual",), steps=3)
    found = {}
    for remat in ("none", "sqrt"):
        engine, data = engine_of(dataclasses.replace(config, remat=remat)), put(dataset())
        state, losses = engine.train(engine.init(engine.ensemble.traits, 50), data, jnp.int32(3))
        found[remat] = state.params, losses[:, :3]
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-11, atol=1e-13), *found.values())


def members_arrays(engine, params, rest):
    """Parameters and batch statistics by member."""
    found = [by_member(engine.ensemble, only_shard(parts)) for parts in (params, rest)]
    return {member: (found[0][member], found[1][member]) for member in found[0]}


@pytest.mark.parametrize(
    ("serial", "norm"),
    slow_unless(lambda *case: case == (False, "batch"), itertools.product([False, True], ["none", "batch"])),
)
def test_a_member_that_diverges_stays_as_it_was(double, monkeypatch, serial, norm):
    """At the first step whose update or loss is not finite; whoever is beside it is not touched by it."""
    monkeypatch.setattr("sweep.ensemble._LARGE", 1 if serial else 2**30)
    config = dataclasses.replace(CONFIG, depths=(2,), nets=("plain",), activation="linear", norms=(norm,))
    wild = dataclasses.replace(config, learning_rates=(0.01, 1e200))
    alone, engine, data = engine_of(config), engine_of(wild), put(dataset())
    state = engine.init(engine.ensemble.traits, 50)
    history = [(state.params, state.rest)]
    for _ in range(6):
        state, _ = engine.train(jax.tree.map(jnp.copy, state), data, jnp.int32(1))
        history.append((state.params, state.rest))
    steps, causes = state.diverged[0], state.cause[0]
    lost = [m.learning_rate > 1 for m in engine.ensemble.members]
    assert ((steps >= 0) == np.asarray(lost)).all()
    assert set(np.asarray(causes)[lost]) <= {1, 2}
    by_step = [members_arrays(engine, *arrays) for arrays in history]
    for member, step in zip(engine.ensemble.members, np.asarray(steps), strict=True):
        if step >= 0:
            assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(by_step[-1][member]))
            jax.tree.map(np.testing.assert_array_equal, by_step[-1][member], by_step[step][member])
    tame, _ = alone.train(alone.init(alone.ensemble.traits, 50), data, jnp.int32(6))
    for member, arrays in members_arrays(alone, tame.params, tame.rest).items():
        # Of a bias before batch norm the gradient is 0, but for the rounding of the sums that cancel in it.
        close = partial(np.testing.assert_allclose, rtol=1e-11, atol=0 if norm == "none" else 1e-15)
        jax.tree.map(close, by_step[-1][member], arrays)


def kernels(params):
    return jax.tree.map_with_path(lambda path, _: path[-1].key == "kernel", params)


def test_schedule():
    share = [float(schedule("cosine", 10, 3)(step)) for step in range(11)]
    np.testing.assert_allclose(share[:4], [0.25, 0.5, 0.75, 1.0], rtol=1e-6)
    assert share[3:] == sorted(share[3:], reverse=True)
    assert share[10] == pytest.approx(0, abs=1e-6)
    assert [float(schedule("constant", 10, 0)(step)) for step in (0, 9)] == [1, 1]
    # He et al. 2015's: 64,000 steps, a tenth from 32,000 on and a hundredth from 48,000 on, whatever the warm-up.
    for warmup in (0, 400):
        drops = schedule("steps", 64_000, warmup)
        found = [float(drops(step)) for step in (31_999, 32_001, 47_999, 48_001)]
        np.testing.assert_allclose(found, [1, 0.1, 0.1, 0.01], rtol=1e-6)


def test_every_epoch_is_a_new_order_without_repeats():
    config = dataclasses.replace(CONFIG, seeds=(0, 7))
    engine, data = engine_of(config), put(dataset())
    order = jnp.zeros((2, 50), jnp.int32)
    orders = []
    batch, traits = jax.jit(engine.batch), only_shard(engine.ensemble.traits)
    for step in range(6):
        order, x, labels = batch(traits, order, jnp.int32(step), data)
        orders.append(np.asarray(order))
        rows = order[:, 16 * (step % 3) : 16 * (step % 3) + 16]
        seeds = np.searchsorted(config.seeds, [member.seed for member in engine.ensemble.members])
        np.testing.assert_array_equal(x, data.inputs(data.train_images[rows[seeds]]))
        np.testing.assert_array_equal(labels, data.train_labels[rows[seeds]])
    for one in orders:
        np.testing.assert_array_equal(np.sort(one), np.tile(np.arange(50), (2, 1)))
    np.testing.assert_array_equal(orders[0], orders[2])
    assert (orders[0] != orders[3]).any()
    assert (orders[0][0] != orders[0][1]).any()


def test_many_steps_in_one_call_are_the_same_steps(double):
    engine, data = engine_of(CONFIG), put(dataset())
    traits = engine.ensemble.traits
    at_once, losses = only_shard(engine.train(engine.init(traits, 50), data, jnp.int32(12)))
    state, pieces = engine.init(traits, 50), []
    for count in (5, 0, 7):
        state, some = engine.train(state, data, jnp.int32(count))
        pieces.append(some[0, :count])
    np.testing.assert_array_equal(np.concatenate(pieces), losses[:12])
    assert np.isnan(losses[12:]).all()
    assert losses.shape == (STEPS_PER_CALL, 4)
    jax.tree.map(np.testing.assert_array_equal, at_once, only_shard(state))


def test_the_program_does_not_grow_with_depth():
    """What XLA is given to compile has as many operations at depth 1,024 as at depth 16."""
    data = put(dataset())

    def operations(*depths):
        engine = engine_of(dataclasses.replace(CONFIG, depths=depths))
        state = engine.init.eval_shape(engine.ensemble.traits, 50)
        return engine.train.lower(state, data, jnp.int32(0)).as_text().count(" = ")

    shallow = operations(2, 16)
    assert operations(2, 1024) == shallow
    assert operations(2, 8, 16) > shallow


def test_evaluation_is_the_mean_over_the_test_set(double):
    """A test set that does not divide into chunks, against the members one at a time."""
    engine = engine_of(CONFIG)
    rng = np.random.default_rng(1)
    images, labels = rng.normal(size=(301, 1, 5, 1)).astype(np.float32), rng.integers(0, 3, 301).astype(np.int32)
    data = put(dataclasses.replace(dataset(), test_images=images, test_labels=labels))
    state, _ = engine.train(engine.init(engine.ensemble.traits, 50), data, jnp.int32(12))
    loss, accuracy = only_shard(engine.evaluate(state.params, state.rest, data))
    state, x = only_shard(state), data.inputs(data.test_images)

    @partial(jax.jit, static_argnums=0)
    def expected(depth, params, rest):
        graphdef, states = engine.ensemble.networks(params, rest, depth)

        def of(network):
            model = nnx.merge(graphdef, network)
            model.eval()
            logits = model(x)
            losses = optax.softmax_cross_entropy_with_integer_labels(logits, data.test_labels)
            return losses.mean(), (logits.argmax(-1) == data.test_labels).astype(float).mean()

        return jax.lax.map(of, states)

    for depth, group in engine.ensemble.groups.items():
        np.testing.assert_allclose((loss[group], accuracy[group]), expected(depth, state.params, state.rest), 1e-10)


def test_bfloat16_steps_round_products_and_nothing_that_lasts():
    """Weights, moments and statistics stay float32, and losses near those of full precision."""
    rounded = dataclasses.replace(CONFIG, depths=(2,), precision="bfloat16", width=16)
    losses = {}
    for config in (rounded, dataclasses.replace(rounded, precision="full")):
        engine, data = engine_of(config), put(dataset())
        state = engine.init(engine.ensemble.traits, 50)
        program = str(jax.make_jaxpr(engine.train)(state, data, jnp.int32(12)))
        products = [line for line in program.splitlines() if "dot_general[" in line]
        expected = "bf16[" if config is rounded else "f32["
        assert products
        assert all(line.split(":")[1].startswith(expected) for line in products)
        state, losses[config.precision] = engine.train(state, data, jnp.int32(12))
        kept = jax.tree.leaves((state.params, state.rest, state.moments))
        assert {leaf.dtype for leaf in kept if jnp.issubdtype(leaf.dtype, jnp.inexact)} == {jnp.dtype("float32")}
    assert losses["bfloat16"].dtype == jnp.float32
    found, exact = (np.asarray(losses[name])[..., :12, :] for name in ("bfloat16", "full"))
    np.testing.assert_allclose(found, exact, rtol=0.05)
    assert not np.array_equal(found, exact)

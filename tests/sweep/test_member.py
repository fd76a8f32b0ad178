"""A member is itself: alone or among 24, whoever the others are and wherever it stands."""

import dataclasses
from functools import lru_cache

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from sweep.config import Config
from sweep.data import Dataset
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.members import data_key
from sweep.plan import structures_of
from tests.tiers import slow

STEPS = 20
MOMENTUM = {"sgd": "trace", "adam": "mu"}
CONFIG = Config(
    norms=("batch",),
    depths=(1, 2, 5),
    seeds=(0, 1),
    width=8,
    learning_rates=(0.01, 0.03),
    batch_size=16,
    steps=STEPS,
    probe_batch_size=8,
)


def dataset():
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(50, 5)).astype(np.float32)
    labels = (inputs[:, 0] > 0).astype(np.int32) + (inputs[:, 1] > 0)
    images = inputs.reshape(50, 1, 5, 1)
    return Dataset(images, labels, images[:10], labels[:10])


def train(ensemble, config=CONFIG):
    """An ensemble's gradients at its first step, and its parameters after all of them, by member."""
    engine, data = Engine(config, ensemble), put(dataset())
    state, _ = engine.train(engine.init(ensemble.traits, 50), data, jnp.int32(1))
    # What a momentum that was zero holds after one step, but for a factor of Adam's.
    gradients = by_member(ensemble, only_shard(optax.tree.get(state.moments, MOMENTUM[config.optimizer])))
    state, _ = engine.train(state, data, jnp.int32(STEPS - 1))
    return gradients, by_member(ensemble, only_shard(state).params)


def only_shard(arrays):
    return jax.tree.map(lambda array: np.asarray(array)[0], arrays)


def extract(ensemble, depth):
    """`ensemble.extract` of a depth as a program that is compiled once, where eager slices are many."""
    return _extract(ensemble, depth, ensemble.one_at_a_time)


@lru_cache
def _extract(ensemble, depth, one_at_a_time):
    return jax.jit(lambda parts: ensemble.extract(parts, depth))


def by_member(ensemble, parts):
    found = {}
    for depth, group in ensemble.groups.items():
        extracted = extract(ensemble, depth)(parts)
        for i, member in enumerate(ensemble.members[group]):
            found[member] = jax.tree.map(lambda leaf, i=i: np.asarray(leaf)[i], extracted)
    return found


def assert_same(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e)


@pytest.fixture(scope="module")
def everyone():
    with jax.enable_x64(True):
        ((structure, members),) = structures_of(CONFIG, (1, 5, 1), 3).items()
        assert len(members) == 24
        yield structure, members, *train(Ensemble.of(structure, members))


@pytest.mark.parametrize("index", [slow(0), 23])
def test_alone_as_an_ensemble_of_one(double, everyone, index):
    structure, members, gradients, params = everyone
    member = members[index]
    alone_gradients, alone_params = train(Ensemble.of(structure, (member,)))
    assert_same(gradients[member], alone_gradients[member], 1e-10)
    assert_same(params[member], alone_params[member], 1e-6)


def assert_equals_a_flax_model(structure, member, gradients, params):
    """The same network trained as anybody would train it: `nnx.Optimizer`, a Python loop, one batch at a time."""
    model = nnx.jit(lambda: member.build(structure))()
    optimizer = nnx.Optimizer(model, optax.sgd(member.learning_rate, momentum=0.9), wrt=nnx.Param)
    data = put(dataset())

    @nnx.jit
    def step(model, optimizer, rows):
        def loss(model):
            logits = model(data.inputs(data.train_images[rows]))
            return optax.softmax_cross_entropy_with_integer_labels(logits, data.train_labels[rows]).mean()

        found = nnx.grad(loss)(model)
        optimizer.update(model, found)
        return found

    def parts(state):
        return {name: part.get("layers", part) for name, part in nnx.to_pure_dict(state).items()}

    for count in range(STEPS):
        epoch, position = divmod(count, 50 // 16)
        order = jax.random.permutation(jax.random.fold_in(data_key(member.seed), epoch), 50)
        found = step(model, optimizer, order[position * 16 : position * 16 + 16])
        if count == 0:
            assert_same(gradients, parts(found), 1e-10)
    assert_same(params, parts(nnx.state(model, nnx.Param)), 1e-6)


def test_alone_as_a_flax_model(double, everyone):
    structure, members, gradients, params = everyone
    assert_equals_a_flax_model(structure, members[20], gradients[members[20]], params[members[20]])


@pytest.mark.parametrize(
    "change",
    [
        {"norms": ("none",), "order": "pre", "optimizer": "adam"},
        slow({"norms": ("none",)}),
        slow({"order": "pre", "optimizer": "adam"}),
    ],
    ids=str,
)
def test_other_structures_too(double, change):
    config = dataclasses.replace(CONFIG, depths=(1, 4), seeds=(3,), **change)
    ((structure, members),) = structures_of(config, (1, 5, 1), 3).items()
    gradients, params = train(Ensemble.of(structure, members), config)
    alone_gradients, alone_params = train(Ensemble.of(structure, members[-1:]), config)
    assert_same(gradients[members[-1]], alone_gradients[members[-1]], 1e-10)
    assert_same(params[members[-1]], alone_params[members[-1]], 1e-6)


@pytest.mark.parametrize(
    ("arch", "depths", "shortcut"),
    [
        slow("cnn", (8, 14, 20), "B"),
        slow("isotropic-cnn", (8, 14, 20), "A"),
        ("isotropic-cnn", (1, 2), "A"),
    ],
)
def test_convolutional_members_too(double, arch, depths, shortcut):
    """Of several depths, the shallowest without layers in some stacks: alone in an ensemble and as Flax models."""
    config = dataclasses.replace(
        CONFIG, arch=arch, depths=depths, seeds=(3,), width=2, learning_rates=(0.03,), shortcut=shortcut
    )
    ((structure, members),) = structures_of(config, (1, 5, 1), 3).items()
    gradients, params = train(Ensemble.of(structure, members), config)
    alone_gradients, alone_params = train(Ensemble.of(structure, members[:1]), config)
    assert_same(gradients[members[0]], alone_gradients[members[0]], 1e-10)
    assert_same(params[members[0]], alone_params[members[0]], 1e-6)
    for member in (members[0], members[-2]):
        assert_equals_a_flax_model(structure, member, gradients[member], params[member])


def test_order_and_company_change_nothing(double, everyone):
    structure, members, gradients, params = everyone
    some = members[::-5]
    other_gradients, other_params = train(Ensemble.of(structure, some))
    for member in some:
        assert_same(other_gradients[member], gradients[member], 1e-10)
        assert_same(other_params[member], params[member], 1e-6)


@pytest.mark.slow
def test_a_diverging_member_disturbs_nobody(double, everyone):
    structure, members, _, params = everyone
    wild = dataclasses.replace(members[10], learning_rate=1e200)
    ensemble = Ensemble.of(structure, (*members[:10], wild))
    engine, data = Engine(CONFIG, ensemble), put(dataset())
    state, losses = only_shard(engine.train(engine.init(ensemble.traits, 50), data, jnp.int32(STEPS)))
    found = by_member(ensemble, state.params)
    for member in members[:10]:
        assert_same(found[member], params[member], 1e-6)
    index = ensemble.members.index(wild)
    diverged = int(state.diverged[index])
    assert 1 <= diverged < STEPS
    assert np.isfinite(losses[:diverged, index]).all()
    assert not np.isfinite(losses[diverged, index])
    assert (np.delete(state.diverged, index) == -1).all()


@pytest.mark.parametrize(
    ("arch", "depths"),
    [
        slow("cnn", (8, 14)),
        slow("isotropic-cnn", (3, 4, 6)),
        slow("mlp", (2, 3, 7)),
        ("mlp", (1, 3)),
    ],
)
def test_large_members_one_after_the_other(double, monkeypatch, arch, depths):
    """Networks too large to gain from one another's company, on CPUs: as all at once, and as a Flax model."""
    config = dataclasses.replace(CONFIG, arch=arch, depths=depths, seeds=(5, 6), width=4, learning_rates=(0.03,))
    ((structure, members),) = structures_of(config, (1, 5, 1), 3).items()
    data = put(dataset())

    def found():
        ensemble = Ensemble.of(structure, members)
        engine = Engine(config, ensemble)
        state = engine.init(ensemble.traits, 50)
        program = engine.train.lower(state, data, jnp.int32(1)).compile()
        state, losses = program(state, data, jnp.int32(STEPS))
        evaluated = engine.evaluate(state.params, state.rest, data)
        state, losses, evaluated = only_shard((state, losses, evaluated))
        memory = program.memory_analysis().temp_size_in_bytes
        arrays = by_member(ensemble, state.params), by_member(ensemble, state.rest)
        return ensemble, arrays, (losses[:STEPS], *evaluated), memory

    together, arrays, numbers, memory = found()
    monkeypatch.setattr("sweep.ensemble._LARGE", 1)
    ensemble, serial_arrays, serial_numbers, serial_memory = found()
    assert ensemble.one_at_a_time
    assert not together.one_at_a_time
    assert serial_memory < memory
    assert_same(serial_numbers, numbers, 1e-9)
    for expected, actual in zip(arrays, serial_arrays, strict=True):
        for member in members:
            assert_same(actual[member], expected[member], 1e-8)
    gradients, params = train(ensemble, config)
    assert_equals_a_flax_model(structure, members[1], gradients[members[1]], params[members[1]])

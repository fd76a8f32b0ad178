"""FLOPs counted from compiled programs, and the work of the staircase."""

from functools import partial

import jax
import jax.numpy as jnp
import pytest
from jax import lax

from sweep.config import Config
from sweep.data import load
from sweep.engine import Engine, put
from sweep.ensemble import Ensemble
from sweep.flops import count_flops
from sweep.plan import structures_of
from tests.sweep.test_member import only_shard
from tests.tiers import slow


def compiled(f, *args):
    return jax.jit(f).lower(*args).compile().as_text()


def test_a_product():
    assert count_flops(compiled(lambda a, b: a @ b, jnp.ones((3, 5)), jnp.ones((5, 7)))) == 2 * 3 * 5 * 7


def test_a_convolution():
    def f(x, w):
        return lax.conv_general_dilated(x, w, (2, 2), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    assert count_flops(compiled(f, jnp.ones((2, 8, 6, 3)), jnp.ones((3, 3, 3, 5)))) == 2 * (2 * 4 * 3 * 5) * 9 * 3


def test_a_loop_counts_as_often_as_it_runs():
    def f(h, ws):
        return lax.scan(lambda h, w: (jnp.tanh(h @ w), None), h, ws)[0]

    once = 2 * 16 * 8 * 8 + 16 * 8
    assert count_flops(compiled(f, jnp.ones((16, 8)), jnp.ones((7, 8, 8)))) == 7 * once


def test_a_reduction_and_a_batched_product():
    batched = compiled(lambda a, b: jnp.einsum("mij,mjk->mik", a, b), jnp.ones((4, 3, 5)), jnp.ones((4, 5, 7)))
    assert count_flops(batched) == 4 * 2 * 3 * 5 * 7
    # XLA may reduce in two stages, the second over a handful of partial sums.
    assert count_flops(compiled(lambda a: a.sum(), jnp.ones((30, 40)))) == pytest.approx(1200, rel=0.01)


def test_refuses_what_is_no_program():
    with pytest.raises(ValueError, match="no ENTRY computation"):
        count_flops("hello")


def least_of_mlps(config, depth):
    """The three products of every layer, forward and two backward."""
    return 6 * config.batch_size * config.width**2 * depth


@pytest.mark.parametrize(
    ("config", "least_of"),
    [
        (Config(norms=("batch",), seeds=(0,), depths=(2, 64)), least_of_mlps),
        slow(Config(norms=("batch",), depths=(2, 5, 64)), least_of_mlps),
        # Of a staged CNN on 8x8 images: 64 pixels x width² in the first stage and as many products in the others.
        slow(
            Config(norms=("batch",), arch="cnn", depths=(8, 14, 32), width=8, batch_size=16),
            lambda c, depth: 6 * c.batch_size * 9 * 64 * c.width**2 * (depth - 5),
        ),
    ],
    ids=["mlp", "mlp of three depths", "staged cnn"],
)
def test_the_ensembles_work_is_the_sum_of_its_members(config, least_of):
    data = put(load("digits"))
    ((structure, members),) = structures_of(config, (8, 8, 1), 10).items()

    def step_flops(*members):
        ensemble = Ensemble.of(structure, members)
        engine = Engine(config, ensemble)
        initial = partial(engine.initial, train_samples=len(data.train_labels))
        state = jax.eval_shape(initial, only_shard(ensemble.traits))
        kept = jax.eval_shape(engine.room, state, data)
        return count_flops(compiled(engine.step, state, data, kept))

    alone = {}
    for member in members:
        if member.depth not in alone:
            alone[member.depth] = step_flops(member)
    # ... and at most 5 % over the members' own.
    least = sum(least_of(config, member.depth) for member in members)
    total = step_flops(*members)
    assert total > least
    assert total / sum(alone[member.depth] for member in members) <= 1.05

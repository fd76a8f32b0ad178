"""The module against Flax's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nets import BatchNorm


@pytest.fixture
def pair():
    settings = {"momentum": 0.8, "epsilon": 1e-3, "bias_init": jax.nn.initializers.normal(), "rngs": nnx.Rngs(0)}
    ours = BatchNorm(5, **settings)
    theirs = nnx.BatchNorm(5, **settings)
    nnx.update(theirs, nnx.state(ours))
    return ours, theirs


def test_variables_are_flaxes(pair):
    ours, theirs = (jax.tree.map(jnp.shape, nnx.state(module)) for module in pair)
    assert ours == theirs


def test_training_then_evaluation(pair):
    for step in range(3):
        x = 2 + jax.random.normal(jax.random.key(step), (4, 9, 5))
        ours, theirs = (module(x) for module in pair)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(getattr(pair[0], name)[...], getattr(pair[1], name)[...], rtol=1e-5)
    for module in pair:
        module.eval()
    np.testing.assert_allclose(pair[0](x), pair[1](x), rtol=1e-5, atol=1e-5)


def test_a_call_chooses_its_mode(pair):
    x = jax.random.normal(jax.random.key(0), (9, 5))
    for module in pair:
        module.train()
    ours, theirs = (module(x, use_running_average=True) for module in pair)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (pair[0].mean[...] == 0).all()


def test_residual_and_activation_are_fused_in_both_modes(pair):
    x, residual = jax.random.normal(jax.random.key(0), (2, 9, 5))
    for running in (True, False):
        fused = pair[0](x, running, residual=residual, activation=jax.nn.relu)
        apart = jax.nn.relu(pair[1](x, running) + residual)
        np.testing.assert_allclose(fused, apart, rtol=1e-5, atol=1e-5)

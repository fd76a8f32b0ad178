"""Closed forms against wide networks: the measurement is the probes', the tolerance the number of samples'."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from analysis import theory
from analysis.batchnorm import plain_growth, residual_variance
from analysis.fuss_catalan import fuss_catalan_largest, fuss_catalan_moment
from analysis.meanfield import fixed_variance
from nets import MLP, Stack
from nets.blocks import ORDERS
from nets.initializers import dense
from probes import jacobian_spectrum
from tests.tiers import slow

DRAWS = 6


def growth(width, batch, *, layers, order="post", norm, skip=0.0, weight_std=1.0, activation="relu"):
    """Squared norm of a random cotangent at every layer's output, `[draw, layer]`, over independent networks."""

    @jax.jit
    def one(key):
        init, data, direction = jax.random.split(key, 3)
        settings = {"skip": skip, "norm": norm, "activation": activation}
        linear = partial(dense, width, width, init="normal", weight_std=weight_std, bias_std=0.0)
        stack = Stack(
            lambda rngs: ORDERS[order](width, linear, rngs=rngs, **settings),
            layers,
            rngs=nnx.Rngs(init),
        )
        h = jax.random.normal(data, (batch, width))
        offsets = jnp.zeros((layers, batch, width))
        cotangent = jax.random.normal(direction, (batch, width))
        by_first, by_outputs = jax.grad(lambda h, o: (stack.trace(h, o)[0] * cotangent).sum(), (0, 1))(h, offsets)
        return jnp.square(jnp.concatenate([by_first[None], by_outputs])).sum((1, 2))

    return np.asarray(jax.lax.map(one, jax.random.split(jax.random.key(0), DRAWS)))


def rate(squared, skipped=2):
    """Growth per layer towards the input, mean and standard error over the draws, past the first and last layers."""
    logs = np.log(squared[:, skipped:-skipped])
    rates = np.exp((logs[:, 0] - logs[:, -1]) / (logs.shape[1] - 1))
    return rates.mean(), rates.std(ddof=1) / np.sqrt(len(rates))


@pytest.mark.parametrize("weight_std", [slow(1.0), 2**0.5])
def test_plain_relu_shrinks_by_half_of_the_weight_variance(weight_std):
    measured, error = rate(growth(512, 32, layers=16, norm="none", weight_std=weight_std))
    expected = theory.growth_per_layer("none", "relu", weight_std)
    assert expected is not None
    np.testing.assert_allclose(expected, weight_std**2 / 2)
    # Four standard errors, and 1 % for the finite width: log-normal fluctuations are of order 1/width per layer.
    assert abs(measured - expected) < 4 * error + 0.01 * expected


@pytest.mark.slow
@pytest.mark.parametrize("weight_std", [slow(0.5), 1.0, slow(2.0)])
def test_plain_batch_norm_explodes(weight_std):
    measured, error = rate(growth(512, 512, layers=12, norm="batch", weight_std=weight_std))
    np.testing.assert_allclose(plain_growth("relu"), 1.46694, atol=1e-5)
    # The finite batch adds a few units of 1/batch; at 512 that is 1 %.
    assert abs(measured - plain_growth("relu")) < 4 * error + 0.015


@pytest.mark.slow
def test_plain_linear_batch_norm_neither_grows_nor_shrinks():
    batch = 256
    measured, error = rate(growth(512, batch, layers=12, norm="batch", activation="linear"))
    assert theory.growth_per_layer("batch", "linear", 1.0) == 1.0
    assert abs(measured - (batch - 2) / (batch - 3)) < 4 * error + 2 / batch


def test_residual_batch_norm_grows_by_one_plus_one_over_v():
    layers = 20
    squared = growth(512, 512, layers=layers, order="pre", norm="batch", skip=1.0, weight_std=2**0.5)
    per_block = squared[:, :-1] / squared[:, 1:]
    measured, error = per_block.mean(0), per_block.std(0, ddof=1) / np.sqrt(DRAWS)
    expected = 1 + 1 / residual_variance(layers - 1)
    assert expected[2] == pytest.approx(1.423, abs=1e-3)
    assert expected[14] == pytest.approx(1.095, abs=1e-3)
    # Draws share nothing between blocks, so 5 standard errors over 20 blocks; 1 % for batch and width.
    assert (np.abs(measured - expected) < 5 * error + 0.01).all()
    profile = theory.gradient_profile(
        net="residual", norm="batch", order="pre", activation="relu", weight_std=2**0.5, depth=layers
    )
    np.testing.assert_allclose(profile[:-1] / profile[1:], expected, rtol=1e-12)


def spectrum(depth, activation, weight_std, init, width=384, samples=6):
    settings = {"activation": activation, "weight_std": weight_std, "init": init}

    @jax.jit
    def measure():
        network = MLP(width, 2, depth, width, **settings, rngs=nnx.Rngs(depth))
        return jacobian_spectrum(network, jax.random.normal(jax.random.key(1), (samples, width)))

    return np.square(measure())


@pytest.mark.parametrize("depth", [slow(1), 2, slow(4)])
def test_linear_gaussian_spectrum_is_fuss_catalan(depth):
    eigenvalues = spectrum(depth, "linear", 1.0, "normal", samples=1)
    assert fuss_catalan_moment(2, depth) == pytest.approx(depth + 1)
    # One matrix product of width n: moments fluctuate and are biased by a few (L + 1)/n.
    np.testing.assert_allclose((eigenvalues**2).mean(), depth + 1, rtol=4 * (depth + 1) / 384)
    # The edge is approached from below as n^(-2/3), which is 2 % here.
    largest = fuss_catalan_largest(depth)
    assert 0.9 * largest < eigenvalues.max() < 1.05 * largest


@pytest.mark.parametrize("init", ["normal", slow("orthogonal")])
def test_critical_relu_variance(init):
    depth = 8
    eigenvalues = spectrum(depth, "relu", 2**0.5, init)
    mean = eigenvalues.mean()
    # The mean of λ is a product of random norms: its own spread over networks is sqrt(5 L / n), here a third.
    assert abs(np.log(mean)) < 3 * np.sqrt(5 * depth / 384)
    expected = theory.critical_relu_variance(depth, init)
    assert eigenvalues.var() / mean**2 == pytest.approx(expected, rel=0.25)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("activation", "norm"),
    [
        ("tanh", "none"),
        slow("gelu", "batch"),
        slow("tanh", "batch"),
        slow("gelu", "none"),
    ],
)
def test_plain_growth_of_smooth_activations(activation, norm):
    settings = {"layers": 12, "norm": norm, "weight_std": 1.2, "activation": activation}
    squared = growth(512, 256, **settings)
    profile = theory.gradient_profile(
        net="plain",
        norm=norm,
        order="post",
        activation=activation,
        weight_std=1.2,
        depth=12,
        first_mean_square=1.0,
    )
    assert profile is not None
    measured, error = rate(squared)
    expected = (profile[2] / profile[10]) ** (1 / 8)
    # 1.5 %: the finite width without norm, and with it the finite batch, plain_growth_at's 0.4 %.
    assert abs(measured - expected) < 4 * error + 0.015 * expected


def test_without_a_start_plain_nets_are_taken_to_have_settled():
    settings = {"net": "plain", "norm": "none", "order": "pre", "activation": "tanh", "weight_std": 1.5, "depth": 3}
    settled = theory.gradient_profile(**settings, bias_std=0.1)
    chi = theory.growth_per_layer("none", "tanh", 1.5, 0.1)
    assert settled is not None
    assert chi is not None
    np.testing.assert_allclose(settled, chi ** np.array([3, 2, 1, 0]), rtol=1e-12)
    at_rest = fixed_variance("tanh", 1.5, 0.1)
    np.testing.assert_allclose(theory.gradient_profile(**settings, bias_std=0.1, first_mean_square=at_rest), settled)


def test_unknown_is_none():
    assert theory.growth_per_layer("none", "softplus", 1.0) is None
    assert theory.growth_per_layer("group", "relu", 1.0) is None
    settings = {"net": "residual", "order": "post", "activation": "relu", "weight_std": 1.0, "depth": 4}
    assert theory.gradient_profile(norm="none", **settings) is None
    assert theory.gradient_profile(norm="batch", **settings) is None

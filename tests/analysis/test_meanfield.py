"""The theory's closed forms against sampling: tolerances are standard errors of the samples, or roundings."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from analysis.activations import ACTIVATIONS, UnknownActivationError, activation_of
from analysis.bisection import root
from analysis.fuss_catalan import fuss_catalan_moment
from analysis.gaussian import expectation, product_expectation
from analysis.jacobian import eigenvalue_variance, mean_eigenvalue
from analysis.meanfield import (
    chi_1,
    correlation_factor,
    correlation_map,
    critical_weight_std,
    fixed_correlation,
    fixed_variance,
    gradient_growth,
    trainable_depth,
    variance_map,
    variances,
    xi_c,
    xi_gradient,
    xi_q,
)
from nets.activations import ACTIVATIONS as NETS
from tests.tiers import slow

SMOOTH = ["tanh", "gelu", "silu"]
WIDTH = 700


def within(samples, expected, errors=4.5):
    """Whether the mean is as expected, up to `errors` of its standard errors and rounding."""
    error = samples.std(ddof=1) / len(samples) ** 0.5
    assert abs(samples.mean() - expected) < errors * error + 1e-12, (samples.mean(), expected, error)


# Activations


def test_activations_are_the_nets(double):
    assert ACTIVATIONS.keys() == NETS.keys()
    x = np.concatenate([np.linspace(-12, 12, 49)[:24], np.linspace(-12, 12, 49)[25:], [-300.0, 300.0]])
    for name, function in NETS.items():
        value, derivative = ACTIVATIONS[name]
        np.testing.assert_allclose(value(x), function(jnp.asarray(x)), rtol=1e-10, atol=1e-14)
        np.testing.assert_allclose(derivative(x), jax.vmap(jax.grad(function))(jnp.asarray(x)), rtol=1e-10, atol=1e-14)


def test_unknown_activation_is_named_with_the_known():
    with pytest.raises(UnknownActivationError, match=r"one of relu, tanh, gelu, silu, linear, got 'softplus'$"):
        activation_of("softplus")
    with pytest.raises(UnknownActivationError):
        chi_1("softplus", 1.0)


# Gaussian expectations


@pytest.mark.parametrize("power", [0, 2, 4, 6])
def test_moments_of_a_gaussian(power):
    factorial = {0: 1, 2: 1, 4: 3, 6: 15}[power]
    np.testing.assert_allclose(expectation(lambda x: x**power, np.array([1.0, 4.0])), [factorial, factorial * 2**power])


@pytest.mark.parametrize("correlation", [-1.0, -0.7, 0.0, 0.5, 0.999, 1.0])
def test_relu_expectations_are_the_arc_cosine_kernels(correlation):
    """Cho & Saul 2009."""
    angle = np.arccos(correlation)
    kernel = (np.sqrt(1 - correlation**2) + (np.pi - angle) * correlation) / (2 * np.pi)
    value, slope = ACTIVATIONS["relu"]
    assert product_expectation(value, 9.0, correlation) == pytest.approx(9 * kernel, rel=1e-12, abs=1e-14)
    assert product_expectation(slope, 9.0, correlation) == pytest.approx((np.pi - angle) / (2 * np.pi), abs=1e-13)


@pytest.mark.parametrize("name", SMOOTH)
@pytest.mark.parametrize("variance", [0.25, 1.0])
def test_smooth_expectations_are_gauss_hermites(name, variance):
    points, weights = np.polynomial.hermite_e.hermegauss(150)
    weights, first = weights / weights.sum(), np.sqrt(variance) * points[:, None]
    second = np.sqrt(variance) * (0.6 * points[:, None] + 0.8 * points)
    for f in ACTIVATIONS[name]:
        # The poles of the tanh, nearer the larger the variance, leave the Hermite rule ten digits.
        expected = weights @ f(first)[:, 0] ** 2
        assert float(expectation(lambda x, f=f: f(x) ** 2, variance)) == pytest.approx(expected, rel=1e-9)
        assert product_expectation(f, variance, 1.0) == pytest.approx(expected, rel=1e-9)
        expected = weights @ (f(first) * f(second)) @ weights
        assert product_expectation(f, variance, 0.6) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize(("variance", "correlation"), [(0.3, -0.5), (30.0, 0.8)])
def test_expectations_of_samples(name, variance, correlation):
    z = np.random.default_rng(0).standard_normal((2, 200_000)) * variance**0.5
    u = z[0], correlation * z[0] + (1 - correlation**2) ** 0.5 * z[1]
    for f in ACTIVATIONS[name]:
        within(f(u[0]) ** 2, float(expectation(lambda x, f=f: f(x) ** 2, variance)))
        within(f(u[0]) * f(u[1]), product_expectation(f, variance, correlation))


def test_product_expectation_of_no_correlation():
    with pytest.raises(ValueError, match=r"correlation must be in \[-1, 1\], got 1.5"):
        product_expectation(np.tanh, 1.0, 1.5)


def test_root_needs_a_bracket():
    np.testing.assert_allclose(root(lambda x: x**2 - np.array([2.0, 9.0]), 0.0, 10.0), [2**0.5, 3.0], rtol=1e-15)
    with pytest.raises(ValueError, match="must change sign"):
        root(lambda x: x**2 + 1, 0.0, 1.0)


# Wide random nets


def propagate(activation, weight_std, bias_std, layers, *, variance=1.0, correlation=0.5, draws=4, seed=0):
    """Pre-activations `[draw, layer, input, unit]` of two inputs, and their weights' product with a cotangent.

    The second result is the squared gradient by every layer's pre-activations at the first input, `[draw, layer]`.
    """
    value, slope = ACTIVATIONS[activation]
    random = np.random.default_rng(seed)
    signals, gradients = [], []
    for _ in range(draws):
        mix = np.array([[1, 0], [correlation, (1 - correlation**2) ** 0.5]])
        start = random.standard_normal((2, WIDTH))
        start -= start.mean(1, keepdims=True)
        start[1] -= start[0] * (start[0] @ start[1]) / (start[0] @ start[0])
        start /= np.sqrt((start**2).mean(1, keepdims=True))  # variance and correlation exactly as asked
        u, weights = [variance**0.5 * mix @ start], []
        for _ in range(layers):
            weights.append(random.standard_normal((WIDTH, WIDTH), np.float32) * np.float32(weight_std / WIDTH**0.5))
            u.append(value(u[-1]) @ weights[-1] + bias_std * random.standard_normal(WIDTH))
        gradient = [random.standard_normal(WIDTH)]
        for w, before in zip(weights[::-1], u[-2::-1], strict=True):
            gradient.append(slope(before[0]) * (w @ gradient[-1]))
        signals.append(u)
        gradients.append(np.square(gradient[::-1]).sum(1))
    return np.array(signals), np.array(gradients)


def measured_variance(signals):
    return (signals[:, :, 0] ** 2).mean(-1)


def measured_correlation(signals):
    product = (signals[:, :, 0] * signals[:, :, 1]).mean(-1)
    return product / np.sqrt((signals**2).mean(-1).prod(-1))


def standard_error(samples):
    return samples.std(0, ddof=1) / len(samples) ** 0.5


CASES = [("tanh", 1.5, 0.3), ("tanh", 0.9, 0.2), ("gelu", 1.2, 0.5), ("silu", 1.3, 0.5), ("relu", 1.2, 0.5)]


@pytest.mark.parametrize(("activation", "weight_std", "bias_std"), [*CASES[:1], *(slow(*case) for case in CASES[1:])])
def test_deep_nets_come_to_the_fixed_points(activation, weight_std, bias_std):
    """Layers 14 to 20 of nets that start at twice q*; 6 standard errors, as 4 draws' is itself uncertain by 40 %.

    Another 1 % for the finite width: fluctuations of order 1/√700 enter the mean squared.
    """
    settings = (activation, weight_std, bias_std)
    signals, gradients = propagate(*settings, 20, variance=2 * fixed_variance(*settings))
    late = measured_variance(signals)[:, 14:].mean(1)
    star = fixed_variance(*settings)
    assert abs(late.mean() - star) < 6 * standard_error(late) + 0.01 * star
    correlations = measured_correlation(signals)[:, 14:].mean(1)
    following = 0.5
    for _ in range(17):
        following = correlation_map(following, *settings)
    assert abs(correlations.mean() - following) < 6 * standard_error(correlations) + 0.01
    chi = (gradients[:, 8] / gradients[:, 20]) ** (1 / 12)
    assert abs(chi.mean() - chi_1(*settings)) < 6 * standard_error(chi) + 0.01


@pytest.mark.parametrize(("activation", "weight_std", "bias_std"), CASES)
def test_fixed_points_are_fixed_and_slopes_are_slopes(activation, weight_std, bias_std):
    settings = (activation, weight_std, bias_std)
    q, c = fixed_variance(*settings), fixed_correlation(*settings)
    assert float(variance_map(q, *settings)) == pytest.approx(q, rel=1e-12)
    assert correlation_map(c, *settings) == pytest.approx(c, rel=1e-10)
    # Differences of second order, one-sided at c = 1.
    step = 1e-4
    if c < 1:
        slope = (correlation_map(c + step, *settings) - correlation_map(c - step, *settings)) / (2 * step)
        assert np.exp(-1 / xi_c(*settings)) == pytest.approx(slope, rel=1e-6)
    else:
        assert xi_c(*settings) == pytest.approx(xi_gradient(*settings), rel=1e-12)
        # The next term of the ReLU's map is of order √(1 - c).
        slope = (1 - correlation_map(1 - 1e-8, *settings)) / 1e-8
        assert chi_1(*settings) == pytest.approx(slope, rel=1e-3)
    slope = float(variance_map(q * (1 + step), *settings) - variance_map(q * (1 - step), *settings)) / (2 * step * q)
    assert np.exp(-1 / xi_q(*settings)) == pytest.approx(slope, rel=1e-6)
    assert xi_gradient(*settings) == pytest.approx(-1 / np.log(chi_1(*settings)), rel=1e-12)
    assert trainable_depth(*settings) == 6 * xi_c(*settings)


@pytest.mark.parametrize(("weight_std", "bias_std"), [(1.5, 0.3), (0.9, 0.2)])
def test_correlations_decay_in_xi_c(weight_std, bias_std):
    """Iterating the map of c, from c* + 10^-3 on the side below, takes ξ_c layers for a factor e."""
    settings = ("tanh", weight_std, bias_std)
    star = fixed_correlation(*settings)
    c, layers = star - 1e-3, 8
    for _ in range(layers):
        c = correlation_map(c, *settings)
    depth = -layers / np.log((star - c) / 1e-3)
    assert depth == pytest.approx(xi_c(*settings), rel=0.01)  # the map's curvature times 10^-3, over its slope


def test_chaotic_tanh_nets_forget_correlations_in_xi_c():
    """Two inputs' correlation in wide nets; its own fluctuation is 1/√width a layer, so start high and stay short."""
    settings = ("tanh", 2.5**0.5, 0.0)
    assert fixed_correlation(*settings) == 0
    signals, _ = propagate(*settings, 16, variance=fixed_variance(*settings), correlation=0.3, draws=8)
    measured = measured_correlation(signals)
    expected = [0.3]
    for _ in range(16):
        expected.append(correlation_map(expected[-1], *settings))
    assert (np.abs(measured.mean(0) - expected)[1:] < 5 * standard_error(measured)[1:] + 2 / WIDTH).all()
    # Late, the decay of the map is the exponential.
    assert expected[16] / expected[12] == pytest.approx(np.exp(-4 / xi_c(*settings)), rel=0.02)
    assert correlation_factor(*settings) < 1 < chi_1(*settings)


@pytest.mark.parametrize(("activation", "weight_std"), [("tanh", 1.3), ("gelu", 1.6), ("relu", 1.0)])
def test_finite_depth_profile(activation, weight_std):
    """From q_0 = 4, far from where the net goes, so that a power of χ₁ is off by much."""
    settings = (activation, weight_std, 0.1)
    signals, gradients = propagate(*settings, 8, variance=4.0, draws=6)
    q = measured_variance(signals)
    trajectory = variances(8, 4.0, *settings)
    assert (np.abs(q.mean(0) - trajectory) < 5 * standard_error(q) + 0.01 * trajectory).all()
    ratios = gradients / gradients[:, -1:]
    profile = gradient_growth(8, 4.0, *settings)
    # Six draws' standard error is itself uncertain by a third: 6 of them.
    assert (np.abs(ratios.mean(0) - profile) < 6 * standard_error(ratios) + 0.015 * profile).all()
    if activation == "tanh":
        assert abs(chi_1(*settings) ** 8 / profile[0] - 1) > 0.2


# Limits


def test_relu_phases():
    assert fixed_variance("relu", 1.0, 0.3) == pytest.approx(0.09 / 0.5)
    assert fixed_variance("relu", 2**0.5, first=3.0) == 3.0
    assert fixed_variance("relu", 1.0) == 0
    assert fixed_variance("relu", 2**0.5, 0.1) == fixed_variance("relu", 1.5) == np.inf
    assert xi_c("relu", 2**0.5) == xi_q("relu", 2**0.5) == xi_gradient("relu", 2**0.5) == np.inf
    assert xi_c("relu", 1.0) == pytest.approx(1 / np.log(2))
    assert chi_1("relu", 1.7, 0.2) == pytest.approx(1.7**2 / 2)
    assert xi_gradient("relu", 1.7) < 0
    assert xi_c("relu", 1.7) == np.inf


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("weight_std", [0.0, 1.0, 2**0.5, 10.0])
@pytest.mark.parametrize("bias_std", [0.0, 1.0])
def test_nothing_is_undefined(name, weight_std, bias_std):
    for f in (fixed_variance, chi_1, fixed_correlation, xi_q, xi_c, xi_gradient):
        assert not np.isnan(f(name, weight_std, bias_std))
    assert not np.isnan(variances(400, 1.0, name, weight_std, bias_std)).any()


@pytest.mark.parametrize("function", [fixed_variance, partial(variances, 3)])
def test_first_variance_must_be_positive(function):
    first = {"first": -1.0}
    with pytest.raises(ValueError, match=r"first must be .*, got -1"):
        function(activation="tanh", weight_std=1.0, **first)


def test_phase_boundary():
    assert critical_weight_std("tanh") == pytest.approx(1, rel=1e-12)
    assert critical_weight_std("linear") == pytest.approx(1, rel=1e-12)
    assert critical_weight_std("relu", 0.2) == critical_weight_std("relu") == pytest.approx(2**0.5, rel=1e-12)
    assert critical_weight_std("gelu") == pytest.approx(2, rel=1e-9)
    last = 1.0
    for bias_std in (1e-3, 0.05, 0.3, 2.0):
        critical = critical_weight_std("tanh", bias_std)
        assert chi_1("tanh", critical, bias_std) == pytest.approx(1, abs=1e-8)
        assert chi_1("tanh", critical * 1.01, bias_std) > 1 > chi_1("tanh", critical * 0.99, bias_std)
        assert critical > last  # more bias, larger q, flatter slopes
        last = critical


# The Jacobian's spectrum


@pytest.mark.parametrize("depth", [1, 4])
def test_jacobian_moments_known_exactly(depth):
    """Linear nets' Fuss-Catalan law and dynamical isometry (Saxe et al. 2014); ReLU's from Pennington et al. 2018."""
    second = fuss_catalan_moment(2, depth)
    assert eigenvalue_variance(depth, "linear", 1.0, "normal") == pytest.approx(second - 1, rel=1e-12)
    assert eigenvalue_variance(depth, "linear", 1.0, "orthogonal") == pytest.approx(0, abs=1e-12)
    assert eigenvalue_variance(depth, "relu", 2**0.5, "normal") == pytest.approx(2 * depth, rel=1e-12)
    assert eigenvalue_variance(depth, "relu", 2**0.5, "orthogonal") == pytest.approx(depth, rel=1e-12)
    assert mean_eigenvalue(depth, "relu", 1.0) == pytest.approx(2.0**-depth, rel=1e-12)


def test_weights_of_an_unknown_spectrum():
    with pytest.raises(ValueError, match="init must be one of normal, orthogonal, got 'uniform'"):
        eigenvalue_variance(2, "relu", 1.0, "uniform")


@pytest.mark.parametrize("name", ["tanh", "relu"])
@pytest.mark.parametrize("init", ["normal", "orthogonal"])
def test_jacobian_moments(name, init):
    """Mean and variance of λ over six products of layers at q*, another 2 L/n for the width."""
    depth, weight_std, bias_std, width = 4, 1.2, 0.3, 200
    settings = (name, weight_std, bias_std)
    q, slope = fixed_variance(*settings), ACTIVATIONS[name].derivative
    random = np.random.default_rng(1)
    means, spreads = [], []
    for _ in range(6):
        product = np.eye(width)
        for _ in range(depth):
            w = random.standard_normal((width, width)) / width**0.5
            w = np.linalg.qr(w)[0] if init == "orthogonal" else w
            product = weight_std * (w * slope(q**0.5 * random.standard_normal(width))) @ product
        gram = product @ product.T
        means.append(np.trace(gram) / width)
        spreads.append((gram**2).sum() / width - means[-1] ** 2)
    for samples, expected in (
        (np.array(means), mean_eigenvalue(depth, *settings)),
        (np.array(spreads), eigenvalue_variance(depth, name, weight_std, init, bias_std)),
    ):
        assert abs(samples.mean() - expected) < 5 * standard_error(samples) + 2 * depth / width * expected

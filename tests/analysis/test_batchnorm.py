"""Batch norm's growth of gradients against backpropagation written out in NumPy."""

import itertools

import numpy as np
import pytest

from analysis.activations import ACTIVATIONS
from analysis.batchnorm import plain_growth, plain_growth_at, residual_growth, residual_variance
from tests.tiers import slow_unless

WIDTH, DRAWS = 400, 6


def normalize(u):
    """Batch norm over the rows, and the standard deviations."""
    centred = u - u.mean(0)
    deviation = np.sqrt((centred**2).mean(0))
    return centred / deviation, deviation


def backward(gradient, normalized, deviation):
    """The gradient by batch norm's input, from the one by its output."""
    kept = gradient - gradient.mean(0) - normalized * (normalized * gradient).mean(0)
    return kept / deviation


def measured(activation, batch, layers, *, residual=False, weight_std=1.3):
    """Squared gradients `[draw, layer]` of plain Linear-BN-φ layers or blocks h + W φ(BN(h)), and variances."""
    value, slope = ACTIVATIONS[activation]
    random = np.random.default_rng(batch)
    squared, variances = [], []
    for _ in range(DRAWS):
        h, passed, found = random.standard_normal((batch, WIDTH)), [], []
        for _ in range(layers):
            w = random.standard_normal((WIDTH, WIDTH)) * weight_std / WIDTH**0.5
            found.append(h.var(0).mean())
            normalized, deviation = normalize(h if residual else h @ w)
            h = h + value(normalized) @ w if residual else value(normalized)
            passed.append((w, normalized, deviation))
        gradient = random.standard_normal((batch, WIDTH))
        gradients = [(gradient**2).sum()]
        for w, normalized, deviation in passed[::-1]:
            if residual:
                gradient = gradient + backward(slope(normalized) * (gradient @ w.T), normalized, deviation)
            else:
                gradient = backward(slope(normalized) * gradient, normalized, deviation) @ w.T
            gradients.append((gradient**2).sum())
        squared.append(gradients[::-1])
        variances.append(found)
    return np.array(squared), np.array(variances)


def test_known_cases():
    assert plain_growth("relu") == pytest.approx(np.pi / (np.pi - 1), rel=1e-12)
    assert plain_growth("linear") == pytest.approx(1, rel=1e-12)
    for batch in (4, 5, 16, 256, 10_000):
        assert plain_growth_at("linear", batch) == pytest.approx((batch - 2) / (batch - 3), rel=1e-8)
    with pytest.raises(ValueError, match="batch must be at least 4, got 3"):
        plain_growth_at("relu", 3)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_large_batches_come_to_the_limit(activation):
    """Corrections in 1/B: a tenfold batch has a tenth of them."""
    limit = plain_growth(activation)
    near, far = (plain_growth_at(activation, batch) - limit for batch in (1000, 10_000))
    assert near / far == pytest.approx(10, rel=0.01)
    assert 0 < near < 0.01


@pytest.mark.parametrize(
    ("batch", "activation"),
    slow_unless(
        lambda *case: case in {(12, "relu"), (128, "tanh")}, itertools.product([12, 128], ["relu", "tanh", "gelu"])
    ),
)
def test_plain_growth_is_backpropagations(activation, batch):
    squared, _ = measured(activation, batch, 12)
    # Past the first layers, whose batch is not yet as depth makes it, and the last, whose gradient is not.
    rates = (squared[:, 3] / squared[:, 9]) ** (1 / 6)
    error = rates.std(ddof=1) / DRAWS**0.5
    expected = plain_growth_at(activation, batch)
    # Six draws' standard error is uncertain by a third: 5 of them, and 1 % for the finite width.
    assert abs(rates.mean() - expected) < 5 * error + 0.01 * expected


@pytest.mark.parametrize("activation", ["relu", "tanh"])
def test_residual_growth_is_backpropagations(activation):
    layers, batch, weight_std = 8, 256, 1.3
    squared, found = measured(activation, batch, layers, residual=True, weight_std=weight_std)
    expected = residual_variance(layers - 1, weight_std, activation=activation)
    error = found.std(0, ddof=1) / DRAWS**0.5
    assert (abs(found.mean(0) - expected) < 5 * error + 0.01 * expected).all()
    steps = squared[:, :-1] / squared[:, 1:]
    error = steps.std(0, ddof=1) / DRAWS**0.5
    # 1 % for the finite batch and width.
    assert (abs(steps.mean(0) - residual_growth(layers, weight_std, activation=activation)) < 5 * error + 0.01).all()

"""The Fuss-Catalan law against its moments, its own integrals and products of random matrices."""

import numpy as np
import pytest

from analysis.fuss_catalan import (
    fuss_catalan_density,
    fuss_catalan_distribution,
    fuss_catalan_largest,
    fuss_catalan_moment,
    fuss_catalan_quantile,
)

DEPTHS = [1, 2, 3, 8, 64]


def test_one_matrix_is_marchenko_pasturs():
    x = np.linspace(0.01, 3.99, 50)
    np.testing.assert_allclose(fuss_catalan_density(x, 1), np.sqrt((4 - x) / x) / (2 * np.pi), rtol=1e-12)


@pytest.mark.parametrize("depth", [1, 2, 3, 8])
def test_density_has_the_moments_and_integrates_to_one(depth):
    largest = fuss_catalan_largest(depth)
    # λ = largest s^(L + 1) takes away the singularity at 0, and s = sin² t the square root at the other end.
    points, weights = np.polynomial.legendre.leggauss(200)
    t, weights = (points + 1) * np.pi / 4, weights * np.pi / 4
    eigenvalues = largest * np.sin(t) ** (2 * (depth + 1))
    measure = weights * 2 * (depth + 1) * eigenvalues / np.tan(t) * fuss_catalan_density(eigenvalues, depth)
    for k in range(4):
        assert (measure * eigenvalues**k).sum() == pytest.approx(fuss_catalan_moment(k, depth), rel=1e-9)


@pytest.mark.parametrize("depth", DEPTHS)
def test_density_is_the_distributions_slope(depth):
    x = np.geomspace(1e-3, 0.99, 30) * fuss_catalan_largest(depth)
    step = 1e-4 * x * (1 - x / fuss_catalan_largest(depth))
    rise = fuss_catalan_distribution(x + step, depth) - fuss_catalan_distribution(x - step, depth)
    np.testing.assert_allclose(rise / (2 * step), fuss_catalan_density(x, depth), rtol=1e-6)


@pytest.mark.parametrize("depth", DEPTHS)
def test_quantiles_invert_the_distribution(depth):
    p = np.array([0.0, 0.05, 0.3, 0.5, 0.9, 0.999, 1.0])
    eigenvalues = fuss_catalan_quantile(p, depth)
    np.testing.assert_allclose(fuss_catalan_distribution(eigenvalues, depth), p, atol=1e-12)
    assert (np.diff(eigenvalues) > 0).all()
    assert eigenvalues[-1] == fuss_catalan_largest(depth)


def test_outside_of_the_support():
    x = np.array([-1.0, 0.0, 6.75, 7.0])
    np.testing.assert_array_equal(fuss_catalan_density(x, 2), [0, np.inf, 0, 0])
    np.testing.assert_array_equal(fuss_catalan_distribution(x, 2), [0, 0, 1, 1])


def test_errors_name_what_was_given():
    with pytest.raises(ValueError, match="depth must be at least 1, got 0"):
        fuss_catalan_density(np.ones(1), 0)
    with pytest.raises(ValueError, match=r"probabilities must be in \[0, 1\], got \[1.5\]"):
        fuss_catalan_quantile(np.array([1.5]), 2)


@pytest.mark.parametrize("depth", [1, 2, 4])
def test_products_of_random_matrices(depth):
    random, width = np.random.default_rng(depth), 500
    product = np.eye(width)
    for _ in range(depth):
        product = random.standard_normal((width, width)) @ product / width**0.5
    eigenvalues = np.sort(np.linalg.svd(product, compute_uv=False) ** 2)
    found = (np.arange(width) + 0.5) / width
    # Eigenvalues repel each other: counts fluctuate by √(log n), not √n; a few of 500, or 1 %.
    np.testing.assert_allclose(fuss_catalan_distribution(eigenvalues, depth), found, atol=0.01)

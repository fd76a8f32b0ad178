"""Against NumPy's dense eigenvalues; statistical errors against their closed form and the spread over keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kernels.linalg import eigh
from probes.lanczos import eigenvalue_density, eigenvalue_moment, extreme_eigenvalues
from tests.tiers import slow


def symmetric(values, key=0):
    """A matrix of given eigenvalues and random eigenvectors."""
    vectors = np.linalg.qr(np.random.default_rng(key).normal(size=(len(values),) * 2))[0]
    return jnp.asarray(vectors * values @ vectors.T, float)


def like(matrix):
    return jax.ShapeDtypeStruct(matrix.shape[1:], matrix.dtype)


@partial(jax.jit, static_argnums=(1, 2))
def extremes(matrix, count, steps, key=0):
    return extreme_eigenvalues(lambda v: matrix @ v, like(matrix), count, steps, jax.random.key(key))


@partial(jax.jit, static_argnums=(1, 2))
def density(matrix, vectors, steps, key):
    return eigenvalue_density(lambda v: matrix @ v, like(matrix), vectors, steps, key)


# Most of a Hessian's eigenvalues are about 0, some positive, few large.
HESSIAN = np.concatenate([[50, 20, 10], np.linspace(-1, 1, 90), [-4, -7]])


def test_both_ends_of_an_indefinite_map(double):
    matrix = symmetric(HESSIAN)
    found = extremes(matrix, 3, 40)
    np.testing.assert_allclose(found.largest, [50, 20, 10], rtol=1e-9)
    np.testing.assert_allclose(found.smallest[:2], [-7, -4], rtol=1e-9)
    assert max(found.largest_errors.max(), found.smallest_errors[:2].max()) < 1e-5


@pytest.mark.parametrize("steps", [slow(3), 7])
def test_every_ritz_value_is_within_its_error_of_an_eigenvalue(double, steps):
    matrix = symmetric(HESSIAN)
    for key in range(8):
        found = extremes(matrix, steps, steps, key)
        for values, errors in (found[:2], found[2:]):
            distance = np.abs(np.subtract.outer(values, HESSIAN)).min(1)
            assert (distance <= errors + 1e-12).all()
            assert errors.max() > 1e-3
        assert found.largest[0] <= 50 + 1e-12
        assert found.smallest[0] >= -7 - 1e-12


def test_all_steps_give_all_values_and_then_nan(double):
    values = np.sort(np.random.default_rng(1).normal(size=20))[::-1]
    found = extremes(symmetric(values), 22, 30)
    np.testing.assert_allclose(found.largest[:20], values, rtol=1e-10, atol=1e-13)
    np.testing.assert_allclose(found.smallest[:20], values[::-1], rtol=1e-10, atol=1e-13)
    np.testing.assert_array_equal(found.largest_errors[:20], 0)
    assert np.isnan([end[20:] for end in found]).all()


@pytest.mark.parametrize("bits", [32, slow(64)])
@pytest.mark.parametrize("values", [[3.0] * 32, [-2.0] * 5 + [0] * 20 + [1] * 7], ids=["identity", "repeated"])
def test_recurrences_that_end_early(bits, values):
    with jax.enable_x64(bits == 64):
        matrix = jnp.diag(jnp.asarray(values))
        found = extremes(matrix, 5, 20)
        rounding = 200 * np.finfo(matrix.dtype).eps * np.abs(values).max()
        np.testing.assert_allclose(found.largest, np.sort(values)[::-1][:5], atol=rounding)
        np.testing.assert_allclose(found.smallest, np.sort(values)[:5], atol=rounding)


def test_zero_and_what_is_not_finite():
    found = extremes(jnp.zeros((6, 6)), 2, 4)
    np.testing.assert_array_equal(np.stack(found), 0)
    assert np.isnan(np.stack(extremes(jnp.eye(6).at[2, 2].set(np.inf), 2, 4))).all()
    assert np.isnan(eigenvalue_moment(density(jnp.eye(6).at[2, 2].set(np.nan), 3, 2, jax.random.key(0)), 1)).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_out_of_range(scale):
    """Single precision, where the square of such a number is 0 or infinite."""
    found = extremes(scale * symmetric(HESSIAN), 2, 40)
    np.testing.assert_allclose(np.float64(found.largest) / scale, [50, 20], rtol=1e-5)
    np.testing.assert_allclose(np.float64(found.smallest) / scale, [-7, -4], rtol=1e-5)


def test_arrays_of_any_shape(double):
    matrix = symmetric(HESSIAN)
    apply = lambda v: (matrix @ v.ravel()).reshape(5, 19)  # noqa: E731
    found = jax.jit(lambda key: extreme_eigenvalues(apply, jnp.zeros((5, 19)), 3, 40, key))(jax.random.key(0))
    np.testing.assert_allclose(found.largest, extremes(matrix, 3, 40).largest, rtol=1e-10)


@pytest.mark.slow
def test_the_standard_error_is_the_spread(double):
    """Over keys; both the error's size and the mean are right."""
    matrix, vectors = symmetric(HESSIAN), 12
    n = len(HESSIAN)
    keys = jax.random.split(jax.random.key(5), 400)
    for power in (1, 2):
        one = jax.jit(
            lambda keys, power=power: lax.map(
                lambda key: eigenvalue_moment(density(matrix, vectors, 2, key), power), keys
            )
        )
        means, errors = one(keys)
        powers = HESSIAN**power
        expected = np.sqrt(2 / (n + 2) * powers.var() / vectors)
        # A variance from 400 means is known to sqrt(2 / 400), its root to half of that, 3.5%; few outliers widen it.
        np.testing.assert_allclose(means.std(), expected, rtol=0.15)
        np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), expected, rtol=0.1)
        np.testing.assert_allclose(means.mean(), powers.mean(), atol=4 * expected / np.sqrt(400))


def test_the_rules_are_exact_for_their_own_vector(double):
    """Two steps are exact to degree 3: more change no moment."""
    matrix = symmetric(HESSIAN)
    few, many = (density(matrix, 6, steps, jax.random.key(0)) for steps in (2, 12))
    np.testing.assert_allclose(many.weights.sum(1), 1, rtol=1e-12)
    for power in (1, 2, 3):
        np.testing.assert_allclose(eigenvalue_moment(few, power), eigenvalue_moment(many, power), rtol=1e-9)
    assert abs(eigenvalue_moment(few, 4)[0] / eigenvalue_moment(many, 4)[0] - 1) > 1e-3


def test_the_density_is_the_eigenvalues_own(double):
    """How much of it is below a level, to four deviations of the sampled measure and one node's weight."""
    found = density(symmetric(HESSIAN), 40, 30, jax.random.key(0))
    for level in (-2.0, 0.03, 0.5, 5.0):
        share = (level > HESSIAN).mean()
        measured = (found.weights * (found.nodes < level)).sum(1).mean()
        assert abs(measured - share) < 4 * np.sqrt(2 / 97 * share * (1 - share) / 40) + 0.02


@pytest.mark.slow
def test_keys_and_vmap(double):
    """The same key gives the same numbers, another others; mapped networks give a loop's."""
    matrices = jnp.stack([symmetric(HESSIAN, key) for key in range(3)])
    both = lambda matrix, key: (extremes(matrix, 3, 9, key), density(matrix, 2, 5, jax.random.key(key)))  # noqa: E731
    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *(both(matrices[i], i) for i in range(3)))
    mapped = jax.jit(jax.vmap(both))(matrices, jnp.arange(3))
    jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-8, atol=1e-10), mapped, loop)
    jax.tree.map(np.testing.assert_array_equal, both(matrices[0], 1), both(matrices[0], 1))
    assert (both(matrices[0], 1)[1].nodes != both(matrices[0], 2)[1].nodes).all()


def test_eigh_of_many_matrices(double):
    matrices = jnp.stack([symmetric(HESSIAN[:9], key) for key in range(5)])
    values, vectors = jax.jit(jax.vmap(eigh))(matrices)
    np.testing.assert_allclose(values, np.linalg.eigvalsh(matrices), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(vectors * values[:, None] @ vectors.swapaxes(1, 2), matrices, atol=1e-11)


def test_refuses():
    matrix = jnp.eye(4)
    with pytest.raises(ValueError, match="extreme_eigenvalues: count must be between 1 and the 2 steps, got 3"):
        extremes(matrix, 3, 2)
    with pytest.raises(ValueError, match="eigenvalue_density: vectors and steps must be at least 1, got 0 and 2"):
        density(matrix, 0, 2, jax.random.key(0))

"""Against NumPy's dense SVD; statistical errors against their closed form and against the spread over keys."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax

from nets import MLP
from probes import jacobian, jacobian_spectrum, matrixfree
from probes.matrixfree import (
    LinearMap,
    derivative,
    spectral_density,
    spectral_moment,
    spectral_quantile,
    top_singular_values,
    with_transpose,
)
from probes.network import training_copy
from tests.tiers import slow


def linear(matrix):
    return with_transpose(lambda v: matrix @ v, jax.ShapeDtypeStruct(matrix.shape[1:], matrix.dtype))


@partial(jax.jit, static_argnums=(1, 2))
def top(matrix, count, steps, key=0):
    return top_singular_values(linear(matrix), count, steps, jax.random.key(key))


@partial(jax.jit, static_argnums=(1, 2))
def density(matrix, probes, steps, key):
    return spectral_density(linear(matrix), probes, steps, key)


def dense(matrix):
    return np.linalg.svd(np.asarray(matrix, np.float64), compute_uv=False)


def gaussian(*shape, key=0):
    return jax.random.normal(jax.random.key(key), shape, float) / np.sqrt(shape[-1])


def with_values(values, key=0):
    """A square matrix of given singular values and random singular vectors, in single precision where that is on."""
    rng = np.random.default_rng(key)
    left, right = (np.linalg.qr(rng.normal(size=(len(values),) * 2))[0] for _ in range(2))
    return jnp.asarray(left * values @ right, float)


def check(found, errors, expected, rtol=1e-4):
    """The accuracy asked for; and no value is farther from the true one than stated, to a thousand roundings."""
    np.testing.assert_allclose(found, expected, rtol=rtol)
    assert (np.abs(found - expected) <= errors + 1e3 * np.finfo(found.dtype).eps * expected[0]).all()


@pytest.mark.parametrize("shape", [(150, 90), slow((90, 150)), slow((100, 100))])
def test_top_of_random_matrices(double, shape):
    matrix = gaussian(*shape)
    found, errors = top(matrix, 20, 75)
    check(found, errors, dense(matrix)[:20])
    assert 1e-12 < errors.max() < 1e-2  # converged, yet not exhausted


@pytest.mark.parametrize("steps", [2, slow(5), 12])
def test_every_ritz_value_is_within_its_error_of_a_singular_value(double, steps):
    """Far from converged, where the error is all there is to say."""
    matrix = with_values(np.repeat([10.0, 3, 1, 0.1], 10) + np.linspace(0, 0.01, 40))
    for key in range(10):
        found, errors = top(matrix, steps, steps, key)
        distance = np.abs(np.subtract.outer(found, dense(matrix))).min(1)
        assert (distance <= errors + 1e-13).all()
        assert errors.max() > 1e-3


@pytest.mark.parametrize("shape", [(40, 25), slow((25, 40))])
def test_all_steps_give_all_values_and_then_nan(double, shape):
    matrix = gaussian(*shape)
    found, errors = top(matrix, 30, 50)
    np.testing.assert_allclose(found[:25], dense(matrix), rtol=1e-11)
    np.testing.assert_array_equal(errors[:25], 0)
    assert np.isnan(found[25:]).all()
    assert np.isnan(errors[25:]).all()


@pytest.fixture
def network(double):
    return MLP(5, 3, depth=4, width=16, net="residual", norm="batch", rngs=nnx.Rngs(1))


def blocks_at(network, x):
    copy = training_copy(network)
    h = copy.stem(x)
    graphdef, state = nnx.split(copy.blocks)
    return lambda h: nnx.merge(graphdef, nnx.as_pure(state))(h), h


@pytest.mark.slow
def test_a_networks_coupled_jacobian(network):
    x = jax.random.normal(jax.random.key(2), (8, 5), float)
    blocks, h = blocks_at(network, x)
    found, errors = jax.jit(lambda h: top_singular_values(derivative(blocks, h), 20, 80, jax.random.key(0)))(h)
    check(found, errors, dense(jacobian(network, x, "coupled"))[:20])


@pytest.mark.slow
def test_a_networks_samples(double):
    network = MLP(5, 3, depth=4, width=24, net="plain", norm="none", rngs=nnx.Rngs(1))
    x = jax.random.normal(jax.random.key(2), (6, 5), float)
    blocks, h = blocks_at(network, x)

    def of_sample(h):
        return top_singular_values(derivative(lambda h: blocks(h[None])[0], h), 20, 24, jax.random.key(0))[0]

    expected = np.asarray(jacobian_spectrum(network, x))[:, :20]
    # ReLUs cut the rank; below it values are zero to rounding.
    np.testing.assert_allclose(jax.jit(jax.vmap(of_sample))(h), expected, rtol=1e-10, atol=1e-13)


def test_the_pull_given_is_the_one_used(double):
    """JAX would transpose this push to zero."""
    matrix = gaussian(30, 20)
    given = LinearMap(
        lambda v: lax.stop_gradient(matrix @ v), lambda u: matrix.T @ u, jax.ShapeDtypeStruct((20,), jnp.float64)
    )
    np.testing.assert_allclose(top_singular_values(given, 5, 20, jax.random.key(0))[0], dense(matrix)[:5], rtol=1e-11)


def test_arrays_of_any_shape(double):
    """The derivative of a convolution's tanh: [6, 5, 3] to [3, 3, 4]."""
    kernel = gaussian(3, 3, 3, 4)

    def layer(h):
        return jnp.tanh(lax.conv(h[None].transpose(0, 3, 1, 2), kernel.transpose(3, 2, 0, 1), (1, 1), "VALID"))[0].T

    h = gaussian(6, 5, 3, key=1)
    expected = dense(jax.jacobian(layer)(h).reshape(-1, h.size))

    @jax.jit
    def both(h):
        tangent = derivative(layer, h)
        rules = spectral_density(tangent, 64, 10, jax.random.key(1))
        return top_singular_values(tangent, 20, 34, jax.random.key(0)), spectral_moment(rules, 1)

    (found, errors), (mean, error) = both(h)
    check(found, errors, expected[:20])
    assert abs(mean - (expected**2).mean()) < 4 * error


def test_repeated_values_are_all_found(double):
    """Five copies each of 2 and 1: a start vector holds one direction of either."""
    values = np.repeat([2, 1, 0.1], [5, 5, 90])
    found, errors = top(with_values(values), 12, 30)
    np.testing.assert_allclose(found, values[:12], rtol=1e-10)
    assert errors.max() < 1e-10


@pytest.mark.parametrize("bits", [32, slow(64)])
@pytest.mark.parametrize("matrix", ["identity", "permutation", "ones", "diagonal"])
def test_recurrences_that_end_early(bits, matrix):
    """Exact products, after which nothing is left but what is added to keep it going."""
    with jax.enable_x64(bits == 64):
        values = {
            "identity": np.eye(32),
            "permutation": 3 * np.eye(32)[::-1],
            "ones": np.ones((40, 32)),
            "diagonal": np.diag([4.0, 2, 1] + [0] * 30),
        }[matrix]
        found, errors = top(jnp.asarray(values, float), 8, 20)
        rounding = 200 * np.finfo(found.dtype).eps * dense(values)[0]
        np.testing.assert_allclose(found, dense(values)[:8], atol=rounding)
        assert errors.max() < rounding


def test_rank(double):
    matrix = gaussian(50, 3) @ gaussian(3, 40, key=1)
    found, errors = top(matrix, 8, 20)
    np.testing.assert_allclose(found, dense(matrix)[:8], rtol=1e-10, atol=1e-13)
    assert errors.max() < 1e-13


def test_the_zero_map():
    found, errors = top(jnp.zeros((6, 7)), 7, 7)
    np.testing.assert_array_equal(found, [0] * 6 + [np.nan])
    np.testing.assert_array_equal(errors, [0] * 6 + [np.nan])
    rules = density(jnp.zeros((6, 7)), 3, 4, jax.random.key(0))
    assert spectral_moment(rules, 1) == (0, 0)


@pytest.mark.parametrize("entry", [np.nan, slow(np.inf)])
def test_what_is_not_finite_is_nan(entry):
    matrix = gaussian(8, 6).at[3, 2].set(entry)
    found, errors = top(matrix, 5, 5)
    assert np.isnan(found).all()
    assert np.isnan(errors).all()
    rules = density(matrix, 3, 4, jax.random.key(0))
    assert np.isnan([*spectral_moment(rules, 1), *spectral_quantile(rules, 0.5)]).all()


@pytest.mark.parametrize("scale", [1e-30, 1e30])
def test_squares_out_of_range(scale):
    """Single precision, where the square of such a number is 0 or infinite."""
    matrix = gaussian(40, 30)
    found, _ = top(scale * matrix, 30, 30)
    np.testing.assert_allclose(np.float64(found) / scale, dense(matrix), rtol=1e-4)


def test_no_ghosts(monkeypatch):
    """Eight decades in single precision; without orthogonality, values once found come again, 1 eight times."""
    values = np.logspace(0, -8, 100)
    matrix = with_values(values)
    found, errors = top(matrix, 40, 60)
    np.testing.assert_allclose(found, values[:40], atol=3e-6)
    assert errors.max() < 1e-6
    monkeypatch.setattr(matrixfree, "bidiag", partial(matrixfree.bidiag, reortho="none"))
    haunted, _ = jax.jit(lambda matrix: top_singular_values(linear(matrix), 40, 60, jax.random.key(0)))(matrix)
    assert (haunted > 0.99).sum() > 3


def test_moments_are_within_their_errors(double):
    matrix = gaussian(60, 80)
    squares = dense(matrix) ** 2
    for key in range(8):
        rules = density(matrix, 40, 5, jax.random.key(key))
        np.testing.assert_allclose(rules.weights.sum(1), 1, rtol=1e-12)
        for power in (1, 2, 3):
            mean, error = spectral_moment(rules, power)
            # Four errors: chance leaves them in one of 3000 of 24 means, of Student's t of 39 degrees of freedom.
            assert abs(mean - (squares**power).mean()) < 4 * error
            assert error < 0.1 * mean


def test_the_rules_are_exact_for_their_own_probe(double):
    """Two steps are exact to degree 3: more change no moment."""
    matrix = gaussian(40, 30)
    few, many = (density(matrix, 10, steps, jax.random.key(0)) for steps in (2, 12))
    for power in (1, 2, 3):
        np.testing.assert_allclose(spectral_moment(few, power), spectral_moment(many, power), rtol=1e-10)
    assert abs(spectral_moment(few, 4)[0] / spectral_moment(many, 4)[0] - 1) > 1e-3


@pytest.mark.parametrize("power", [1, slow(2)])
def test_the_standard_error_is_the_spread(double, power):
    matrix = gaussian(30, 40)
    keys = jax.random.split(jax.random.key(5), 600)
    one = jax.jit(lambda keys: lax.map(lambda key: spectral_moment(density(matrix, 12, 3, key), power), keys))
    means, errors = one(keys)
    powers = dense(matrix) ** (2 * power)
    expected = np.sqrt(2 / 32 * powers.var() / 12)
    # A variance from 600 means is known to sqrt(2 / 600), its root to half of that, 3%.
    np.testing.assert_allclose(means.std(), expected, rtol=0.12)
    np.testing.assert_allclose(np.sqrt(np.mean(errors**2)), expected, rtol=0.06)
    np.testing.assert_allclose(means.mean(), powers.mean(), atol=4 * expected / np.sqrt(600))


def test_quantiles(double):
    """The interval, at levels four deviations of the sampled measure apart, holds the true quantile."""
    matrix = gaussian(200, 300)
    values = dense(matrix)
    rules = density(matrix, 20, 25, jax.random.key(0))
    for level in (0.1, 0.5, 0.9):
        deviation = 4 * np.sqrt(2 / 202 * level * (1 - level) / 20)
        lower, upper = spectral_quantile(rules, level - deviation)[0], spectral_quantile(rules, level + deviation)[2]
        low, middle, high = spectral_quantile(rules, level)
        expected = np.quantile(values, level)
        assert lower < expected < upper
        assert low < middle < high
        # Two of the rule's distances between nodes; Chebyshev's are at most pi / 50 of the range.
        assert high - low < 2 * np.pi / 50 * values[0]
        # Three deviations of the sampled measure, of a density of at least 0.5.
        np.testing.assert_allclose(middle, expected, atol=0.03)


@pytest.mark.slow
def test_the_quantiles_interval_is_that_of_the_probes(double):
    """All steps give the same start vectors' measure exactly."""
    matrix = gaussian(40, 60)
    few, all_ = (density(matrix, 3, steps, jax.random.key(0)) for steps in (6, 40))
    for level in np.linspace(0.02, 0.98, 25):
        low, _, high = spectral_quantile(few, level)
        assert low <= spectral_quantile(all_, level)[1] <= high


@pytest.mark.slow
def test_vmap_and_map_equal_a_loop(double):
    matrices, keys = gaussian(4, 12, 9), jax.random.split(jax.random.key(3), 4)

    @jax.jit
    def both(matrix, key):
        return top_singular_values(linear(matrix), 4, 6, key), spectral_density(linear(matrix), 3, 4, key)

    loop = jax.tree.map(lambda *leaves: np.stack(leaves), *(both(*each) for each in zip(matrices, keys, strict=True)))
    mapped = jax.jit(jax.vmap(both))(matrices, keys)
    in_turn = jax.jit(lambda *each: lax.map(lambda each: both(*each), each))(matrices, keys)
    for found in (mapped, in_turn):
        jax.tree.map(partial(np.testing.assert_allclose, rtol=1e-9, atol=1e-12), found, loop)


def test_single_precision_in_double_mode(double):
    matrix = gaussian(20, 12).astype(jnp.float32)
    found, errors = top(matrix, 5, 12)
    assert found.dtype == errors.dtype == jnp.float32
    np.testing.assert_allclose(found, dense(matrix)[:5], rtol=1e-5)


def test_refuses():
    matrix, key = gaussian(4, 3), jax.random.key(0)
    with pytest.raises(ValueError, match="count must be between 1 and the 2 steps, got 3"):
        top_singular_values(linear(matrix), 3, 2, key)
    with pytest.raises(ValueError, match="probes and steps must be at least 1, got 2 and 0"):
        spectral_density(linear(matrix), 2, 0, key)
    wrong = LinearMap(lambda v: matrix @ v, lambda u: u, jax.ShapeDtypeStruct((3,), jnp.float32))
    with pytest.raises(ValueError, match=r"pull must give push's inputs' shape \(3,\), got \(4,\)"):
        top_singular_values(wrong, 1, 2, key)

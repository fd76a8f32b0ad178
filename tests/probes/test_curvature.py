"""Against dense Hessians and Gauss-Newton matrices of all parameters, and finite differences of the gradient."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from nets import CNN, MLP
from probes.curvature import curvature_product, loss_curvature
from probes.parameters import logits_by_parameters
from tests.tiers import slow, slow_unless

LABELS = jnp.arange(8) % 3


def mlp(order="post", norm="batch"):
    return MLP(4, 3, 2, 5, net="residual", norm=norm, order=order, activation="tanh", bias_std=0.3, rngs=nnx.Rngs(0))


def batch(shape=(4,)):
    return jax.random.normal(jax.random.key(1), (8, *shape), float)


def by_parameters(network, x):
    """The logits as a function of the parameters, each put where it belongs by name."""
    parameters = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    flat, unravel = ravel_pytree(parameters)

    def logits(flat):
        copy = nnx.clone(network)
        nnx.update(copy, nnx.State(unravel(flat)))
        return copy(x)

    return logits, flat


def dense(network, x, matrix):
    logits, flat = by_parameters(network, x)
    if matrix == "hessian":
        loss = lambda flat: optax.softmax_cross_entropy_with_integer_labels(logits(flat), LABELS).mean()  # noqa: E731
        return np.asarray(jax.jit(jax.hessian(loss))(flat))
    y, J = (np.asarray(a) for a in jax.jit(lambda flat: (logits(flat), jax.jacrev(logits)(flat)))(flat))
    p = np.exp(y) / np.exp(y).sum(1, keepdims=True)
    return sum(j.T @ (np.diag(q) - np.outer(q, q)) @ j for j, q in zip(J, p, strict=True)) / len(y)


NETWORKS = {
    "post": lambda: (mlp("post"), batch()),
    "none": lambda: (mlp("post", "none"), batch()),
    "cnn": lambda: (CNN(1, width=2, out_features=3, layout="isotropic", rngs=nnx.Rngs(0)), batch((4, 4, 3))),
}


def curvature(network, x, matrix, key=0, **settings):
    def measure(x, key):
        return loss_curvature(network, x, LABELS, key, matrix=matrix, **settings)

    return jax.jit(measure)(x, jax.random.key(key))


@pytest.mark.parametrize(
    ("name", "matrix"),
    slow_unless(
        lambda *case: case in {("post", "hessian"), ("none", "gauss_newton")},
        itertools.product(NETWORKS, ["hessian", "gauss_newton"]),
    ),
)
def test_products(double, name, matrix):
    """All columns of the matrix."""
    network, x = NETWORKS[name]()
    exact = dense(network, x, matrix)

    @jax.jit
    def columns(x):
        apply, parameters = curvature_product(network, x, LABELS, matrix)
        return jax.lax.map(apply, jnp.eye(parameters.size))

    np.testing.assert_allclose(columns(x), exact, rtol=1e-8, atol=1e-10 * np.abs(exact).max())


@pytest.mark.parametrize("matrix", [slow("hessian"), "gauss_newton"])
def test_eigenvalues(double, matrix):
    """Of 98, 40 steps find the outermost."""
    network, x = NETWORKS["post"]()
    values = np.linalg.eigvalsh(dense(network, x, matrix))
    found = curvature(network, x, matrix, top=3, steps=40, vectors=6)
    rounding = 1e-10 * values[-1]
    np.testing.assert_allclose(found.top, values[:-4:-1], rtol=1e-8)
    np.testing.assert_allclose(found.smallest, values[0], atol=1e-4 * values[-1])
    assert (np.abs(np.subtract.outer(found.top, values)).min(1) <= found.top_errors + rounding).all()
    assert np.abs(found.smallest - values).min() <= found.smallest_error + rounding
    # Student's t with 5 degrees of freedom is beyond 6.9 once in a thousand.
    assert abs(found.trace - values.sum()) < 6.9 * found.trace_error
    assert found.trace_error < 3 * len(values) * np.sqrt(2 / (len(values) + 2) * values.var() / 6)
    np.testing.assert_allclose(found.weights.sum(1), 1, rtol=1e-10)
    assert found.nodes.shape == (6, min(40, len(values)))
    assert (found.nodes <= values[-1] + rounding).all()
    assert (found.nodes >= values[0] - rounding).all()


def test_parameters_are_in_the_order_of_their_names(double):
    network, x = NETWORKS["post"]()
    logits, flat = logits_by_parameters(network, x)
    twin, expected = by_parameters(network, x)
    np.testing.assert_array_equal(flat, expected)
    np.testing.assert_allclose(logits(flat + 0.1), twin(flat + 0.1), rtol=1e-12)


def test_finite_differences(double):
    """A second opinion that trusts no second derivative: gradients a little ahead and behind."""
    network, x = NETWORKS["post"]()
    logits, flat = by_parameters(network, x)
    gradient = jax.jit(
        jax.grad(lambda flat: optax.softmax_cross_entropy_with_integer_labels(logits(flat), LABELS).mean())
    )
    v = jax.random.normal(jax.random.key(3), flat.shape)
    t = 1e-5
    expected = (gradient(flat + t * v) - gradient(flat - t * v)) / (2 * t)
    found = jax.jit(lambda x, v: curvature_product(network, x, LABELS, "hessian")[0](v))(x, v)
    # The difference's own error is t² times a fourth derivative.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-8 * np.abs(expected).max())


def test_the_traces_error_is_its_spread(double):
    network, x = NETWORKS["none"]()
    keys = jax.random.split(jax.random.key(7), 200)
    one = lambda key: loss_curvature(network, x, LABELS, key, matrix="gauss_newton", top=1, steps=1, vectors=8)  # noqa: E731
    found = jax.jit(lambda keys: jax.lax.map(one, keys))(keys)
    values = np.linalg.eigvalsh(dense(network, x, "gauss_newton"))
    n = len(values)
    expected = n * np.sqrt(2 / (n + 2) * values.var() / 8)
    # A root mean square of 200 is known to 5%, somewhat less where few eigenvalues are large.
    np.testing.assert_allclose(found.trace.std(), expected, rtol=0.2)
    np.testing.assert_allclose(np.sqrt(np.mean(found.trace_error**2)), expected, rtol=0.15)
    np.testing.assert_allclose(found.trace.mean(), values.sum(), atol=4 * expected / np.sqrt(200))


@pytest.mark.slow
def test_networks_at_once(double):
    """Mapped over networks as one by one; the same key gives the same numbers, another others."""
    x = batch()
    networks = [mlp("post"), mlp("post")]
    networks[1].blocks.layers.linear.kernel[...] *= 1.5
    graphdef = nnx.graphdef(networks[0])
    states = [nnx.as_pure(nnx.state(network)) for network in networks]

    def measure(state, key):
        network = nnx.merge(graphdef, state)
        return loss_curvature(
            network, x, LABELS, jax.random.key(key), matrix="gauss_newton", top=2, steps=12, vectors=2
        )

    stacked = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    mapped, single = jax.jit(jax.vmap(measure, (0, None)))(stacked, 0), jax.jit(measure)
    for i, state in enumerate(states):
        one = single(state, 0)
        np.testing.assert_allclose(mapped.top[i], one.top, rtol=1e-8)
        np.testing.assert_allclose(mapped.trace[i], one.trace, rtol=1e-8)
        jax.tree.map(np.testing.assert_array_equal, single(state, 0), one)
        assert single(state, 1).trace != one.trace
    assert (mapped.top[0] != mapped.top[1]).all()


def test_hessian_products_of_many_networks_in_single_precision():
    """Where training is: mapped over networks, against each network's own in double."""
    with jax.enable_x64(True):
        exact = [dense(mlp(order), batch(), "hessian")[3] for order in ("post", "post")]
        scale = np.abs(exact[0]).max()
        x = np.float32(batch())
        network = mlp("post")
        state = jax.tree.map(np.float32, nnx.as_pure(nnx.state(network)))
    graphdef = nnx.graphdef(mlp("post"))
    stacked = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)

    def product(state):
        apply, parameters = curvature_product(nnx.merge(graphdef, state), jnp.asarray(x), LABELS, "hessian")
        return apply(jnp.zeros_like(parameters).at[3].set(1))

    found = jax.jit(jax.vmap(product))(stacked)
    assert found.dtype == jnp.float32
    np.testing.assert_allclose(found, exact, atol=1e-4 * scale)


def test_the_network_is_not_changed(double):
    network, x = NETWORKS["post"]()
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    curvature_product(network, x, LABELS, "gauss_newton")
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(network)), before)


def test_refuses():
    with pytest.raises(ValueError, match="matrix must be 'hessian' or 'gauss_newton', got 'fisher'"):
        curvature_product.__wrapped__(mlp(), jnp.ones((8, 4)), LABELS, "fisher")

"""The fused batch norm against the textbook's autodiff in double precision, with random cotangents."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kernels import batch_norm

ACTIVATIONS = [None, jax.nn.relu, jnp.tanh, jax.nn.gelu, jax.nn.silu]
SHAPES = [(1, 3), (2, 1), (7, 5), (1023, 2), (3, 5, 7, 4)]


def arguments(shape, dtype=float, seed=0, residual=True):
    keys = jax.random.split(jax.random.key(seed), 4)
    x = 3 + 2 * jax.random.normal(keys[0], shape, dtype)
    scale = 1 + 0.3 * jax.random.normal(keys[1], shape[-1:], dtype)
    bias = jax.random.normal(keys[2], shape[-1:], dtype)
    return x, scale, bias, jax.random.normal(keys[3], shape, dtype) if residual else None


def call(implementation, activation):
    return lambda x, scale, bias, residual: batch_norm(
        x, scale, bias, residual=residual, activation=activation, implementation=implementation
    )


def random_like(tree, seed=9):
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return treedef.unflatten([jax.random.normal(k, x.shape, x.dtype) for k, x in zip(keys, leaves, strict=True)])


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * max(1.0, float(jnp.abs(e).max())))


@pytest.mark.parametrize(
    ("shape", "activation", "residual"),
    [(shape, jax.nn.relu, True) for shape in SHAPES]
    + [((7, 5), activation, residual) for activation in ACTIVATIONS for residual in (False, True)],
)
def test_value_and_gradient(double, shape, activation, residual):
    args = arguments(shape, residual=residual)
    expected, expected_vjp = jax.vjp(call("reference", activation), *args)
    actual, actual_vjp = jax.vjp(call("xla", activation), *args)
    cotangent = random_like(expected)
    # A row alone has variance 0: 1/sqrt(epsilon) magnifies rounding by 300.
    assert_close(actual, expected, 1e-12 if shape[0] > 1 else 1e-10)
    assert_close(actual_vjp(cotangent), expected_vjp(cotangent), 1e-11 if shape[0] > 1 else 1e-8)


@pytest.mark.parametrize("of", [lambda y, m, v: y, lambda y, m, v: m, lambda y, m, v: v], ids=["y", "mean", "var"])
def test_each_result_alone(double, of):
    """A result that is not used sends no cotangent; the rule must not need it."""
    args = arguments((7, 5))

    def loss(implementation):
        return lambda *args: jnp.sin(of(*call(implementation, jnp.tanh)(*args))).sum()

    assert_close(jax.grad(loss("xla"), (0, 1, 2, 3))(*args), jax.grad(loss("reference"), (0, 1, 2, 3))(*args), 1e-11)


def test_nested_vmap_scan_and_remat(double):
    x, scale, bias, residual = arguments((2, 3, 11, 4))
    scale, bias = (jnp.broadcast_to(a, (3, 4)) * jnp.arange(1.0, 4)[:, None] for a in (scale, bias))

    def loss(implementation):
        layer = jax.checkpoint(
            lambda h, scale, bias, r: batch_norm(
                h, scale, bias, residual=r, activation=jax.nn.relu, implementation=implementation
            )[0]
        )

        def member(x, scale, bias, residual):
            return lax.scan(lambda h, r: (layer(h, scale, bias, r), None), x, jnp.stack([residual, -residual]))[0]

        over_members = jax.vmap(jax.vmap(member), in_axes=(0, None, None, 0))
        return lambda *args: (over_members(*args) ** 3).sum()

    args = (x, scale, bias, residual)
    grads = [jax.jit(jax.grad(loss(name), (0, 1, 2, 3)))(*args) for name in ("xla", "reference")]
    assert_close(*grads, 1e-10)


def test_variance_survives_a_large_mean():
    """In float32 at mean/std = 3000 the textbook's E[x²] - E[x]² would keep no digit of the variance."""
    noise = np.random.default_rng(0).normal(size=(4096, 3))
    x = (noise + 3000).astype(np.float32)
    truth = np.asarray(x, np.float64).var(0)
    _, _, var = batch_norm(jnp.asarray(x), jnp.ones(3), jnp.zeros(3), implementation="xla")
    np.testing.assert_allclose(var, truth, rtol=1e-3)
    naive = (x * x).mean(0) - x.mean(0) ** 2
    assert (np.abs(naive - truth) > 0.1 * truth).any()


def test_low_precision_keeps_statistics_in_float32():
    """bfloat16 in, and nothing is rounded to bfloat16 but the result: one rounding of the exact answer."""
    x, scale, bias, residual = arguments((513, 4), jnp.float32)
    x = x.astype(jnp.bfloat16)
    y, mean, var = batch_norm(x, scale, bias, residual=residual, implementation="xla")
    assert (y.dtype, mean.dtype, var.dtype) == (jnp.bfloat16, jnp.float32, jnp.float32)
    exact = np.asarray(x, np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-5)
    np.testing.assert_allclose(var, exact.var(0), rtol=1e-5)
    expected = (exact - exact.mean(0)) / np.sqrt(exact.var(0) + 1e-5) * np.asarray(scale) + np.asarray(bias)
    expected += np.asarray(residual)
    # Half a unit in the last of bfloat16's 8 bits, and float32's error of the sum.
    np.testing.assert_allclose(np.asarray(y, np.float64), expected, rtol=2**-8, atol=1e-5)


def test_gradients_have_their_arguments_dtypes():
    x, scale, bias, residual = arguments((7, 4), jnp.float32)
    given = (x.astype(jnp.bfloat16), scale, bias, residual)
    gradients = jax.grad(lambda *args: call("xla", jax.nn.relu)(*args)[0].sum().astype(float), (0, 1, 2, 3))(*given)
    assert [g.dtype for g in gradients] == [a.dtype for a in given]


def test_the_fused_form_is_not_the_reference():
    """It keeps less for the backward pass; were the dispatcher to fall back, both would keep the same."""
    args = arguments((256, 64), jnp.float32)

    def kept(implementation):
        _, vjp = jax.vjp(call(implementation, jax.nn.relu), *args)
        return sum(leaf.size for leaf in jax.tree.leaves(vjp) if leaf.size >= args[0].size)

    assert kept("xla") == 2 * args[0].size  # x, and the output for the slope of relu
    assert kept("reference") > kept("xla")


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (TypeError, "x must be floating point, got int32", {"x": jnp.ones((4, 3), jnp.int32)}),
        (ValueError, r"at least one row, got \(0, 3\)", {"x": jnp.ones((0, 3))}),
        (ValueError, r"scale must have shape \(3,\), got \(2,\)", {"scale": jnp.ones(2)}),
        (ValueError, r"bias must have shape \(3,\), got \(4,\)", {"bias": jnp.ones(4)}),
        (ValueError, r"residual must have shape \(4, 3\), got \(5, 3\)", {"residual": jnp.ones((5, 3))}),
        (ValueError, "one of reference, xla, got 'cuda'", {"implementation": "cuda"}),
    ],
)
def test_refuses(error, match, change):
    given = {"x": jnp.ones((4, 3)), "scale": jnp.ones(3), "bias": jnp.zeros(3)} | change
    with pytest.raises(error, match=match):
        batch_norm.__wrapped__(**given)  # without the tests' own check of shapes

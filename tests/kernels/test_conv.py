"""Convolutions with a member axis: every form, derivative and transformation against the textbook in float64."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from jax import lax
from jax.sharding import PartitionSpec as P

from kernels import conv, ensemble_conv
from tests.tiers import pairwise, slow

# None chooses one of these; `test_every_form_is_a_program_of_its_own` says which.
IMPLEMENTATIONS = ["native", "matmul"]


def arrays(seed, members=3, batch=2, size=(6, 5), window=(3, 3), channels=(4, 5), dtype=jnp.float64):
    """Images and kernels; drawn by NumPy, since JAX would compile a program for every shape."""
    rng = np.random.default_rng(seed)
    shapes = (members, batch, *size, channels[0]), (members, *window, *channels)
    return [jnp.asarray(rng.normal(size=shape), dtype) for shape in shapes]


def like(seed, tree):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def close(actual, expected, tolerance=1e-12):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == e.shape
        assert np.linalg.norm(a - e) <= tolerance * np.linalg.norm(e)


def agree(of, implementation, *args, other="reference"):
    """Compares what two implementations make of the arguments; `of(implementation)` is a function of them."""
    close(jax.jit(of(implementation))(*args), jax.jit(of(other))(*args))


def cubed(implementation, stride, x, w):
    """Not linear in anything, so that no derivative of any order is a constant."""
    return jnp.sin(ensemble_conv(x, w, stride=stride, implementation=implementation))


def reverse(f, x, w):
    y, pull = jax.vjp(f, x, w)
    return y, pull(like(5, y))


def forward(f, x, w):
    return jax.jvp(f, (x, w), like(6, (x, w)))


def scalar(f, x, w):
    return (f(x, w) * like(7, jax.eval_shape(f, x, w))).sum()


def forward_over_reverse(f, x, w):
    gradient = jax.grad(partial(scalar, f), argnums=(0, 1))
    return jax.jvp(gradient, (x, w), like(8, (x, w)))[1]


def reverse_over_reverse(f, x, w):
    gradient = jax.grad(partial(scalar, f), argnums=(0, 1))
    return reverse(lambda x, w: gradient(x, w), x, w)[1]


def linearized(f, x, w):
    linear = jax.linearize(f, x, w)[1]
    tangents = like(9, (x, w))
    out = linear(*tangents)
    return out, jax.linear_transpose(linear, *tangents)(out)


DERIVATIVES = [reverse, forward, forward_over_reverse, reverse_over_reverse, linearized]


@pytest.mark.parametrize(
    ("implementation", "derivative", "shape"), pairwise(IMPLEMENTATIONS, DERIVATIVES, [((3, 3), 1), ((2, 3), 2)])
)
def test_every_derivative(double, implementation, derivative, shape):
    window, stride = shape
    x, w = arrays(0, window=window)
    agree(lambda name: partial(derivative, partial(cubed, name, stride)), implementation, x, w)


@settings(max_examples=6, deadline=None, derandomize=True)
@given(
    st.tuples(st.integers(1, 7), st.integers(1, 7)),
    st.tuples(st.integers(1, 4), st.integers(1, 4)),
    st.integers(1, 3),
    st.integers(1, 3),
    st.sampled_from(["native", "matmul"]),
)
def test_any_shape(size, window, stride, members, implementation):
    with jax.enable_x64(True):
        x, w = arrays(1, members, 2, size, window, (2, 3))
        agree(
            lambda name: partial(reverse, partial(ensemble_conv, stride=stride, implementation=name)),
            implementation,
            x,
            w,
        )


@pytest.mark.parametrize("stride", [1, 2])
def test_the_textbook_is_what_xla_calls_same(double, stride):
    x, w = arrays(0, size=(7, 6))
    expected = jax.vmap(
        lambda x, w: lax.conv_general_dilated(
            x, w, (stride, stride), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    )(x, w)
    close(ensemble_conv(x, w, stride=stride, implementation="reference"), expected)
    close(ensemble_conv(x, w, stride=stride, implementation="grouped"), expected)


@pytest.mark.parametrize("implementation", ["reference", *IMPLEMENTATIONS])
@pytest.mark.parametrize("stride", [slow(1), 2, slow(3)])
def test_centred_is_padding_by_half_a_window(double, implementation, stride):
    """As in PyTorch, for images of odd and even sides; with the gradients."""
    x, w = arrays(0, size=(7, 6))

    def padded(x, w):
        around, layout = [(1, 1), (1, 1)], ("NHWC", "HWIO", "NHWC")
        return jax.vmap(
            lambda x, w: lax.conv_general_dilated(x, w, (stride, stride), around, dimension_numbers=layout)
        )(x, w)

    ours = partial(ensemble_conv, stride=stride, padding="centred", implementation=implementation)
    agree(lambda function: partial(reverse, function), ours, x, w, other=padded)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("axes", [(0, 0), slow((0, None)), (None, 0), slow((3, 4))])
def test_vmap_of_one_networks_convolution(double, implementation, axes):
    """Images, kernels or both mapped, and the map nested in another; with the gradients of each."""
    x, w = arrays(0, members=4)
    x = x if axes[0] is not None else x[0]
    w = w if axes[1] is not None else w[0]
    placed = [jnp.moveaxis(a, 0, axis) if axis else a for a, axis in zip((x, w), axes, strict=True)]

    def mapped(name):
        return jax.vmap(lambda x, w: jnp.sin(conv(x, w, implementation=name)), in_axes=axes)

    def both(name):
        return lambda x, w: (reverse(mapped(name), x[0], w[0]), reverse(jax.vmap(mapped(name)), x, w))

    agree(both, implementation, *(jnp.stack([a, 2 * a]) for a in placed))


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_a_jacobian_by_mapped_cotangents(double, implementation):
    x, w = arrays(0, members=1, size=(3, 2), channels=(2, 2))

    def of(name):
        def f(x, w):
            return jnp.sin(conv(x, w, implementation=name))

        jacobian = jax.jacfwd if name == "reference" else jax.jacrev
        hessian = jax.hessian(lambda x, w: f(x, w).sum(), argnums=1)
        return lambda x, w: (jacobian(f, argnums=(0, 1))(x, w), hessian(x, w))

    agree(of, implementation, x[0], w[0])


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize("remat", [slow(False), True])
def test_scan_and_remat(double, implementation, remat):
    x, _ = arrays(0, channels=(3, 3))
    ws = jnp.stack([arrays(i, channels=(3, 3))[1] for i in range(4)])

    def network(name, x, ws):
        layer = partial(cubed, name, 1)
        layer = jax.checkpoint(layer) if remat else layer
        return lax.scan(lambda h, w: (layer(h, w), None), x, ws)[0]

    def both(name):
        return lambda x, w: [derivative(partial(network, name), x, w) for derivative in (reverse, forward_over_reverse)]

    agree(both, implementation, x, ws)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
def test_shard_map(double, implementation):
    """Samples on different devices: the kernels' gradients are summed over them."""
    x, w = arrays(0, batch=4)
    mesh = jax.make_mesh((2,), ("batch",), axis_types=(jax.sharding.AxisType.Auto,))

    def shared(name):
        f = partial(cubed, name, 1)
        return jax.shard_map(f, mesh=mesh, in_specs=(P(None, "batch"), P()), out_specs=P(None, "batch"))

    ours, textbook = shared(implementation), partial(cubed, "reference", 1)
    agree(lambda function: partial(reverse, function), ours, x, w, other=textbook)


@pytest.mark.parametrize("implementation", IMPLEMENTATIONS)
@pytest.mark.parametrize(("dtype", "tolerance"), [(jnp.float32, 1e-6), (jnp.bfloat16, 4e-3), (jnp.float16, 5e-4)])
def test_other_dtypes(implementation, dtype, tolerance):
    """Sums of products of rounded numbers are rounded once: half a unit of the dtype."""
    x, w = arrays(0, dtype=dtype)
    y, gradients = jax.jit(partial(reverse, partial(ensemble_conv, implementation=implementation)))(x, w)
    assert y.dtype == dtype
    cotangent = like(5, y)

    @jax.jit
    def exactly(x, w, cotangent):
        y, pull = jax.vjp(partial(ensemble_conv, implementation="reference"), x, w)
        return y, pull(cotangent)

    with jax.enable_x64(True):
        wide = jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), (x, w, cotangent, y, gradients))
        close(wide[3:], exactly(*wide[:3]), tolerance)


def test_every_form_is_a_program_of_its_own():
    x, w = arrays(0, dtype=jnp.float32)

    def program(implementation):
        return jax.jit(partial(ensemble_conv, implementation=implementation)).lower(x, w).compile().as_text()

    assert "feature_group_count=3" in program("grouped")
    assert "while(" in program("native")
    assert "convolution(" in program("native")
    assert "convolution(" not in program("matmul")
    assert program(None).count("while(") == program("native").count("while(")


def test_nothing_but_images_and_kernels_is_kept():
    x, w = arrays(0, dtype=jnp.float32)
    kept = jax.tree.leaves(jax.vjp(ensemble_conv, x, w)[1])
    assert sorted(a.shape for a in kept) == sorted([x.shape, w.shape])


@pytest.mark.parametrize(
    ("x", "w", "settings", "error", "message"),
    [
        ((1, 2, 3, 3, 4), (1, 3, 3, 5, 6), {}, ValueError, r"w must be \[1, rows, columns, 4, channel_out\]"),
        ((2, 2, 3, 3, 4), (1, 3, 3, 4, 6), {}, ValueError, r"w must be \[2, rows"),
        ((2, 3, 3, 4), (1, 3, 3, 4, 6), {}, ValueError, r"x must be \[member, batch, height, width, channel\]"),
        ((1, 0, 3, 3, 4), (1, 3, 3, 4, 6), {}, ValueError, "none empty"),
        ((1, 2, 3, 3, 4), (1, 3, 3, 4, 6), {"stride": 0}, ValueError, "stride must be at least 1, got 0"),
        (
            (1, 2, 3, 3, 4),
            (1, 3, 3, 4, 6),
            {"implementation": "cudnn"},
            ValueError,
            "one of reference, grouped, native",
        ),
    ],
    ids=["channels", "members", "rank", "empty", "stride", "implementation"],
)
def test_refuses(x, w, settings, error, message):
    # Shapes are checked by the annotations in tests; users meet the function's own checks.
    with pytest.raises(error, match=message):
        ensemble_conv.__wrapped__(jnp.ones(x), jnp.ones(w), **settings)


def test_refuses_integers_and_mixed_precision():
    with pytest.raises(TypeError, match="x must be floating, got int32"):
        ensemble_conv.__wrapped__(jnp.ones((1, 1, 3, 3, 1), int), jnp.ones((1, 3, 3, 1, 1)))
    with pytest.raises(TypeError, match="w must have x's dtype float32, got bfloat16"):
        ensemble_conv(jnp.ones((1, 1, 3, 3, 1)), jnp.ones((1, 3, 3, 1, 1), jnp.bfloat16))

"""Every implementation of batch norm against autodiff of the textbook in double precision, with random cotangents."""

import itertools
import re
from dataclasses import replace
from functools import lru_cache, partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jax import lax
from jax._src.pallas.mosaic_gpu.interpret.params import InterpretGPUParams  # not public yet
from jax.experimental import pallas as pl
from jax.sharding import AbstractDevice, AbstractMesh, AxisType, use_abstract_mesh
from jax.sharding import PartitionSpec as P

from kernels import batch_norm, normalize
from kernels.batchnorm import chips, pallas
from kernels.batchnorm.activations import resolve
from kernels.batchnorm.api import IMPLEMENTATIONS
from kernels.batchnorm.fused import Settings
from kernels.batchnorm.mosaic import takes
from tests.tiers import pairwise, slow, slow_unless

PATHS = ["xla", "persistent", "split"]
ORDERS = pytest.mark.parametrize("second_order", [False, slow(True)])
# Where there is a mask or an axis, Pallas takes the split path anyway.
WITHOUT_PERSISTENT = pytest.mark.parametrize("implementation", ["xla", "split"], indirect=True)


def each_path(names, *axes):
    """Parametrizes a test by the paths and by others: all pairs fast, all combinations slowly."""
    return pytest.mark.parametrize(("implementation", *names), pairwise(PATHS, *axes), indirect=["implementation"])


# Their slopes come from nothing, the output, and x.
ACTIVATIONS = [None, "relu", "tanh", "gelu", "silu", jnp.sin]
SHAPES = [(1, 3), (2, 1), (7, 5), (1023, 2), (3, 5, 7, 4), (1500, 70)]


@pytest.fixture(params=PATHS)
def implementation(request, monkeypatch):
    """The name of an implementation; Pallas's goes both of its ways."""
    if request.param == "xla":
        return "xla"
    if request.param == "split":
        monkeypatch.setattr(pallas, "tile_width", lambda *args: None)
    return "pallas_interpret"


def arguments(shape, dtype=float, seed=0, residual=True):
    rng = np.random.default_rng(seed)  # JAX's would compile a program for every shape
    x, more = 3 + 2 * rng.normal(size=shape), rng.normal(size=shape)
    scale, bias = 1 + 0.3 * rng.normal(size=shape[-1:]), rng.normal(size=shape[-1:])
    return tuple(jnp.asarray(a, dtype) for a in ((x, scale, bias, more) if residual else (x, scale, bias)))


def call(implementation, **kwargs):
    """A compiled batch norm; the reference's, with which every path is compared, is compiled once."""
    return _reference(**kwargs) if implementation == "reference" else _call(implementation, **kwargs)


def _call(implementation, **kwargs):
    @jax.jit
    def of(x, scale, bias, residual=None, mask=None):
        return batch_norm(x, scale, bias, residual=residual, mask=mask, implementation=implementation, **kwargs)

    return of


@lru_cache
def _reference(**kwargs):
    return _call("reference", **kwargs)


def random_like(tree, seed=9):
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), tree)


def assert_close(actual, expected, tolerance):
    for a, e in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, e = np.asarray(a, float), np.asarray(e, float)
        np.testing.assert_allclose(a, e, rtol=tolerance, atol=tolerance * max(1.0, np.abs(e).max()))


def dot(left, right):
    return sum(jnp.vdot(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


@lru_cache(maxsize=8)
def derivatives(function, count, second_order):
    """A program of value, transpose and tangent by `count` arguments; then every composition of two of them."""
    every = tuple(range(count))

    @jax.jit
    def all_of_them(args, cotangent, tangent):
        def loss(*args):
            return dot(jax.tree.map(jnp.sin, function(*args)), cotangent)

        out, pull = jax.vjp(function, *args)
        found = {"value": out, "reverse": pull(cotangent), "forward": jax.jvp(function, args, tangent)[1]}
        if second_order:
            gradient = jax.grad(loss, every)
            found |= {
                "forward over reverse": jax.jvp(gradient, args, tangent)[1],
                "reverse over reverse": jax.grad(lambda *args: dot(gradient(*args), tangent), every)(*args),
                "reverse over forward": jax.grad(lambda *args: jax.jvp(loss, args, tangent)[1], every)(*args),
            }
        return found

    return all_of_them


def same_derivatives(actual, expected, args, tolerance, second_order=True):
    cotangent, tangent = random_like(jax.eval_shape(expected, *args)), random_like(args, seed=5)
    programs = [derivatives(function, len(args), second_order) for function in (actual, expected)]
    found = [program(args, cotangent, tangent) for program in programs]
    for name in found[0]:
        assert_close(found[0][name], found[1][name], tolerance)


class TestEveryImplementation:
    @pytest.mark.parametrize(
        ("implementation", "shape"),
        # (7, 5) on every path, each other shape on one of them.
        slow_unless(
            lambda path, shape: shape == (7, 5) or (PATHS.index(path) + SHAPES.index(shape)) % 3 == 0,
            itertools.product(PATHS, SHAPES),
        ),
        indirect=["implementation"],
    )
    def test_shapes(self, double, implementation, shape):
        args = arguments(shape)
        # A row alone has variance 0: 1/sqrt(epsilon) magnifies rounding by 300, and its derivatives by more.
        same_derivatives(
            call(implementation, activation="relu"),
            call("reference", activation="relu"),
            args,
            1e-11 if shape[0] > 1 else 1e-7,
            second_order=shape == (7, 5) and implementation == "xla",
        )

    @ORDERS
    @each_path(("activation", "residual"), ACTIVATIONS, [False, True])
    def test_every_derivative(self, double, implementation, activation, residual, second_order):
        args = arguments((7, 5), residual=residual)
        functions = [call(name, activation=activation) for name in (implementation, "reference")]
        same_derivatives(*functions, args, 1e-11, second_order)

    @WITHOUT_PERSISTENT
    @pytest.mark.parametrize("shape", [slow((7, 1)), (7, 5)])
    def test_mask(self, double, implementation, shape):
        """Statistics of the entries that count; the others are normalized with them."""
        mask = jax.random.bernoulli(jax.random.key(3), 0.6, shape)
        functions = [partial(call(name, activation="tanh"), mask=mask) for name in (implementation, "reference")]
        same_derivatives(*functions, arguments((7, 5)), 1e-11)

    @WITHOUT_PERSISTENT
    def test_a_masked_row_is_as_good_as_absent(self, double, implementation):
        x, scale, bias = arguments((700, 3), residual=False)
        mask = jax.random.bernoulli(jax.random.key(3), 0.4, (700, 1)).at[:300].set(False)
        _, *masked = call(implementation)(x, scale, bias, mask=mask)
        _, *absent = call("reference")(x[mask[:, 0]], scale, bias)
        assert_close(masked, absent, 1e-13)

    @WITHOUT_PERSISTENT
    def test_a_feature_of_which_nothing_counts_has_no_statistics(self, implementation):
        x, scale, bias = arguments((600, 3), jnp.float32, residual=False)
        y, mean, var = call(implementation)(x, scale, bias, mask=jnp.asarray([True, False, True]))
        for array in (y, mean, var):
            assert np.isnan(array[..., 1]).all()
            assert np.isfinite(array[..., ::2]).all()

    def test_each_result_and_each_argument_alone(self, double, implementation):
        """A result that is not used sends no cotangent, an argument held fixed takes none."""
        args = arguments((7, 5))
        every = (0, 1, 2, 3)

        def gradients(name):
            def loss(which, *args):
                return jnp.sin(call(name, activation="tanh")(*args)[which]).sum()

            chosen = itertools.product(range(3), (every, *every))
            return [jax.grad(partial(loss, which), argument)(*args) for which, argument in chosen]

        assert_close(*(jax.jit(partial(gradients, name))() for name in (implementation, "reference")), 1e-11)

    @ORDERS
    def test_nested_vmap_scan_and_remat(self, double, implementation, second_order):
        x, scale, bias, residual = arguments((2, 3, 11, 4))
        scale, bias = (jnp.broadcast_to(a, (3, 4)) * jnp.arange(1.0, 4)[:, None] for a in (scale, bias))

        def through(name):
            layer = jax.checkpoint(lambda h, scale, bias, r: call(name, activation="relu")(h, scale, bias, r)[0])

            def member(x, scale, bias, residual):
                return lax.scan(lambda h, r: (layer(h, scale, bias, r), None), x, jnp.stack([residual, -residual]))[0]

            return jax.vmap(jax.vmap(member), in_axes=(0, None, None, 0))

        same_derivatives(through(implementation), through("reference"), (x, scale, bias, residual), 1e-10, second_order)

    def test_linearize_and_linear_transpose(self, double, implementation):
        args = arguments((7, 5))
        out, push = jax.linearize(call(implementation, activation="gelu"), *args)
        expected, pull = jax.vjp(call("reference", activation="gelu"), *args)
        cotangent = random_like(out)
        assert_close(out, expected, 1e-12)
        assert_close(jax.linear_transpose(push, *args)(cotangent), pull(cotangent), 1e-11)

    # JAX's emulator of kernels mixes values that vary over devices with others, which the check refuses; of others see
    # test_kernels_lower_where_every_device_has_its_own_batch.
    @ORDERS
    @pytest.mark.parametrize(
        ("implementation", "check_vma"),
        [("xla", True), slow("xla", False), ("split", False)],
        indirect=["implementation"],
    )
    def test_devices_share_statistics_whatever_the_share_of_each(self, double, implementation, check_vma, second_order):
        """Four devices of which one has nothing that counts, against one device with everything."""
        args = arguments((8, 3, 5))
        mask = jax.random.bernoulli(jax.random.key(3), 0.6, (8, 3, 1)).at[:2].set(False)
        mesh = jax.make_mesh((4,), ("device",), axis_types=(AxisType.Auto,))
        over, whole = P("device"), P()

        @partial(
            jax.shard_map,
            mesh=mesh,
            in_specs=(over, whole, whole, over, over),
            out_specs=(over, whole, whole),
            check_vma=check_vma,
        )
        def on_devices(x, scale, bias, residual, mask):
            return call(implementation, activation="tanh", axis_name="device")(x, scale, bias, residual, mask)

        expected = partial(call("reference", activation="tanh"), mask=mask)
        same_derivatives(lambda *args: on_devices(*args, mask), expected, args, 1e-11, second_order)

    @ORDERS
    @WITHOUT_PERSISTENT
    def test_members_of_a_named_vmap_share_statistics(self, double, implementation, second_order):
        args = arguments((8, 5))

        def split(x, scale, bias, residual):
            function = jax.vmap(
                call(implementation, axis_name="part"),
                in_axes=(0, None, None, 0),
                out_axes=(0, None, None),
                axis_name="part",
            )
            y, mean, var = function(x.reshape(4, 2, 5), scale, bias, residual.reshape(4, 2, 5))
            return y.reshape(8, 5), mean, var

        same_derivatives(split, call("reference"), args, 1e-11, second_order)

    @settings(
        max_examples=4, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture]
    )
    @given(
        leading=st.lists(st.integers(1, 9), min_size=1, max_size=3),
        features=st.integers(1, 9),
        dtype=st.sampled_from([jnp.float32, jnp.bfloat16, jnp.float16]),
    )
    def test_dtypes(self, implementation, leading, features, dtype):
        """Within rounding of the result's dtype of the exact answer."""
        args = arguments((*leading, features), dtype)
        y, mean, var = call(implementation)(*args)
        assert (y.dtype, mean.dtype, var.dtype) == (dtype, jnp.float32, jnp.float32)
        x, scale, bias, residual = (np.asarray(a, np.float64) for a in args)
        rows = tuple(range(x.ndim - 1))
        exact = (x - x.mean(rows)) / np.sqrt(x.var(rows) + 1e-5) * scale + bias + residual
        # Float32's rounding of x, of size 3, magnified by 1/sqrt(var + epsilon) at most; then the rounding of y.
        slack = 1e-5 + 4e-7 / np.sqrt(x.var(rows) + 1e-5).min()
        np.testing.assert_allclose(np.asarray(y, np.float64), exact, rtol=float(jnp.finfo(dtype).eps), atol=slack)
        np.testing.assert_allclose(var, x.var(rows), rtol=1e-5, atol=1e-10)

    @each_path(("mean", "rows"), [0, 1e3, 1e6], [200, 5000])
    def test_variance_survives_a_large_mean(self, implementation, mean, rows):
        x = (np.random.default_rng(0).normal(size=(rows, 3)) + mean).astype(np.float32)
        truth = np.asarray(x, np.float64)
        y, _, var = batch_norm(jnp.asarray(x), jnp.ones(3), jnp.zeros(3), implementation=implementation)
        np.testing.assert_allclose(var, truth.var(0), rtol=1e-5)
        # The output too: the mean that centres it is not rounded to x's few digits.
        np.testing.assert_allclose(y, (truth - truth.mean(0)) / truth.std(0), atol=1e-4)
        naive = (x * x).mean(0) - x.mean(0) ** 2
        assert mean < 1e3 or (np.abs(naive - truth.var(0)) > 1e-3 * truth.var(0)).any()

    @pytest.mark.parametrize("value", [slow(0.0), 0.1, slow(1e6)])
    def test_a_constant_feature(self, implementation, value):
        """The output is the bias, and no gradient flows to the scale or through the variance."""
        args = (jnp.full((300, 2), value), jnp.ones(2), jnp.arange(2.0))
        (y, mean, var), pull = jax.vjp(call(implementation), *args)
        assert (y == args[2]).all()
        np.testing.assert_allclose(mean, value, rtol=1e-7)
        assert (var == 0).all()
        g = random_like(y)
        dx, dscale, dbias = pull((g, jnp.zeros(2), jnp.ones(2)))
        assert (dscale == 0).all()
        np.testing.assert_allclose(dbias, g.sum(0), rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(dx, (g - g.mean(0)) / np.sqrt(1e-5), rtol=1e-3, atol=1e-2)

    def test_one_row_has_no_gradient(self, implementation):
        args = arguments((1, 3), jnp.float32, residual=False)
        (y, _, var), pull = jax.vjp(call(implementation), *args)
        assert (y == args[2]).all()
        assert (var == 0).all()
        dx, dscale, _ = pull((random_like(y), jnp.zeros(3), jnp.zeros(3)))
        assert (dx == 0).all()
        assert (dscale == 0).all()

    @pytest.mark.parametrize("bad", [np.nan, slow(np.inf)])
    def test_a_bad_entry_stays_in_its_feature_and_member(self, implementation, bad):
        x = arguments((2, 9, 4), jnp.float32, residual=False)[0].at[1, 3, 2].set(bad)
        scale, bias = jnp.ones((2, 4)), jnp.zeros((2, 4))

        def members(x, scale, bias):
            return jax.vmap(call(implementation, activation="relu"))(x, scale, bias)

        out, pull = jax.vjp(members, x, scale, bias)
        touched = np.zeros((2, 4), bool)
        touched[1, 2] = True
        for array in (*out, *pull(random_like(out))):
            finite = np.isfinite(np.asarray(array))
            by_feature = finite.all(1) if array.ndim == 3 else finite
            assert by_feature[~touched].all()
        assert not np.isfinite(out[2][1, 2])

    def test_the_named_one_ran(self, implementation, kernel_calls):
        """Were the dispatcher to fall back, the programs would be the same, and no kernel would have been called."""
        args = arguments((64, 8), jnp.float32)
        programs = [call(name).lower(*args).compile().as_text() for name in (implementation, "reference")]
        instructions = [re.sub(r"metadata=\{[^}]*\}|%[\w.-]+", "", program).split("ENTRY")[1] for program in programs]
        assert instructions[0] != instructions[1]
        assert bool(kernel_calls) == (implementation == "pallas_interpret")

    @each_path(
        ("dtype", "rows", "activation", "residual"),
        [jnp.float32, jnp.bfloat16, jnp.float16],
        [1, 64, 1023],
        ["tanh", "relu", "gelu"],
        [False, True],
    )
    def test_gradients_to_the_dtypes_rounding(self, double, implementation, dtype, rows, activation, residual):
        """Each argument's cotangent is the exact one of the same inputs, rounded once to its dtype.

        The slack is float32's rounding in sums over the rows, as far as the derivatives magnify it.
        """
        args = arguments((rows, 5), dtype, residual=residual)
        g = jax.random.normal(jax.random.key(7), (rows, 5), dtype)
        exact = [jnp.asarray(a, float) for a in args]

        def gradients(name, args, g):
            return jax.vjp(lambda *args: call(name, activation=activation)(*args)[0], *args)[1](g)

        found = jax.jit(partial(gradients, implementation))(args, g)
        expected = jax.jit(partial(gradients, "reference"))(exact, jnp.asarray(g, float))
        # The variance of a row alone is 0: 1/sqrt(epsilon) magnifies what is rounded.
        magnified = 1 if rows > 1 else 1e-5**-0.5
        slack = 16 * float(jnp.finfo(jnp.float32).eps) * np.sqrt(rows) * magnified
        for ours, exactly in zip(found, expected, strict=True):
            assert ours.dtype == dtype
            tolerance = {"rtol": float(jnp.finfo(dtype).eps), "atol": slack * max(1, np.abs(exactly).max())}
            np.testing.assert_allclose(np.asarray(ours, float), exactly, **tolerance)

    @pytest.mark.parametrize(
        ("activation", "residual", "expected"),
        [(None, True, 1), ("gelu", False, 1), ("relu", True, 2), ("gelu", True, 2)],
    )
    def test_the_backward_pass_keeps_x_alone(self, implementation, activation, residual, expected):
        """Arrays of x's size that the compiled forward pass returns beside the output, as its memory analysis says.

        After an activation and a residual one more: for relu the output again, which the next layer holds anyway.
        """
        args = arguments((100, 64), jnp.float32, residual=residual)

        def kept(function):
            program = jax.jit(lambda *args: jax.vjp(function, *args)).lower(*args).compile()
            return program.memory_analysis().output_size_in_bytes / args[0].nbytes - 1

        def flax(x, scale, bias, residual=0.0):
            y = flax_batch_norm(x, scale, bias) + residual
            return y if activation is None else resolve(activation)(y)

        ours = kept(lambda *args: call(implementation, activation=activation)(*args)[0])
        assert expected <= ours < expected + 0.1  # numbers by feature are a hundredth each
        assert kept(flax) > ours + 0.9


def flax_batch_norm(x, scale, bias):
    graphdef, state = nnx.split(nnx.BatchNorm(x.shape[-1], rngs=nnx.Rngs(0)))
    return nnx.merge(graphdef, nnx.as_pure(state) | {"scale": scale, "bias": bias})(x)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_ten_million_rows(dtype):
    """A running sum in float32 would have lost its low digits long before; output and gradients too."""
    rows = 10_000_000
    x, g = (jax.random.normal(jax.random.key(i), (rows, 1), dtype) for i in range(2))
    x = x + jnp.asarray(10, dtype)
    (y, mean, var), pull = jax.vjp(jax.jit(batch_norm), x, jnp.ones(1), jnp.zeros(1))
    dx, dscale, dbias = pull((g, jnp.zeros(1), jnp.zeros(1)))
    x, g = np.asarray(x, np.float64), np.asarray(g, np.float64)
    np.testing.assert_allclose(mean, x.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var, x.var(0), rtol=1e-5)
    normalized = (x - x.mean(0)) / np.sqrt(x.var(0) + 1e-5)
    expected = (g - g.mean(0) - normalized * (g * normalized).mean(0)) / np.sqrt(x.var(0) + 1e-5)
    # Sums of so many terms of either sign, of size 1, are known to float32's rounding of their random walk.
    slack = float(jnp.finfo(jnp.float32).eps) * rows**0.5 * 16
    np.testing.assert_allclose(dbias, g.sum(0), rtol=1e-4, atol=slack)
    np.testing.assert_allclose(dscale, (g * normalized).sum(0), rtol=1e-4, atol=slack)
    rounding = {"rtol": float(jnp.finfo(dtype).eps), "atol": 1e-5}
    np.testing.assert_allclose(np.asarray(y, np.float64), normalized, **rounding)
    np.testing.assert_allclose(np.asarray(dx, np.float64), expected, **rounding)


def test_devices_of_unequal_counts_in_single_precision():
    """Chan's rule where means are large, and differ by device: E[x²] - E[x]² would leave no digit."""
    rng = np.random.default_rng(0)
    x = (1e4 + np.arange(4)[:, None, None] + rng.normal(size=(4, 300, 3))).astype(np.float32)
    mask = np.arange(300)[None, :, None] < np.asarray([300, 7, 120, 0])[:, None, None]
    _, mean, var = jax.vmap(
        lambda x, mask: batch_norm(x, jnp.ones(3), jnp.zeros(3), mask=mask, axis_name="part"), axis_name="part"
    )(jnp.asarray(x), jnp.asarray(mask))
    counted = np.float64(x[mask[..., 0]])
    np.testing.assert_allclose(mean[2], counted.mean(0), rtol=1e-6)
    np.testing.assert_allclose(var[2], counted.var(0), rtol=1e-4)


def test_memory_is_at_most_half_of_flaxes():
    """Temporary memory of forward and backward together, as the compiled programs say."""
    x, scale, bias = arguments((16, 32, 32, 16), jnp.float32, residual=False)

    def theirs(x, scale, bias):
        return jax.nn.relu(flax_batch_norm(x, scale, bias))

    def ours(x, scale, bias):
        return batch_norm(x, scale, bias, activation="relu")[0]

    def temporary(function):
        def both(args, cotangent):
            y, pull = jax.vjp(function, *args)
            return y, pull(cotangent)

        program = jax.jit(both).lower((x, scale, bias), x).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(ours) <= 0.5 * temporary(theirs)


@pytest.mark.parametrize(
    ("rows", "expected"),
    [
        (128, {(1, 1), (2, 1)}),  # persistent: all there is to do, in one kernel each way
        (600, {(1, 0), (2, 0)}),  # split: the sums; XLA writes the output and x's cotangent
        slow(5000, {(1, 0), (2, 0)}),
    ],
)
@pytest.mark.parametrize("dtype", [slow(jnp.float32), jnp.bfloat16])
def test_kernels_read_and_write_every_array_once(rows, expected, dtype, monkeypatch):
    """Arrays of x's size that kernels read and write, forward and backward, all of them in x's dtype."""
    x, scale, bias = arguments((rows, 64), dtype)[:3]
    seen, dtypes = set(), set()

    def recorded(*args, f=pl.pallas_call, **settings):
        kernel = f(*args, **settings)

        def run(*operands):
            results = kernel(*operands)
            large = [[a for a in jax.tree.leaves(side) if a.size >= x.size] for side in (operands, results)]
            if not any(isinstance(a, jax.core.Tracer) for a in operands):  # tracing the tangent, nothing is run
                seen.add(tuple(map(len, large)))
                dtypes.update(a.dtype for side in large for a in side)
            return results

        return run

    monkeypatch.setattr(pl, "pallas_call", recorded)
    batch_norm_relu = partial(batch_norm, activation="relu", implementation="pallas_interpret")
    y, pull = jax.vjp(lambda *args: batch_norm_relu(*args)[0], x, scale, bias)
    pull(y)
    assert seen == expected
    assert dtypes == {jnp.dtype(dtype)}


@pytest.mark.parametrize(
    ("rows", "features", "smallest", "tiles", "chip", "expected"),
    [
        (128, 256, 4, 3, chips.AMPERE, 128),
        (128, 256, 4, 5, chips.AMPERE, 64),  # after relu with a residual: narrower
        (512, 256, 2, 3, chips.AMPERE, 32),
        (513, 256, 4, 3, chips.AMPERE, None),  # 32 features of so many rows are too many: split
        (1023, 2, 4, 3, chips.AMPERE, 2),
        (64, 256, 4, 3, chips.HOPPER, 128),
        (256, 256, 4, 3, chips.HOPPER, 32),
        (257, 256, 4, 3, chips.HOPPER, None),
        (128, 256, 2, 3, chips.HOPPER, 64),
        (129, 256, 2, 3, chips.HOPPER, None),  # 32 numbers of 16 bits are no cache line
        (3, 2, 4, 3, chips.HOPPER, 32),  # a warp's threads are side by side
        (3, 2, 2, 3, chips.HOPPER, 64),
        (1024, 4096, 4, 3, chips.TPU, 128),
        (4096, 4096, 4, 3, chips.TPU, None),
    ],
)
def test_the_rule_for_one_tile(rows, features, smallest, tiles, chip, expected):
    width = chips.tile_width(rows, features, 4, smallest, tiles, chip)
    assert width == expected
    assert width is None or chips.height(rows, chip) * width * 4 * tiles <= chip.memory


def abstract_mesh(devices):
    """GPUs that are not here, of which the compiler wants a description."""
    device = AbstractDevice("NVIDIA H100", 132, "gpu")
    return AbstractMesh((devices,), ("device",), axis_types=(AxisType.Auto,), abstract_device=device)


def lowered_for(platform, function, *args, devices=1):
    """The program for a chip that is not here."""
    with use_abstract_mesh(abstract_mesh(devices)):
        return jax.jit(function).trace(*args).lower(lowering_platforms=(platform,)).as_text()


def launches(program):
    return len(re.findall("custom_call @(tpu_custom_call|mosaic_gpu|__gpu)", program))


CHIPS = {"tpu": chips.TPU, "hopper": chips.HOPPER, "ampere": chips.AMPERE}
PLATFORMS = {"tpu": "tpu", "hopper": "cuda", "ampere": "cuda"}


@pytest.mark.parametrize(
    ("name", "rows", "dtype", "activation", "with_residual"),
    pairwise(list(CHIPS), [128, 9000], [jnp.float32, jnp.bfloat16], ["relu", "gelu", None], [False, True]),
)
def test_one_launch_for_all_members(name, rows, dtype, activation, with_residual):
    """Members are an axis of the kernels' grid: their number changes nothing in the program but shapes.

    One kernel forward and one backward, persistent (128 rows) or split.
    """
    chip, platform = CHIPS[name], PLATFORMS[name]
    chosen = Settings(pallas.reductions(chip), resolve(activation), 1e-5, None, None)

    def both(x, scale, bias, residual, cotangent):
        def member(x, scale, bias, residual):
            return pallas.batch_norm(chosen, chip, x, scale, bias, residual, None)[0]

        y, pull = jax.vjp(jax.vmap(member), x, scale, bias, residual)
        return y, pull(cotangent)

    def count(members):
        x = jax.ShapeDtypeStruct((members, rows, 64), dtype)
        scale = jax.ShapeDtypeStruct((members, 64), jnp.float32)
        return launches(lowered_for(platform, both, x, scale, scale, x if with_residual else None, x))

    assert count(2) == count(48) == 2


@pytest.mark.parametrize(
    ("shape", "activation", "with_residual", "members"),
    slow_unless(
        lambda *case: case == ((7, 5), "gelu", True, 3),
        itertools.product([(7, 5), (60, 130), (300, 70)], ["relu", "gelu"], [False, True], [None, 3]),
    ),
)
def test_kernels_of_mosaic_gpu(double, monkeypatch, shape, activation, with_residual, members):
    """Emulated, persistent and, with 300 rows, split; alone and mapped. Their emulator does not go into a program."""
    monkeypatch.setattr(chips, "EMULATED", replace(chips.HOPPER, interpret=InterpretGPUParams()))

    def found(implementation):
        def one(*args):
            residual = args[3] if with_residual else None
            return batch_norm(*args[:3], residual=residual, activation=activation, implementation=implementation)

        function, args = (one, arguments(shape)) if members is None else (jax.vmap(one), mapped)
        out, pull = jax.vjp(function, *args)
        return out, pull(random_like(out))

    mapped = jax.tree.map(lambda *leaves: jnp.stack(leaves), *(arguments(shape, seed=i) for i in range(members or 1)))
    assert_close(found("pallas_interpret"), found("reference"), 1e-11)


@pytest.mark.parametrize(
    ("activation", "dtype"),
    [
        (jnp.tanh, jnp.float32),
        (jax.nn.silu, jnp.bfloat16),
        (jax.nn.leaky_relu, jnp.float32),
        (jax.nn.softplus, jnp.bfloat16),
        (jax.nn.elu, jnp.float32),
    ],
)
def test_mosaic_gpu_need_not_know_an_activation(monkeypatch, activation, dtype):
    """One with an operation that it does not compile is applied to the kernel's results."""
    monkeypatch.setattr(chips, "chip_here", lambda: chips.HOPPER)
    unknown = activation in (jax.nn.softplus, jax.nn.elu)
    assert takes(chips.HOPPER, activation, jnp.float32) != unknown

    def gradient(x, scale, bias):
        return jax.grad(lambda x: batch_norm(x, scale, bias, activation=activation, implementation="pallas")[0].sum())(
            x
        )

    assert launches(lowered_for("cuda", gradient, *arguments((128, 64), dtype, residual=False))) == 2


@pytest.mark.parametrize(
    ("name", "rows"),
    slow_unless(lambda *case: case in {("hopper", 128), ("tpu", 9000)}, itertools.product(CHIPS, [128, 9000])),
)
def test_kernels_lower_where_every_device_has_its_own_batch(rows, name):
    """Under `shard_map`, which checks what varies over devices: with shared statistics and without."""
    chip = CHIPS[name]
    mesh = abstract_mesh(4)
    for axis_name in (None, "device"):
        chosen = Settings(pallas.reductions(chip), jax.nn.relu, 1e-5, axis_name, None)

        def loss(x, scale, bias, chosen=chosen):
            return pallas.batch_norm(chosen, chip, x, scale, bias, None, None)[0].sum()[None]

        def gradients(*args, loss=loss):
            over = jax.shard_map(loss, mesh=mesh, in_specs=(P("device"), P(), P()), out_specs=P("device"))
            return jax.grad(lambda *args: over(*args).sum(), (0, 1, 2))(*args)

        x, scale, bias = arguments((4 * rows, 64), jnp.float32, residual=False)
        assert launches(lowered_for(PLATFORMS[name], gradients, x, scale, bias, devices=4)) == 2


def test_an_activation_may_close_over_arrays(double):
    """Its derivative by what it closes over is found too."""
    args = arguments((7, 5))

    def loss(implementation):
        def of(slope, *args):
            return jnp.sin(call(implementation, activation=lambda z: jnp.where(z > 0, z, slope * z))(*args)[0]).sum()

        return of

    gradients = [jax.jit(jax.grad(loss(name), (0, 1, 2)))(0.3, *args) for name in ("xla", "reference")]
    assert_close(*gradients, 1e-11)


def test_an_activation_that_closes_over_an_array_sees_what_is_not_rounded(implementation):
    slope = jnp.linspace(0.1, 0.3, 1)
    args = arguments((64, 5), jnp.bfloat16)

    def found(name):
        return call(name, activation=lambda z: jnp.where(z > 0, z, slope * z * 1000) - 1000 * z)(*args)[0]

    y, expected = found(implementation), found("reference")
    assert y.dtype == expected.dtype == jnp.bfloat16
    # One rounding, of the result: one unit in the eight bits of bfloat16.
    np.testing.assert_allclose(np.float32(y), np.float32(expected), rtol=2**-7, atol=1e-2)


def test_evaluation_in_half_precision_rounds_once():
    rng = np.random.default_rng(0)
    x = jnp.asarray(rng.normal(3, 1, (50, 4)), jnp.bfloat16)
    mean, var = (jnp.asarray(rng.uniform(2, 4, 4), jnp.bfloat16) for _ in range(2))
    y = normalize(x, mean, var, None, None)
    exact = (np.float64(x) - np.float64(mean)) / np.sqrt(np.float64(var) + 1e-5)
    assert y.dtype == jnp.bfloat16
    np.testing.assert_allclose(np.float64(y), exact, rtol=2**-8, atol=1e-6)


def test_evaluation_refuses_a_residual_of_another_shape():
    with pytest.raises(ValueError, match=r"residual must have shape \(4, 3\), got \(1, 3\)"):
        normalize.__wrapped__(jnp.ones((4, 3)), jnp.zeros(3), jnp.ones(3), None, None, residual=jnp.ones((1, 3)))


@pytest.mark.parametrize(
    ("error", "match", "change"),
    [
        (TypeError, "x must be floating point, got int32", {"x": jnp.ones((4, 3), jnp.int32)}),
        (ValueError, r"at least one row, got \(0, 3\)", {"x": jnp.ones((0, 3))}),
        (ValueError, r"scale must have shape \(3,\), got \(2,\)", {"scale": jnp.ones(2)}),
        (ValueError, r"bias must have shape \(3,\), got \(4,\)", {"bias": jnp.ones(4)}),
        (ValueError, r"residual must have shape \(4, 3\), got \(5, 3\)", {"residual": jnp.ones((5, 3))}),
        (ValueError, r"mask must broadcast to x's shape \(4, 3\), got \(3, 1\)", {"mask": jnp.ones((3, 1), bool)}),
        (TypeError, "mask must be bool, got float32", {"mask": jnp.ones((4, 1))}),
        (
            ValueError,
            "activation must be None, a function or one of relu, tanh, gelu, silu, got 'rel",
            {"activation": "rellu"},
        ),
        (ValueError, r"activation must be elementwise, but maps shape \(2, 3\)", {"activation": jnp.sum}),
        (
            ValueError,
            r"activation must be elementwise, but fails on shape \(2, 3\): ",
            {"activation": lambda z: z * jnp.ones(7)},
        ),
        (ValueError, r"groups of axis_name, which is None, got \[\[0\]\]", {"axis_index_groups": [[0]]}),
        (ValueError, f"one of {', '.join(IMPLEMENTATIONS)}, got 'cuda'", {"implementation": "cuda"}),
        (ValueError, "'pallas' needs a GPU or TPU, and the backend here is cpu", {"implementation": "pallas"}),
    ],
)
def test_refuses(error, match, change):
    given = {"x": jnp.ones((4, 3)), "scale": jnp.ones(3), "bias": jnp.zeros(3)} | change
    with pytest.raises(error, match=match):
        jax.eval_shape(lambda: batch_norm.__wrapped__(**given))  # at trace time; without the tests' own check of shapes


def test_an_activation_is_a_name_or_a_function():
    with pytest.raises(TypeError, match="activation must be None, a name or a function, got 3"):
        resolve.__wrapped__(3)

"""The module against Flax's own."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx, serialization

from nets import BatchNorm
from tests.tiers import slow


@pytest.fixture
def pair():
    settings = {"momentum": 0.8, "epsilon": 1e-3, "bias_init": jax.nn.initializers.normal(), "rngs": nnx.Rngs(0)}
    ours = BatchNorm(5, **settings)
    theirs = nnx.BatchNorm(5, **settings)
    nnx.update(theirs, nnx.state(ours))
    return ours, theirs


def test_variables_are_flaxes(pair):
    ours, theirs = (jax.tree.map(jnp.shape, nnx.state(module)) for module in pair)
    assert ours == theirs


def test_training_then_evaluation(pair):
    for step in range(3):
        x = 2 + jax.random.normal(jax.random.key(step), (4, 9, 5))
        ours, theirs = (module(x) for module in pair)
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    for name in ("mean", "var"):
        np.testing.assert_allclose(getattr(pair[0], name)[...], getattr(pair[1], name)[...], rtol=1e-5)
    for module in pair:
        module.eval()
    np.testing.assert_allclose(pair[0](x), pair[1](x), rtol=1e-5, atol=1e-5)


def test_a_call_chooses_its_mode(pair):
    x = jax.random.normal(jax.random.key(0), (9, 5))
    for module in pair:
        module.train()
    ours, theirs = (module(x, use_running_average=True) for module in pair)
    np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-5)
    assert (pair[0].mean[...] == 0).all()


def test_residual_and_activation_are_fused_in_both_modes(pair):
    x, residual = jax.random.normal(jax.random.key(0), (2, 9, 5))
    for running in (True, False):
        fused = pair[0](x, running, residual=residual, activation=jax.nn.relu)
        apart = jax.nn.relu(pair[1](x, running) + residual)
        np.testing.assert_allclose(fused, apart, rtol=1e-5, atol=1e-5)


OPTIONS = [
    {"axis": 1},
    {"use_scale": False},
    {"use_bias": False},
    {"dtype": jnp.bfloat16},
    {"dtype": jnp.float16, "param_dtype": jnp.float16},
    {"param_dtype": jnp.bfloat16},
    {"use_fast_variance": False},
    {"scale_init": jax.nn.initializers.normal(), "momentum": 0.5},
    {"scale_metadata": {"note": 1}},
]


@pytest.mark.parametrize(
    ("options", "mask_shape"),
    [
        (pytest.param if (i + j) % 3 == 0 else slow)(options, mask, id=f"{'-'.join(options)}-{mask}")
        for i, options in enumerate(OPTIONS)
        for j, mask in enumerate((None, (6, 5, 5), (5, 5)))
    ],
)
def test_options_are_flaxes(options, mask_shape):
    """Output, gradients and statistics, to the rounding of the dtypes."""
    modules = [kind(5, rngs=nnx.Rngs(0), **options) for kind in (BatchNorm, nnx.BatchNorm)]
    assert jax.tree.map(jnp.shape, nnx.state(modules[0])) == jax.tree.map(jnp.shape, nnx.state(modules[1]))
    x = 1 + jax.random.normal(jax.random.key(0), (6, 5, 5))
    mask = jax.random.bernoulli(jax.random.key(1), 0.7, mask_shape) if mask_shape else None
    cotangent = jax.random.normal(jax.random.key(2), x.shape)
    found = []
    for module in modules:
        graphdef, params, rest = nnx.split(module, nnx.Param, ...)

        @jax.jit
        def run(params, rest, x, graphdef=graphdef):
            def forward(params, x):
                module = nnx.merge(graphdef, params, rest)
                return module(x, mask=mask), nnx.as_pure(nnx.state(module, nnx.BatchStat))

            y, pull, statistics = jax.vjp(forward, params, x, has_aux=True)
            return y, pull(cotangent.astype(y.dtype)), statistics

        found.append(run(nnx.as_pure(params), nnx.as_pure(rest), x))
    half = any(
        jnp.dtype(dtype).itemsize == 2 for dtype in (options.get("dtype", "f4"), options.get("param_dtype", "f4"))
    )
    tolerance = 0.05 if half else 1e-4
    assert found[0][0].dtype == found[1][0].dtype
    for ours, theirs in zip(*map(jax.tree.leaves, found), strict=True):
        ours, theirs = np.asarray(ours, float), np.asarray(theirs, float)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance)


def test_running_statistics_keep_their_precision():
    """Where inputs are bfloat16, Flax rounds the statistics it evaluates with to bfloat16's 8 bits."""
    x = (jax.random.normal(jax.random.key(0), (64, 5)) + 100).astype(jnp.bfloat16)
    exact = np.asarray(x, float)
    exact = (exact - 100.2) / np.sqrt(1 + 1e-5)
    errors = []
    for kind in (BatchNorm, nnx.BatchNorm):
        module = kind(5, dtype=jnp.bfloat16, use_running_average=True, rngs=nnx.Rngs(0))
        module.mean[...] = jnp.full(5, 100.2)
        errors.append(np.abs(np.asarray(module(x), float) - exact).max())
    assert errors[0] <= 2**-8 * np.abs(exact).max()  # one rounding of the result
    assert errors[1] > 0.1


@pytest.mark.parametrize("with_mask", [False, True])
def test_bessels_correction(with_mask):
    module = BatchNorm(3, momentum=0.0, bessel=True, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(0), (7, 3))
    mask = jnp.arange(7)[:, None] < 5 if with_mask else None
    module(x, mask=mask)
    np.testing.assert_allclose(module.var[...], np.asarray(x)[: 5 if with_mask else 7].var(0, ddof=1), rtol=1e-5)


def test_a_named_axis_shares_running_statistics():
    x = jax.random.normal(jax.random.key(0), (4, 6, 3))
    module = BatchNorm(3, axis_name="part", bessel=True, momentum=0.0, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(module)

    def part(x):
        module = nnx.merge(graphdef, nnx.as_pure(state))
        return module(x), nnx.as_pure(nnx.state(module, nnx.BatchStat))

    y, statistics = jax.vmap(part, axis_name="part")(x)
    whole = np.asarray(x).reshape(-1, 3)
    np.testing.assert_allclose(statistics["var"][1], whole.var(0, ddof=1), rtol=1e-5)
    np.testing.assert_allclose(np.asarray(y).reshape(-1, 3), (whole - whole.mean(0)) / whole.std(0), atol=1e-4)


@pytest.mark.parametrize("rows", [slow(17), 7, slow(12)])  # of three devices: 6, 6, 5; 3, 3, 1; and 4 each
def test_devices_share_a_batch_with_padding(double, rows):
    """Output, running statistics and every derivative are those of one device, whatever the padding holds."""
    keys = iter(jax.random.split(jax.random.key(0), 6))
    own = -(-rows // 3)
    shape = (rows, 2, 5)
    x, residual, cotangent = (jax.random.normal(next(keys), shape) for _ in range(3))
    scale, bias = (jax.random.normal(next(keys), (5,)) for _ in range(2))
    junk = 100 * jax.random.normal(next(keys), (3 * own - rows, *shape[1:]))

    def run(scale, bias, x, residual, **settings):
        module = BatchNorm(5, activation="tanh", momentum=0.0, bessel=True, rngs=nnx.Rngs(0), **settings)
        module.scale[...], module.bias[...] = scale, bias
        return module(x, residual=residual), (module.mean[...], module.var[...])

    def on_three(scale, bias, x, residual):
        parts = (jnp.concatenate([array, junk]).reshape(3, own, *shape[1:]) for array in (x, residual))
        part = partial(run, scale, bias, axis_name="part", rows=rows if rows % 3 else None)
        y, statistics = jax.vmap(part, axis_name="part")(*parts)
        return y.reshape(-1, *shape[1:])[:rows], jax.tree.map(lambda array: array[2], statistics)

    expected, pull, statistics = jax.vjp(run, scale, bias, x, residual, has_aux=True)
    found, pull_three, shared = jax.vjp(on_three, scale, bias, x, residual, has_aux=True)
    np.testing.assert_allclose(found, expected, rtol=1e-10, atol=1e-12)
    for one, other in zip(shared, statistics, strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-10)
    for one, other in zip(pull_three(cotangent), pull(cotangent), strict=True):
        np.testing.assert_allclose(one, other, rtol=1e-9, atol=1e-12)


def test_the_modules_own_activation():
    x = jax.random.normal(jax.random.key(0), (9, 5))
    named, plain = BatchNorm(5, activation="relu", rngs=nnx.Rngs(0)), BatchNorm(5, rngs=nnx.Rngs(0))
    np.testing.assert_array_equal(named(x), plain(x, activation=jax.nn.relu))
    np.testing.assert_array_equal(named(x, activation="tanh"), plain(x, activation=jnp.tanh))


def test_a_call_switches_the_modules_activation_off():
    x = jax.random.normal(jax.random.key(0), (9, 5))
    named, plain = BatchNorm(5, activation="relu", rngs=nnx.Rngs(0)), BatchNorm(5, rngs=nnx.Rngs(0))
    for running in (False, True):
        np.testing.assert_array_equal(named(x, running, activation=None), plain(x, running))


def test_the_implementation_is_the_modules(kernel_calls):
    x = jax.random.normal(jax.random.key(0), (9, 5))
    plain = BatchNorm(5, rngs=nnx.Rngs(0))(x)
    assert not kernel_calls
    np.testing.assert_allclose(BatchNorm(5, implementation="pallas_interpret", rngs=nnx.Rngs(0))(x), plain, atol=1e-5)
    assert kernel_calls
    with pytest.raises(ValueError, match="'pallas' needs a GPU or TPU, and the backend here is cpu"):
        BatchNorm(5, implementation="pallas", rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match=r"implementation must be None or one of .*, got 'cuda'"):
        BatchNorm.__init__.__wrapped__(object(), 5, implementation="cuda", rngs=nnx.Rngs(0))


def test_checkpoints_move_both_ways(pair):
    """As bytes: what one module has learned and counted, the other goes on with."""
    ours, theirs = pair
    x = 2 + jax.random.normal(jax.random.key(0), (9, 5))
    for source, target in ((ours, nnx.BatchNorm), (theirs, BatchNorm)):
        source(x)
        saved = serialization.msgpack_serialize(nnx.to_pure_dict(nnx.state(source)))
        restored = target(5, momentum=0.8, epsilon=1e-3, rngs=nnx.Rngs(7))
        state = nnx.state(restored)
        nnx.replace_by_pure_dict(state, jax.tree.map(jnp.asarray, serialization.msgpack_restore(saved)))
        nnx.update(restored, state)
        for module in (source, restored):
            module.eval()
        np.testing.assert_allclose(source(x), restored(x), rtol=1e-5, atol=1e-5)
        for module in (source, restored):
            module.train()
        np.testing.assert_allclose(source(x), restored(x), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(source.var[...], restored.var[...], rtol=1e-5)


def test_a_mode_must_be_chosen():
    module = BatchNorm(5, use_running_average=None, rngs=nnx.Rngs(0))
    with pytest.raises(ValueError, match="use_running_average must be given"):
        module(jnp.ones((3, 5)))
    module(jnp.ones((3, 5)), use_running_average=True)


def test_views_choose_the_mode():
    module = BatchNorm(5, rngs=nnx.Rngs(0))
    assert nnx.view(module, use_running_average=True).use_running_average
    assert not module.use_running_average
    assert "use_running_average" in nnx.view_info(module)

"""MLPs as Flax models, and against the same network written out by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nets import ACTIVATIONS, MLP

X = jax.random.normal(jax.random.key(0), (32, 6))


def mlp(**kwargs):
    settings = {"in_features": 6, "out_features": 3, "depth": 4, "width": 8, "rngs": nnx.Rngs(0)}
    return MLP(**(settings | kwargs))


def by_hand(model, net, norm, order, x):
    """The network layer by layer, in NumPy's float64."""

    def normalize(h, module, layer=None):
        if norm == "none":
            return h
        scale, bias = (np.asarray(v[...], float) if layer is None else np.asarray(v[layer], float)
                       for v in (module.scale, module.bias))  # fmt: skip
        return (h - h.mean(0)) / np.sqrt(h.var(0) + module.epsilon) * scale + bias

    def linear(h, module, layer=None):
        pick = (lambda v: np.asarray(v[...], float)) if layer is None else (lambda v: np.asarray(v[layer], float))
        return h @ pick(module.kernel) + (0 if module.bias is None else pick(module.bias))

    def relu(h):
        return np.maximum(h, 0)

    skip, layers = float(net == "residual"), model.blocks.layers
    h = linear(np.asarray(x, float), model.stem.linear)
    if order == "post":
        h = relu(normalize(h, model.stem.norm))
    for layer in range(model.blocks.depth):
        if order == "post":
            h = relu(normalize(linear(h, layers.linear, layer), layers.norm, layer) + skip * h)
        else:
            h = skip * h + linear(relu(normalize(h, layers.norm, layer)), layers.linear, layer)
    return linear(h if order == "post" else relu(normalize(h, model.head.norm)), model.head.linear)


@pytest.mark.parametrize("net", ["plain", "residual"])
@pytest.mark.parametrize("norm", ["none", "batch"])
@pytest.mark.parametrize("order", ["post", "pre"])
def test_is_the_published_network(net, norm, order):
    model = mlp(net=net, norm=norm, order=order, bias_std=0.5)
    np.testing.assert_allclose(model(X), by_hand(model, net, norm, order, X), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_trains(activation):
    model = mlp(net="residual", norm="batch", activation=activation)
    optimizer = nnx.Optimizer(model, optax.sgd(0.1), wrt=nnx.Param)
    labels = jnp.asarray(np.arange(32) % 3)

    @nnx.jit
    def step(model, optimizer):
        def loss(model):
            return optax.softmax_cross_entropy_with_integer_labels(model(X), labels).mean()

        value, gradients = nnx.value_and_grad(loss)(model)
        optimizer.update(model, gradients)
        return value

    losses = [float(step(model, optimizer)) for _ in range(20)]
    assert losses[-1] < losses[0]


def test_modes_and_state():
    model = mlp(norm="batch")
    before = nnx.state(model, nnx.BatchStat)
    before = jax.tree.map(jnp.copy, before)
    trained = model(X)
    after = nnx.state(model, nnx.BatchStat)
    assert all((a != b).any() for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(before), strict=True))
    model.eval()
    assert (model(X) != trained).any()
    # Equal but for rounding: a product of another shape may be summed in another order.
    np.testing.assert_allclose(model(X)[:5], model(X[:5]), rtol=1e-5, atol=1e-6)
    names = {path[-1] for path, _ in nnx.to_flat_state(nnx.state(model, nnx.Param))}
    assert names == {"kernel", "bias", "scale"}


def test_depth_is_the_number_of_hidden_weight_matrices():
    model = mlp(depth=7)
    assert model.blocks.layers.linear.kernel.shape == (7, 8, 8)
    matrices = model.blocks.layers.linear.kernel[...]
    assert len({float(m[0, 0]) for m in matrices}) == 7


def test_normal_weights_have_the_variance_asked_for():
    model = mlp(width=256, depth=4, weight_std=1.5, bias_std=0.3)
    kernel = np.asarray(model.blocks.layers.linear.kernel[...])
    # The variance of n Gaussian numbers is off by sqrt(2/n); five of those.
    np.testing.assert_allclose(kernel.var() * 256, 1.5**2, rtol=5 * np.sqrt(2 / kernel.size))
    bias = np.asarray(model.blocks.layers.linear.bias[...])
    np.testing.assert_allclose(bias.var(), 0.3**2, rtol=5 * np.sqrt(2 / bias.size))


def test_kinds_norms_and_orders_start_from_the_same_weights():
    def kernels(**kwargs):
        model = mlp(**kwargs)
        return [part.linear.kernel[...] for part in (model.stem, model.blocks.layers, model.head)]

    for change in ({"norm": "batch"}, {"order": "pre"}, {"net": "residual"}, {"norm": "batch", "order": "pre"}):
        jax.tree.map(np.testing.assert_array_equal, kernels(**change), kernels())


def test_a_wide_orthogonal_stem_keeps_the_variance():
    kernel = np.asarray(mlp(width=24, init="orthogonal").stem.linear.kernel[...])
    np.testing.assert_allclose(kernel @ kernel.T, np.eye(6) * 24 / 6, atol=1e-4)


def test_orthogonal_weights_are_orthogonal():
    for matrix in np.asarray(mlp(init="orthogonal", weight_std=2.0).blocks.layers.linear.kernel[...]):
        np.testing.assert_allclose(matrix.T @ matrix, 4 * np.eye(8), atol=1e-4)


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"depth": 0}, "depth must be at least 1, got 0"),
        ({"width": 0}, "width must be at least 1, got 0"),
        ({"activation": "rellu"}, "activation must be one of relu, tanh, gelu, silu, linear, got 'rellu'"),
        ({"norm": "layer"}, "norm must be one of none, batch, got 'layer'"),
    ],
)
def test_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        mlp(**change)

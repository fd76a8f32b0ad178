"""CNNs as published, and against the same network written out twice: in plain JAX and in PyTorch."""

from importlib import import_module
from importlib.util import find_spec

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from jax import lax

from nets import CNN

VARIANTS = [
    {},
    {"net": "plain", "norm": "none", "bias_std": 0.2},
    {"order": "pre", "shortcut": "B"},
    {"shortcut": "B", "norm": "none", "activation": "tanh"},
    {"layout": "isotropic", "depth": 3, "net": "plain"},
    {"depth": 8, "order": "pre", "shortcut": "B"},
]
NAMES = ["post-A", "plain-none", "pre-B", "post-B-none", "isotropic", "shallow"]
FAST = ("shallow", "isotropic")


def parameter_count(model):
    return sum(leaf.size for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)))


@pytest.mark.parametrize(("depth", "count"), [(20, 269_722), (110, 1_727_962)])
def test_as_many_parameters_as_published(depth, count):
    """He et al. 2015, table 6, in millions: 0.27 and 1.7."""
    assert parameter_count(nnx.eval_shape(lambda: CNN(depth, rngs=nnx.Rngs(0)))) == count


def test_by_default_it_is_resnet_20():
    model = nnx.eval_shape(lambda: CNN(rngs=nnx.Rngs(0)))
    assert parameter_count(model) == 269_722
    convolutions = [leaf for leaf in jax.tree.leaves(nnx.state(model, nnx.Param)) if leaf.ndim >= 4]
    assert sum(1 if leaf.ndim == 4 else leaf.shape[0] for leaf in convolutions) == 19
    assert model.block_count == 9


class JaxOps:
    """What the twin below is written in."""

    relu, tanh = staticmethod(jax.nn.relu), staticmethod(jnp.tanh)
    array, pad = staticmethod(jnp.asarray), staticmethod(jnp.pad)

    @staticmethod
    def var(h):
        return h.var((0, 1, 2))

    @staticmethod
    def conv(h, w, stride):
        layout = ("NHWC", "HWIO", "NHWC")
        around = [(size // 2, size // 2) for size in w.shape[:2]]
        return lax.conv_general_dilated(h, w, (stride, stride), around, dimension_numbers=layout)

    @staticmethod
    def loss_and_gradients(loss, arrays):
        return jax.jit(jax.value_and_grad(loss))(arrays)

    @staticmethod
    def cross_entropy(logits, labels):
        return optax.softmax_cross_entropy_with_integer_labels(logits, jnp.asarray(labels)).mean()


class TorchOps:
    """The same in PyTorch, features last."""

    def __init__(self):
        self.torch = import_module("torch")
        self.relu, self.tanh, self.array = self.torch.relu, self.torch.tanh, self.torch.as_tensor

    def pad(self, h, widths):
        return self.torch.nn.functional.pad(h, [n for before, after in reversed(widths) for n in (before, after)])

    def var(self, h):
        return h.var((0, 1, 2), correction=0)

    def conv(self, h, w, stride):
        around = w.shape[0] // 2
        h, w = h.movedim(-1, 1), w.permute(3, 2, 0, 1)
        return self.torch.nn.functional.conv2d(h, w, stride=stride, padding=around).movedim(1, -1)

    def loss_and_gradients(self, loss, arrays):
        leaves = jax.tree.map(lambda a: self.torch.as_tensor(np.array(a)).requires_grad_(), arrays)
        value = loss(leaves)
        value.backward()
        return value.detach().numpy(), jax.tree.map(lambda leaf: leaf.grad.numpy(), leaves)

    def cross_entropy(self, logits, labels):
        return self.torch.nn.functional.cross_entropy(logits, self.torch.as_tensor(np.array(labels, np.int64)))


def written_out(ops, params, x, *, net="residual", norm="batch", order="post", activation="relu", layout="staged"):
    """The logits of the network with these parameters, layer by layer."""
    act, skip = getattr(ops, activation), float(net == "residual")

    def normalize(h, p):
        if norm == "none":
            return h
        return (h - h.mean((0, 1, 2))) / (ops.var(h) + 1e-5) ** 0.5 * p["scale"] + p["bias"]

    def conv(h, p, stride=1):
        return ops.conv(h, p["kernel"], stride) + p.get("bias", 0)

    def block(h, p, stride):
        channels = p["linear2"]["kernel"].shape[-1]
        shortcut = h
        if "shortcut" in p:
            shortcut = conv(h, p["shortcut"]["linear"], stride)
            shortcut = shortcut if order == "pre" else normalize(shortcut, p["shortcut"].get("norm"))
        elif stride > 1:
            shortcut = ops.pad(h[:, ::stride, ::stride], [(0, 0), (0, 0), (0, 0), (0, channels - h.shape[-1])])
        if order == "pre":
            between = conv(act(normalize(h, p.get("norm1"))), p["linear1"], stride)
            return skip * shortcut + conv(act(normalize(between, p.get("norm2"))), p["linear2"])
        between = act(normalize(conv(h, p["linear1"], stride), p.get("norm1")))
        return act(normalize(conv(between, p["linear2"]), p.get("norm2")) + skip * shortcut)

    h = conv(x, params["stem"]["linear"])
    h = act(normalize(h, params["stem"].get("norm"))) if order == "post" else h
    for name in sorted(set(params) - {"stem", "head"}, key=lambda name: (name[-1], name)):  # down2 before stage2
        p = params[name]
        for layer in [p] if "layers" not in p else unstacked(p["layers"]):
            if layout == "isotropic":
                h = act(normalize(conv(h, layer["linear"]), layer.get("norm")) + skip * h)
            else:
                h = block(h, layer, 2 if name.startswith("down") else 1)
    h = h if order == "post" else act(normalize(h, params["head"].get("norm")))
    return h.mean((1, 2)) @ params["head"]["linear"]["kernel"] + params["head"]["linear"]["bias"]


def unstacked(layers):
    return [jax.tree.map(lambda leaf, i=i: leaf[i], layers) for i in range(len(jax.tree.leaves(layers)[0]))]


@pytest.mark.parametrize(
    "variant",
    [
        pytest.param(variant, marks=[] if name in FAST else [pytest.mark.slow], id=name)
        for name, variant in zip(NAMES, VARIANTS, strict=True)
    ],
)
@pytest.mark.parametrize(
    "make_ops",
    [
        JaxOps,
        pytest.param(
            TorchOps,
            marks=[
                pytest.mark.peers,
                pytest.mark.skipif(find_spec("torch") is None, reason="PyTorch is not installed"),
            ],
        ),
    ],
)
def test_is_the_network_written_out(double, make_ops, variant):
    """Logits, loss and the loss's gradients by all parameters, in float64."""
    model = nnx.jit(lambda: CNN(**({"depth": 14, "width": 4} | variant), rngs=nnx.Rngs(0)))()
    x = jnp.asarray(np.random.default_rng(1).normal(size=(6, 10, 8, 3)))
    labels = np.arange(6) % 10
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    params, rest = nnx.as_pure((params, rest))
    pure = nnx.to_pure_dict(params)

    def loss(params):
        logits = nnx.merge(graphdef, params, rest)(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()

    value, gradients = jax.jit(jax.value_and_grad(loss))(params)
    ops = make_ops()
    settings = {k: v for k, v in variant.items() if k in ("net", "norm", "order", "activation", "layout")}
    images = ops.array(np.array(x))

    def twins_loss(arrays):
        return ops.cross_entropy(written_out(ops, arrays, images, **settings), labels)

    expected, expected_gradients = ops.loss_and_gradients(twins_loss, pure)
    np.testing.assert_allclose(value, expected, rtol=1e-10)
    for path, found in jax.tree.leaves_with_path(nnx.to_pure_dict(gradients)):
        twin = expected_gradients
        for entry in path:
            twin = twin[entry.key]
        np.testing.assert_allclose(found, twin, rtol=1e-7, atol=1e-10, err_msg=jax.tree_util.keystr(path))


def test_delta_orthogonal_weights_keep_the_norm_of_every_image(double):
    model = CNN(3, layout="isotropic", norm="none", init="delta-orthogonal", weight_std=1.0, width=6, rngs=nnx.Rngs(0))
    kernel = np.asarray(model.blocks.layers.linear.kernel[0])
    outside = np.delete(kernel.reshape(9, 6, 6), 4, 0)
    assert not outside.any()
    x = jax.random.normal(jax.random.key(0), (2, 5, 7, 6), float)
    y = JaxOps.conv(x, jnp.asarray(kernel), 1)
    np.testing.assert_allclose(jnp.linalg.norm(y), jnp.linalg.norm(x), rtol=1e-12)


@pytest.mark.slow
def test_kinds_norms_orders_and_shortcuts_start_from_the_same_weights():
    def kernels(**kwargs):
        model = nnx.jit(lambda: CNN(14, width=4, **kwargs, rngs=nnx.Rngs(0)))()
        found = nnx.to_flat_state(nnx.state(model, nnx.Param))
        return {path: leaf[...] for path, leaf in found if path[-1] == "kernel" and "shortcut" not in path}

    expected = kernels()
    changes = [
        {"norm": "none"},
        {"order": "pre"},
        {"net": "plain"},
        {"shortcut": "B"},
        {"order": "pre", "norm": "none"},
    ]
    for change in changes:
        found = kernels(**change)
        assert found.keys() == expected.keys()
        for path, kernel in found.items():
            np.testing.assert_array_equal(kernel, expected[path], err_msg=f"{change} {path}")


def test_equal_networks_share_their_programs():
    first, second = (nnx.graphdef(nnx.eval_shape(lambda s=s: CNN(14, width=4, rngs=nnx.Rngs(s)))) for s in (0, 1))
    assert first == second


def test_weights_have_the_variance_asked_for():
    model = nnx.jit(lambda: CNN(8, width=64, weight_std=1.5, rngs=nnx.Rngs(0)))()
    kernel = np.asarray(model.stage1.layers.linear2.kernel[...])
    # The variance of n Gaussian numbers is off by sqrt(2/n); five of those.
    np.testing.assert_allclose(kernel.var() * 9 * 64, 1.5**2, rtol=5 * np.sqrt(2 / kernel.size))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"depth": 21}, r"depth of a staged network must be 6n \+ 2 \(8, 14, 20, ...\), got 21"),
        ({"depth": 2}, "got 2"),
        ({"layout": "unet"}, "layout must be one of staged, isotropic, got 'unet'"),
        ({"shortcut": "C"}, "shortcut must be one of A, B, got 'C'"),
        ({"width": 0}, "width must be at least 1, got 0"),
    ],
)
def test_refuses(change, match):
    with pytest.raises(ValueError, match=match):
        CNN(**change, rngs=nnx.Rngs(0))

"""Gradient and signal probes against the network unrolled layer by layer."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from nets import CNN
from probes import forward_signals, gradient_flow
from tests.probes.networks import DEPTH, LABELS


def layer(network, kernels, i):
    """Block i of the stack as a module of its own, with the weight matrix given."""
    graphdef, state = nnx.split(network.blocks.layers)
    module = nnx.merge(graphdef, jax.tree.map(lambda leaf: leaf[i], nnx.as_pure(state)))
    module.linear.kernel[...] = kernels[i]
    return module


def unrolled_loss(network, x):
    """The loss as a function of offsets to every layer's output and of every weight matrix."""

    def loss(offsets, stem, kernels):
        copy = nnx.clone(network)
        copy.stem.linear.kernel = nnx.Param(stem)
        h = copy.stem(x) + offsets[0]
        for i in range(DEPTH):
            h = layer(network, kernels, i)(h) + offsets[i + 1]
        return optax.softmax_cross_entropy_with_integer_labels(copy.head(h), LABELS).mean()

    return loss


def test_gradient_flow(network, x):
    kernels = [network.blocks.layers.linear.kernel[i] for i in range(DEPTH)]
    offsets = [jnp.zeros((9, 6), float)] * (DEPTH + 1)
    by_output, by_stem, by_kernel = jax.jit(jax.grad(unrolled_loss(network, x), (0, 1, 2)))(
        offsets, network.stem.linear.kernel[...], kernels
    )
    found = jax.jit(lambda x: gradient_flow(network, x, LABELS))(x)
    np.testing.assert_allclose(found.output, [np.square(g).sum() for g in by_output], rtol=1e-10)
    np.testing.assert_allclose(found.weight, [np.square(g).sum() for g in (by_stem, *by_kernel)], rtol=1e-10)


def test_gradient_flow_agrees_with_finite_differences(network, x):
    """A second opinion that trusts no derivative rule: moving along the gradient by t changes the loss by t ‖g‖²."""
    loss = jax.jit(unrolled_loss(network, x))
    kernels = [network.blocks.layers.linear.kernel[i] for i in range(DEPTH)]
    stem = network.stem.linear.kernel[...]
    offsets = [np.zeros((9, 6))] * (DEPTH + 1)
    gradient = np.asarray(jax.jit(jax.grad(loss))(offsets, stem, kernels)[2])
    found = jax.jit(lambda x: gradient_flow(network, x, LABELS))(x)
    t = 1e-5
    ahead, behind = (
        loss([o + s * t * gradient * (i == 2) for i, o in enumerate(offsets)], stem, kernels) for s in (1, -1)
    )
    np.testing.assert_allclose((ahead - behind) / (2 * t), found.output[2], rtol=1e-6)


def test_forward_signals(network, x):
    kernels = network.blocks.layers.linear.kernel[...]

    @jax.jit
    def by_hand(x):
        h = nnx.clone(network).stem(x)
        hidden, before = [h], []
        for i in range(DEPTH):
            before.append(layer(network, kernels, i).preactivation(h))
            hidden.append(h := layer(network, kernels, i)(h))
        return jnp.stack(hidden), before

    hidden, before = by_hand(x)
    hidden = np.asarray(hidden)
    found = jax.jit(lambda x: forward_signals(network, x))(x)
    np.testing.assert_allclose(found.second_moment, (hidden**2).mean((1, 2)), rtol=1e-10)
    np.testing.assert_allclose(found.batch_variance, hidden.var(1).mean(1), rtol=1e-10)
    expected = [np.percentile(z, [15, 50, 85]) for z in before]
    np.testing.assert_allclose(found.percentiles, expected, rtol=1e-10, atol=1e-12)
    expected = [np.percentile(z[:, 0], [15, 50, 85]) for z in before]
    np.testing.assert_allclose(found.unit_percentiles, expected, rtol=1e-10, atol=1e-12)


@pytest.mark.slow
def test_a_cnns_layers_in_order(double):
    """Hidden states of every size: offsets to each, one by one, and moments by channel."""
    network = CNN(14, width=2, rngs=nnx.Rngs(0))
    x = jax.random.normal(jax.random.key(1), (9, 8, 8, 3), float)
    trace = nnx.clone(network).trace(x)
    names = network.section_names[:-1]
    hidden = [np.asarray(h) for name in names for h in trace.outputs[name]]
    assert [h.shape[-1] for h in hidden] == [2, 2, 2, 4, 4, 8, 8]

    def loss(offsets):
        following = iter(offsets)
        shifted = {name: jnp.stack([next(following) for _ in trace.outputs[name]]) for name in names}
        logits = nnx.clone(network).trace(x, shifted).logits
        return optax.softmax_cross_entropy_with_integer_labels(logits, LABELS).mean()

    by_output = jax.jit(jax.grad(loss))([jnp.zeros_like(h) for h in hidden])
    flow = jax.jit(lambda x: gradient_flow(network, x, LABELS))(x)
    signals = jax.jit(lambda x: forward_signals(network, x))(x)
    np.testing.assert_allclose(flow.output, [np.square(g).sum() for g in by_output], rtol=1e-10)
    assert flow.weight.shape == flow.output.shape
    np.testing.assert_allclose(signals.second_moment, [np.square(h).mean() for h in hidden], rtol=1e-10)
    np.testing.assert_allclose(signals.batch_variance, [h.var((0, 1, 2)).mean() for h in hidden], rtol=1e-10)
    before = [z for name in names[1:] for z in trace.before[name]]
    np.testing.assert_allclose(signals.percentiles, [np.percentile(z, (15, 50, 85)) for z in before], rtol=1e-10)
    channel = [np.percentile(z[..., 0], (15, 50, 85)) for z in before]
    np.testing.assert_allclose(signals.unit_percentiles, channel, rtol=1e-10)
    np.testing.assert_allclose(trace.logits, nnx.clone(network)(x), rtol=1e-12)

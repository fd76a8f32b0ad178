"""A second opinion from PyTorch's autograd: a small MLP with batch norm and the same weights, written in its terms."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.flatten_util import ravel_pytree

from nets import MLP
from probes import jacobian
from probes.curvature import curvature_product
from probes.tangent import tangent_kernel

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

LABELS = np.arange(6) % 3


@pytest.fixture
def subject(double):
    network = MLP(4, 3, 2, 5, net="residual", norm="batch", activation="tanh", rngs=nnx.Rngs(0))
    return network, jax.random.normal(jax.random.key(1), (6, 4), float)


def rebuilt(network):
    """Names and shapes of the parameters, the vector of all, and the network as functions of it in PyTorch."""
    parameters = nnx.to_pure_dict(nnx.state(network, nnx.Param))
    flat, _ = ravel_pytree(parameters)
    leaves, structure = jax.tree.flatten(parameters)
    ends = np.cumsum([leaf.size for leaf in leaves])

    def unravel(flat):
        parts = torch.tensor_split(flat, tuple(int(end) for end in ends[:-1]))
        return jax.tree.unflatten(structure, [p.reshape(leaf.shape) for p, leaf in zip(parts, leaves, strict=True)])

    def normalize(z, norm):
        return torch.nn.functional.batch_norm(z, None, None, norm["scale"], norm["bias"], training=True, eps=1e-5)

    def stem(flat, x):
        part = unravel(flat)["stem"]
        return torch.tanh(normalize(x @ part["linear"]["kernel"], part["norm"]))

    def blocks(flat, h):
        layers = unravel(flat)["blocks"]["layers"]
        for i in range(network.block_count):
            norm = {name: value[i] for name, value in layers["norm"].items()}
            h = torch.tanh(normalize(h @ layers["linear"]["kernel"][i], norm) + h)
        return h

    def logits(flat, x):
        linear = unravel(flat)["head"]["linear"]
        return blocks(flat, stem(flat, x)) @ linear["kernel"] + linear["bias"]

    return torch.tensor(np.asarray(flat)), stem, blocks, logits


def test_jacobians(subject):
    network, x = subject
    flat, stem, blocks, logits = rebuilt(network)
    inputs = torch.tensor(np.asarray(x))
    of_blocks = torch.autograd.functional.jacobian(lambda h: blocks(flat, h), stem(flat, inputs))
    found = jax.jit(lambda x: jacobian(network, x, "coupled"))(x)
    np.testing.assert_allclose(found, of_blocks.reshape(30, 30), rtol=1e-9, atol=1e-12)
    of_all = torch.autograd.functional.jacobian(lambda x: logits(flat, x), inputs)
    found = jax.jit(lambda x: jacobian(network, x, "coupled", between=("input", "logits")))(x)
    np.testing.assert_allclose(found, of_all.reshape(18, 24), rtol=1e-9, atol=1e-12)


def test_hessian(subject):
    network, x = subject
    flat, _, _, logits = rebuilt(network)
    inputs, labels = torch.tensor(np.asarray(x)), torch.tensor(LABELS)
    expected = torch.autograd.functional.hessian(
        lambda flat: torch.nn.functional.cross_entropy(logits(flat, inputs), labels), flat
    )

    @jax.jit
    def columns(x):
        apply, parameters = curvature_product(network, x, jax.numpy.asarray(LABELS), "hessian")
        return jax.lax.map(apply, jax.numpy.eye(parameters.size))

    np.testing.assert_allclose(columns(x), expected, rtol=1e-8, atol=1e-10 * float(expected.abs().max()))


def test_tangent_kernel(subject):
    network, x = subject
    flat, _, _, logits = rebuilt(network)
    J = torch.autograd.functional.jacobian(lambda flat: logits(flat, torch.tensor(np.asarray(x))), flat).reshape(18, -1)
    np.testing.assert_allclose(jax.jit(lambda x: tangent_kernel(network, x))(x), J @ J.T, rtol=1e-9, atol=1e-11)

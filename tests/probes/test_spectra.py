"""Spectra against a dense Jacobian of the plain module and NumPy's SVD, in double precision."""

import jax
import numpy as np
import pytest
from flax import nnx

from nets import CNN, MLP
from probes import hidden_map, jacobian, jacobian_spectrum, leading_spectrum


@pytest.fixture(params=["post", "pre"])
def network(request, double):
    return MLP(5, 3, depth=3, width=6, net="residual", norm="batch", order=request.param, rngs=nnx.Rngs(1))


@pytest.fixture
def x(double):
    return jax.random.normal(jax.random.key(2), (7, 5), float)


def singular_values(dense):
    return np.linalg.svd(np.asarray(dense), compute_uv=False)


def test_coupled(network, x):
    first = nnx.clone(network).stem(x)
    dense = jax.jit(jax.jacrev(lambda h: nnx.clone(network).blocks(h)))(first).reshape(42, 42)
    found = jax.jit(lambda x: jacobian_spectrum(network, x, "coupled"))(x)
    np.testing.assert_allclose(found, singular_values(dense), rtol=1e-8, atol=1e-12)


def test_frozen(network, x):
    """Each block written out with the statistics of the batch as constants, differentiated sample by sample."""
    layers = [jax.tree.map(lambda leaf, i=i: leaf[i], nnx.state(network.blocks.layers)) for i in range(3)]
    graphdef = nnx.graphdef(network.blocks.layers)
    pre = network.blocks.layers.activates_first

    def block(layer, h, statistics):
        module = nnx.merge(graphdef, layer)
        mean, std = statistics
        normalize = lambda z: (z - mean) / std * module.norm.scale[...] + module.norm.bias[...]  # noqa: E731
        if pre:
            return h + module.linear(jax.nn.relu(normalize(h)))
        return jax.nn.relu(normalize(module.linear(h)) + h)

    h = first = nnx.clone(network).stem(x)
    statistics = []
    for layer in layers:
        z = h if pre else nnx.merge(graphdef, layer).linear(h)
        statistics.append((z.mean(0), np.sqrt(z.var(0) + 1e-5)))
        h = block(layer, h, statistics[-1])

    def through(h):
        for layer, held in zip(layers, statistics, strict=True):
            h = block(layer, h, held)
        return h

    dense = jax.jit(jax.vmap(jax.jacrev(through)))(first)
    found = jacobian_spectrum(network, x, "frozen")
    for spectrum, matrix in zip(found, dense, strict=True):
        np.testing.assert_allclose(spectrum, singular_values(matrix), rtol=1e-8, atol=1e-12)
    np.testing.assert_array_equal(jacobian_spectrum(network, x, "frozen", samples=2), found[:2])


def test_without_norm_the_readings_agree(double, x):
    network = MLP(5, 3, depth=3, width=6, norm="none", rngs=nnx.Rngs(0))
    coupled = np.sort(jacobian_spectrum(network, x, "coupled"))
    np.testing.assert_allclose(np.sort(np.ravel(jacobian_spectrum(network, x))), coupled, rtol=1e-8, atol=1e-12)


def test_orthogonal_linear_is_an_isometry(double, x):
    network = MLP(5, 3, depth=50, width=6, activation="linear", init="orthogonal", rngs=nnx.Rngs(0))
    np.testing.assert_allclose(jacobian_spectrum(network, x), 1, rtol=1e-10)


def test_what_is_not_finite_is_nan(x):
    network = MLP(5, 3, depth=3, width=6, rngs=nnx.Rngs(0))
    network.blocks.layers.linear.kernel[...] = network.blocks.layers.linear.kernel[...] * np.inf
    assert np.isnan(jacobian_spectrum(network, x)).all()


def test_the_network_is_not_changed(network, x):
    before = jax.tree.map(np.asarray, nnx.to_pure_dict(nnx.state(network)))
    jacobian(network, x, "frozen")
    jacobian(network, x, "coupled")
    jax.tree.map(np.testing.assert_array_equal, nnx.to_pure_dict(nnx.state(network)), before)


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        (("froze", None), "reading must be 'coupled' or 'frozen', got 'froze'"),
        (("frozen", 8), "samples must be between 1 and the batch's 7, got 8"),
    ],
)
def test_refuses(network, x, arguments, match):
    with pytest.raises(ValueError, match=match):
        hidden_map.__wrapped__(network, x, *arguments)


@pytest.fixture(scope="module")
def convolutional():
    with jax.enable_x64(True):
        # 256 values of which 80 steps see few.
        return CNN(14, width=4, rngs=nnx.Rngs(0)), jax.random.normal(jax.random.key(1), (5, 16, 16, 3))


@pytest.mark.slow
@pytest.mark.parametrize("reading", ["frozen", "coupled"])
def test_a_cnns_spectrum_without_its_jacobian(double, convolutional, reading):
    """The 20 largest values against a dense SVD of `jacrev`, and the mean square within its stated error."""
    network, x = convolutional
    samples = 3
    found = jax.jit(lambda x: leading_spectrum(network, x, reading, samples, key=jax.random.key(0)))(x)
    blocks, h = hidden_map(network, x, reading, samples)
    if reading == "coupled":
        dense = jax.jacrev(blocks)(h).reshape(1, -1, h.size)
    else:
        dense = jax.vmap(lambda h: jax.jacrev(lambda h: blocks(h[None])[0])(h))(h).reshape(samples, -1, h[0].size)
    exact = np.linalg.svd(np.asarray(dense), compute_uv=False)
    values, errors = (np.asarray(a).reshape(len(exact), 20) for a in (found.values, found.errors))
    # Relu leaves some samples fewer than 20 that are not 0.
    np.testing.assert_allclose(values, exact[:, :20], rtol=1e-4, atol=1e-12 * exact.max())
    distances = np.abs(values[:, :, None] - exact[:, None]).min(-1)
    assert (distances <= errors + 1e-12 * exact[:, :1]).all()
    # What the rules of all random vectors say of the second moment is what is told of it, and nothing is left out.
    np.testing.assert_allclose(found.weights.sum(-1), 1, rtol=1e-5)
    second = (found.weights * found.nodes**2).sum(-1).mean(-1)
    np.testing.assert_allclose(second, found.mean_square, rtol=1e-5)
    mean_square, error = (np.asarray(a).reshape(-1) for a in (found.mean_square, found.mean_square_error))
    # Student's t with 7 degrees of freedom is beyond 5.4 once in a thousand.
    assert (np.abs(mean_square - np.square(exact).mean(1)) < 5.4 * error).all()
    assert (error < 0.5 * mean_square).all()
    np.testing.assert_allclose(
        np.asarray(jax.jit(lambda x: jacobian_spectrum(network, x, reading, samples))(x)).reshape(exact.shape),
        exact,
        atol=1e-8 * exact.max(),
    )

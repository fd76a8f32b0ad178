"""Partial Jacobians against the product of the layers' own, each by `jacrev`; and what is told of singular values."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nets import CNN, MLP, Stack
from probes import hidden_map, jacobian, jacobian_spectrum, leading_spectrum
from probes.matrixfree import smallest_singular_values, with_transpose
from probes.spectra import condition_number, isometry_distance, smallest_spectrum
from tests.tiers import slow

SAMPLES = 3
KEY = jax.random.key(0)


def taken_apart(network, x, reading):
    """Stem, blocks and head as functions of their own, and the input, hidden states and logits between them.

    Each block of a stack becomes a module of its own. Frozen, each is shown its batch first, whose statistics it keeps.
    """
    modules = []
    for section in network.sections.values():
        if isinstance(section, Stack):
            graphdef, state = nnx.split(section.layers)
            for i in range(section.depth):
                modules.append(nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], nnx.as_pure(state))))
        else:
            modules.append(nnx.clone(section))
    states = [x if reading == "frozen" else x[:SAMPLES]]
    for module in modules:
        module.set_attributes(momentum=0.0, raise_if_not_found=False)
        states.append(module(states[-1]))
        if reading == "frozen":
            module.eval()
    return [lambda h, module=module: nnx.clone(module)(h) for module in modules], states


NETWORKS = {
    "plain": lambda: MLP(5, 4, 3, 6, activation="tanh", bias_std=0.3, rngs=nnx.Rngs(1)),
    "post": lambda: MLP(5, 4, 3, 6, net="residual", norm="batch", rngs=nnx.Rngs(1)),
    "pre": lambda: MLP(5, 4, 3, 6, net="residual", norm="batch", order="pre", rngs=nnx.Rngs(1)),
    "isotropic": lambda: CNN(3, out_features=4, width=2, layout="isotropic", rngs=nnx.Rngs(1)),
    "staged": lambda: CNN(14, out_features=4, width=2, rngs=nnx.Rngs(1)),
}
EVERYWHERE = (("input", "logits"), ("input", 1), (1, 3), (0, "logits"), (2, None))
# With sections of every kind one way is dear enough to compile: from within a stack through resizing blocks.
CASES = [
    pytest.param(name, reading, ways, marks=[] if fast else [pytest.mark.slow], id=f"{name}-{reading}")
    for name, reading, ways, fast in (
        ("plain", "frozen", EVERYWHERE, False),
        ("plain", "coupled", EVERYWHERE, False),
        ("post", "frozen", EVERYWHERE, False),
        ("post", "coupled", EVERYWHERE, True),
        ("pre", "frozen", EVERYWHERE, True),
        ("pre", "coupled", EVERYWHERE, False),
        ("isotropic", "frozen", EVERYWHERE, True),
        ("isotropic", "coupled", EVERYWHERE, False),
        ("staged", "frozen", ((1, "logits"),), False),
    )
]


def batch(network):
    shape = (5,) if isinstance(network, MLP) else (4, 4, 3)
    return jax.random.normal(jax.random.key(2), (7, *shape), float)


@pytest.mark.parametrize(("name", "reading", "ways"), CASES)
def test_between_any_two_layers(double, name, reading, ways):
    network = nnx.jit(NETWORKS[name])()
    x = batch(network)
    layers, states = taken_apart(network, x, reading)
    parts = [slice(None)] if reading == "coupled" else [slice(i, i + 1) for i in range(SAMPLES)]
    places = {"input": 0, 0: 1, 1: 2, 2: 3, 3: 4, None: network.block_count + 1, "logits": network.block_count + 2}
    begin = min(places[first] for first, _ in ways)
    matrices = {}
    for place in range(begin, len(layers)):
        derivative = jax.jit(jax.jacrev(layers[place]))
        matrices[place] = [
            np.asarray(derivative(h)).reshape(-1, h.size) for h in (states[place][rows] for rows in parts)
        ]
    for between in ways:
        found = jax.jit(lambda x, between=between: jacobian(network, x, reading, SAMPLES, between=between))(x)
        for part, matrix in enumerate(np.asarray(found).reshape(len(parts), -1, found.shape[-1])):
            exact = np.eye(matrix.shape[1])
            for place in range(*(places[layer] for layer in between)):
                exact = matrices[place][part] @ exact
            np.testing.assert_allclose(matrix, exact, rtol=1e-9, atol=1e-11 * np.abs(exact).max())


def test_numbers_and_names_of_a_layer_agree(double):
    network = NETWORKS["post"]()
    x = batch(network)
    default, named = (jax.jit(lambda x, s=s: jacobian(network, x, **s))(x) for s in ({}, {"between": (0, 3)}))
    np.testing.assert_array_equal(default, named)


def test_spectra_between_layers(double):
    """Without the Jacobian as with it: of the logits there are fewer values than steps, and all are exact."""
    network = NETWORKS["plain"]()
    x, between = batch(network), (0, "logits")
    exact = jax.jit(lambda x: jacobian_spectrum(network, x, samples=SAMPLES, between=between))(x)
    top = jax.jit(lambda x: leading_spectrum(network, x, samples=SAMPLES, key=KEY, top=5, between=between))(x)
    low = jax.jit(lambda x: smallest_spectrum(network, x, samples=SAMPLES, key=KEY, count=5, between=between))(x)
    assert exact.shape == (SAMPLES, 4)
    np.testing.assert_allclose(top.values[:, :4], exact, rtol=1e-9)
    np.testing.assert_allclose(low.values[:, :4], exact[:, ::-1], rtol=1e-9)
    assert np.isnan(top.values[:, 4]).all()
    assert np.isnan(low.values[:, 4]).all()


def test_networks_at_once_equal_one_by_one(double):
    def spectrum(key, x):
        network = MLP(5, 4, 3, 6, net="residual", norm="batch", rngs=nnx.Rngs(key))
        return jacobian_spectrum(network, x, "coupled", between=("input", 2))

    keys = jax.random.split(jax.random.key(0), 3)
    x = jax.random.normal(jax.random.key(2), (4, 5), float)
    at_once, single = jax.jit(jax.vmap(spectrum, (0, None)))(keys, x), jax.jit(spectrum)
    np.testing.assert_allclose(at_once, [single(key, x) for key in keys], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("between", "match"),
    [
        ((0, 4), "hidden states are numbered 0 to 3, got 4"),
        ((-1, None), "hidden states are numbered 0 to 3, got -1"),
        ((2, 2), "between must name a layer and a later one, got 2 and 2"),
        (("logits", "input"), "between must name a layer and a later one, got 'logits' and 'input'"),
    ],
)
def test_refuses(between, match):
    network = NETWORKS["plain"]()
    x = jnp.ones((2, 5))
    with pytest.raises(ValueError, match=match):
        hidden_map.__wrapped__(network, x, "frozen", between=between)


def linear(matrix):
    return with_transpose(lambda v: matrix @ v, jax.ShapeDtypeStruct(matrix.shape[1:], matrix.dtype))


@partial(jax.jit, static_argnums=(1, 2))
def smallest(matrix, count, steps, key=0):
    return smallest_singular_values(linear(matrix), count, steps, jax.random.key(key))


def gaussian(*shape, key=0):
    return jax.random.normal(jax.random.key(key), shape, float) / np.sqrt(shape[-1])


@pytest.mark.parametrize("shape", [(60, 25), (25, 60)])
def test_the_smallest_are_exact_after_all_steps(double, shape):
    matrix = gaussian(*shape)
    exact = np.linalg.svd(matrix, compute_uv=False)[::-1]
    found, errors = smallest(matrix, 26, 40)
    np.testing.assert_allclose(found[:25], exact, rtol=1e-11)
    np.testing.assert_array_equal(errors[:25], 0)
    assert np.isnan(found[25:]).all()
    assert np.isnan(errors[25:]).all()


@pytest.mark.parametrize("shape", [slow((80, 50)), (50, 50)])
def test_the_smallest_are_within_their_errors_and_from_above(double, shape):
    """Of wide and of square maps, at steps where they have not converged and where some have."""
    matrix = gaussian(*shape)
    exact = np.linalg.svd(matrix, compute_uv=False)[::-1]
    for key in range(4):
        before = np.inf
        for steps in (6, 25, 45):
            found, errors = smallest(matrix, 5, steps, key)
            assert (np.abs(np.subtract.outer(found, exact)).min(1) <= errors + 1e-13).all()
            assert (found >= exact[:5] - 1e-13).all()
            assert found[0] <= before
            before = found[0]
        assert smallest(matrix, 5, 6, key)[1].max() > 1e-3


def test_what_is_not_finite_is_nan():
    found, errors = smallest(gaussian(8, 6).at[3, 2].set(np.nan), 3, 5)
    assert np.isnan(found).all()
    assert np.isnan(errors).all()


def test_refuses_a_count():
    with pytest.raises(ValueError, match="smallest_singular_values: count must be between 1 and the 2 steps, got 3"):
        smallest(gaussian(4, 3), 3, 2)


def test_condition_number_and_isometry_distance(double):
    values = jnp.asarray([[4.0, 2, 1], [3, 3, 3], [1, 0, 0], [0, 0, 0], [1, np.nan, 0]])
    np.testing.assert_allclose(condition_number(values), [4, 1, np.inf, np.inf, np.nan])
    # log 4, log 2 and log 1 are 2, 1 and 0 times log 2, of variance 2/3.
    np.testing.assert_allclose(
        isometry_distance(values), [2 / 3 * np.log(2) ** 2, 0, np.inf, np.inf, np.nan], atol=1e-15
    )


def test_orthogonal_linear_networks_are_isometries(double):
    """From the first hidden state to the last; twice the size is as far from one."""

    @jax.jit
    def spectrum(weight_std):
        network = MLP(5, 4, 3, 6, activation="linear", init="orthogonal", weight_std=weight_std, rngs=nnx.Rngs(0))
        return jacobian_spectrum(network, batch(network))

    for weight_std in (1.0, 2.0):
        values = spectrum(weight_std)
        np.testing.assert_allclose(values, weight_std**3, rtol=1e-10)
        np.testing.assert_allclose(condition_number(values), 1, rtol=1e-10)
        np.testing.assert_allclose(isometry_distance(values), 0, atol=1e-20)

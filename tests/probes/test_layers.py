"""Probes of single layers against the network written out as a list of layers, in double precision."""

from itertools import combinations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from nets import CNN, MLP, Hyperparameter
from probes import branch_share, covariate_shift, gradient_correlation, partial_jacobian_norms, representation
from probes.representation import pairwise_cosine
from tests.probes.networks import DEPTH, LABELS, hidden_states, layers_of, states_of
from tests.tiers import slow


def test_partial_jacobian_norms(network, x):
    """Within its stated error of the dense Jacobians' norms, and that error is the spread over keys."""
    layers = layers_of(network)
    first = hidden_states(layers, x)[0][0]
    exact = []
    for depth in range(DEPTH + 1):
        dense = jax.jacrev(lambda h, n=depth: hidden_states([lambda h: h, *layers[1 : n + 1], lambda h: h], h)[0][-1])
        exact.append(np.square(jax.jit(dense)(first)).sum() / first.size)
    estimate = jax.jit(lambda key: partial_jacobian_norms(network, x, key, vectors=64))
    found = estimate(jax.random.key(0))
    # Five standard errors of 64 tangents: less than once in 10,000.
    assert (np.abs(found.norm - np.asarray(exact)) < 5 * found.error + 1e-12).all()
    many = jax.lax.map(estimate, jax.random.split(jax.random.key(1), 100))
    spread, stated = many.norm.std(0), many.error.mean(0)
    np.testing.assert_allclose(stated, spread, rtol=0.35)
    np.testing.assert_allclose(many.norm.mean(0), exact, rtol=0.02)


def test_the_number_of_tangents_changes_norms_within_their_error(network, x):
    few, many = (
        jax.jit(lambda x, n=n: partial_jacobian_norms(network, x, jax.random.key(n), vectors=n))(x) for n in (16, 256)
    )
    assert (np.abs(few.norm - many.norm) < 5 * np.hypot(few.error, many.error)).all()
    assert (many.error < few.error).all()


def shares_by_hand(network, x):
    layers = layers_of(network)
    hidden, _ = hidden_states(layers, x)
    found = []
    for block, h in zip(layers[1:-1], hidden[:-1], strict=True):
        z = block.norm(block.linear(h)) if not block.activates_first else None
        branch = z if z is not None else block.linear(block.norm(h, activation=block.activation))
        found.append(branch.var(0).mean() / (h + branch).var(0).mean())
    return found


def test_branch_share(network, x):
    found, expected = (jax.jit(lambda x, f=f: f(network, x))(x) for f in (branch_share, shares_by_hand))
    np.testing.assert_allclose(found, expected, rtol=1e-10)


def test_a_plain_net_is_all_branch(double, x):
    np.testing.assert_allclose(branch_share(MLP(5, 3, DEPTH, 6, rngs=nnx.Rngs(0)), x), 1, rtol=1e-12)


@pytest.mark.parametrize(("depth", "blocks"), [(8, 3), slow(14, 6)])
def test_branch_share_of_a_cnn(double, depth, blocks):
    """Blocks that change size: their skip is a shortcut."""
    network = nnx.jit(lambda: CNN(depth, width=2, net="residual", norm="batch", rngs=nnx.Rngs(0)))()
    x = np.random.default_rng(1).normal(size=(5, 8, 8, 3))
    outputs = nnx.jit(lambda network, x: network.trace(x).outputs)(network, x)
    shares = jax.jit(lambda x: branch_share(network, x))(x)
    assert shares.shape == (blocks,)
    # The first block of a stage stands alone in its section.
    name = next(name for name, section in network.hidden.items() if hasattr(section, "shortcut") and section.shortcut)
    names = list(network.section_names)
    h = outputs[names[names.index(name) - 1]][-1]
    block = network.sections[name]
    with_skip, without = nnx.clone(block), nnx.clone(block)
    nnx.update(without, jax.tree.map(np.zeros_like, nnx.state(without, Hyperparameter)))
    branch, whole = (np.asarray(nnx.jit(lambda block, h: block.preactivation(h))(b, h)) for b in (without, with_skip))
    expected = branch.var((0, 1, 2)).mean() / whole.var((0, 1, 2)).mean()
    place = [n for n in names[1:-1] for _ in outputs[n]].index(name)
    np.testing.assert_allclose(shares[place], expected, rtol=1e-10)


def test_representation(network, x):
    found = jax.jit(lambda x: representation(network, x))(x)
    hidden, _ = jax.jit(lambda x: hidden_states(layers_of(network), x))(x)
    for layer, h in enumerate(np.asarray(hidden)):
        values = np.linalg.svd(h, compute_uv=False)
        shares = values / values.sum()
        rank = np.exp(-(shares * np.log(shares, where=shares > 0, out=np.zeros_like(shares))).sum())
        np.testing.assert_allclose(found.effective_rank[layer], rank, rtol=1e-8)
        np.testing.assert_allclose(found.correlation[layer], mean_cosine(h), rtol=1e-10)


def mean_cosine(rows):
    pairs = combinations(rows, 2)
    return np.mean([a @ b / max(np.linalg.norm(a) * np.linalg.norm(b), 1e-300) for a, b in pairs])


def test_ranks_at_the_ends(double):
    """One direction has rank 1 and correlation 1; a network that is an isometry keeps what it is given."""
    network = MLP(6, 3, 3, 6, activation="linear", init="orthogonal", rngs=nnx.Rngs(0))
    measure = jax.jit(lambda x: representation(network, x))
    found = measure(np.outer(np.arange(1.0, 7), np.ones(6)))
    np.testing.assert_allclose(found.effective_rank, 1, rtol=1e-6)
    np.testing.assert_allclose(found.correlation, 1, rtol=1e-10)
    found = measure(np.eye(6))
    np.testing.assert_allclose(found.effective_rank, 6, rtol=1e-10)
    np.testing.assert_allclose(found.correlation, 0, atol=1e-12)


def test_cosines_of_rows_whose_squares_leave_the_range():
    rows = jnp.asarray([[3e-30, 4e-30], [3e30, 4e30], [0, 0]])
    np.testing.assert_allclose(pairwise_cosine(rows), 1 / 3, rtol=1e-6)


def test_what_is_not_finite_has_no_rank(x):
    network = MLP(5, 3, 2, 6, rngs=nnx.Rngs(0))
    network.blocks.layers.linear.kernel[...] = network.blocks.layers.linear.kernel[...] * np.inf
    assert np.isnan(representation(network, x).effective_rank[1:]).all()


def test_gradient_correlation(network, x):
    """With the batch's statistics as constants: each layer's running ones after a pass that keeps nothing older."""
    key, held = jax.random.key(3), nnx.clone(network)
    held.set_attributes(momentum=0.0, raise_if_not_found=False)
    held(x)
    held.eval()
    layers = layers_of(held)
    hidden, logits = hidden_states(layers, x)
    direction = jax.random.normal(key, logits.shape[1:], float)
    found = jax.jit(lambda x: gradient_correlation(network, x, key))(x)
    for layer, h in enumerate(hidden):
        rest = layers[layer + 1 :]
        gradient = jax.jit(jax.grad(lambda h, rest=rest: (hidden_states(rest, h)[1] * direction).sum()))(h)
        np.testing.assert_allclose(found[layer], mean_cosine(np.asarray(gradient)), rtol=1e-8, atol=1e-12)


def test_covariate_shift_by_stepping_layers_one_by_one(network, x):
    """Every earlier layer really takes its step, all its parameters; layer l's weights and later ones do not."""
    rate = 0.3
    layers = layers_of(network)
    params, loss = states_of(layers)
    gradient = jax.jit(jax.grad(loss))
    gradients = gradient(params, x, LABELS)
    found = jax.jit(lambda x: covariate_shift(network, x, LABELS, rate))(x)

    def weights(gradient):
        return np.concatenate([np.ravel(leaf) for leaf in jax.tree.leaves(gradient) if leaf.ndim == 2])

    for layer in range(DEPTH + 1):
        moved = [
            jax.tree.map(lambda p, g: np.asarray(p) - rate * np.asarray(g), p, g) if i < layer else p
            for i, (p, g) in enumerate(zip(params, gradients, strict=True))
        ]
        before, after = weights(gradients[layer]), weights(gradient(moved, x, LABELS)[layer])
        np.testing.assert_allclose(found.distance[layer], np.linalg.norm(before - after), rtol=1e-9, atol=1e-14)
        cosine = before @ after / np.linalg.norm(before) / np.linalg.norm(after)
        np.testing.assert_allclose(found.cosine[layer], cosine, rtol=1e-9)
    assert found.distance[0] == 0
    assert (found.distance[1:] > 1e-4).all()

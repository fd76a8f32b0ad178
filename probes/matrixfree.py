"""Singular values of a linear map that is never formed: the largest, the smallest, and the density of all of them.

Golub-Kahan bidiagonalization, `A V = U B`, `Aᵀ U = V Bᵀ + β v_next e_lastᵀ`, with full reorthogonalization, from a unit
start vector of uniform direction in the smaller of the map's two spaces. The singular values of the bidiagonal `B`
approximate the map's, the outermost first; weighted by the squared first components of B's right singular vectors they
are a Gauss quadrature of the start vector's spectral measure. A run costs `steps + 1` products with A, `steps` with Aᵀ
and O(steps² (rows + columns)) to stay orthogonal; it keeps `steps (rows + columns)` numbers.

A start vector holds one direction of each eigenspace of AᵀA: on a map of few distinct singular values the recurrence
ends early, with 0 / 0. Here it goes on into what it has not seen, as after a restart, because a random diagonal of a
rounding error's size is added to the map. By Weyl's inequality it moves no singular value by more than `GRAIN` machine
epsilons of |A start|, about their root mean square. (It can still be absorbed: a few keys in a thousand give NaN for an
exact permutation of two to four entries, none of 20000 for one of five or more.)

Source: Golub and Kahan 1965, section 3; Golub and Meurant 2010, chapters 4 and 6; Björck 1996, section 7.6.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray
from matfree.decomp import bidiag

from kernels.linalg import svd

GRAIN = 16

Apply = Callable[[Array], Array]


class LinearMap(NamedTuple):
    """A real linear map of arrays of any shapes: `push` is `v -> A v`, `pull` is `u -> Aᵀ u`, `domain` is like v."""

    push: Apply
    pull: Apply
    domain: jax.ShapeDtypeStruct


class Density(NamedTuple):
    """For every probe a Gauss rule: singular values, largest first, and weights that sum to 1."""

    nodes: Float[Array, "probes steps"]
    weights: Float[Array, "probes steps"]


def with_transpose(push: Apply, example: Array | jax.ShapeDtypeStruct) -> LinearMap:
    """The map `push`, linear in arrays like `example`, transposed by JAX."""
    domain = jax.ShapeDtypeStruct(example.shape, example.dtype)
    transposed = jax.linear_transpose(push, domain)
    return LinearMap(push, lambda u: transposed(u)[0], domain)


def derivative(function: Apply, x: Array) -> LinearMap:
    """The Jacobian of `function` at `x`. Cost: one forward pass, of which both directions use what it kept."""
    return with_transpose(jax.linearize(function, x)[1], x)


def top_singular_values(
    linear: LinearMap, count: int, steps: int, key: PRNGKeyArray
) -> tuple[Float[Array, " count"], Float[Array, " count"]]:
    """The largest singular values of a map, and how far each may be from a true one.

    The Ritz vectors `x = U p`, `y = V q` of a singular value θ of `B` have `A y = θ x` and `|Aᵀ x - θ y| = β |p_last|`:
    some singular value of `A` is within `β |p_last|` of θ, which is the error returned (rounding, a few epsilons of the
    largest value, comes on top). The distance itself falls with its square once neighbours are told apart. It does not
    promise that none was missed: before convergence, where the start vector holds hardly anything of a singular vector
    or not all copies of a repeated value are found yet, the k-th value is a lower one's. More steps find them.

    Args:
      linear: the map, of `rows` outputs and `columns` inputs in all.
      count: how many; no more than `steps`.
      steps: of the recurrence; after `min(rows, columns)` it stops and is exact.
      key: draws the start vector.

    Returns:
      Values, largest first, and errors. Beyond the map's rank both are 0 to rounding, and of the zero map exactly; NaN
      beyond `min(rows, columns)`, where there is no singular value, and everywhere if the map is not finite.

    Raises:
      ValueError: a count that is not between 1 and `steps`, or a pull that does not give what push takes.
    Source: Golub and Kahan 1965, section 3; the bound is that of AᵀA's residual, Saad 2011, section 3.2.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"top_singular_values: count must be between 1 and the {steps} steps, got {count}")
    values, errors, _ = _ritz(linear, steps, key)
    return _padded(values, count), _padded(errors, count)


def smallest_singular_values(
    linear: LinearMap, count: int, steps: int, key: PRNGKeyArray
) -> tuple[Float[Array, " count"], Float[Array, " count"]]:
    """The smallest singular values the recurrence has seen, and how far each may be from a true one.

    Errors are those of `top_singular_values`: a true value is within `β |p_last|` of each, as of a Ritz value anywhere
    in the spectrum. The smallest come last: AᵀA's small eigenvalues lie close together relative to its range, and
    values far below the largest are found only when nearly all steps are taken. Before that each is an upper bound:
    the k-th smallest Ritz value is never below the k-th smallest singular value, up to rounding. After `min(rows,
    columns)` steps all are exact to a few epsilons of |A start|, which is all that is known of smaller ones.

    Arguments, cost, what is NaN and errors raised are those of `top_singular_values`.

    Returns:
      Values, smallest first, and errors; of the `min(rows, columns)` singular values, without the zeros that AᵀA or AAᵀ
      has because the map is not square.
    Source: Golub and Kahan 1965, section 3; Saad 2011, sections 3.2 and 6.7 (convergence, interlacing).
    """
    if not 1 <= count <= steps:
        raise ValueError(f"smallest_singular_values: count must be between 1 and the {steps} steps, got {count}")
    values, errors, _ = _ritz(linear, steps, key)
    return _padded(values[::-1], count), _padded(errors[::-1], count)


def spectral_density(linear: LinearMap, probes: int, steps: int, key: PRNGKeyArray) -> Density:
    """The density of a map's singular values by stochastic Lanczos quadrature, `steps` nodes a probe, or all if fewer.

    All `min(rows, columns)` of them count, each once, as in `jacobian_spectrum`; the zeros that AᵀA or AAᵀ has because
    the map is not square do not. Start vectors are normalized Gaussians, whose errors depend on the spectrum alone;
    those of random signs depend on its basis, and are often orthogonal to a constant singular vector.

    Cost: `probes` runs, one at a time; map over keys for more at once. NaN if the map is not finite.

    Raises:
      ValueError: probes or steps below 1, or a pull that does not give what push takes.
    Source: Ubaru, Chen and Saad 2017.
    """
    if min(probes, steps) < 1:
        raise ValueError(f"spectral_density: probes and steps must be at least 1, got {probes} and {steps}")
    nodes, _, weights = lax.map(lambda key: _ritz(linear, steps, key), jax.random.split(key, probes))
    return Density(nodes, weights)


def spectral_moment(density: Density, power: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of `λ^power` over the squared singular values λ, and its standard error (NaN of one probe).

    Rules of m steps are exact to degree 2m - 1 in λ: for `power < 2 steps` the mean is unbiased and chance is its only
    error, of variance `2 / (n + 2) Var(λ^power) / probes` over the n values; it is estimated from the probes' spread.
    """
    each = (density.weights * density.nodes ** (2 * power)).sum(1)
    return each.mean(), each.std(ddof=1) / jnp.sqrt(len(each))


def spectral_quantile(
    density: Density, level: float | Float[Array, ""]
) -> tuple[Float[Array, ""], Float[Array, ""], Float[Array, ""]]:
    """A quantile of the singular values: what the probes' mean measure allows at least, an estimate, and at most.

    What a start vector's measure has below a node is between the weights before that node and those up to it
    (Chebyshev, Markov, Stieltjes): the ends are the quantiles with every weight moved to the node before, from the
    first to 0, and to the node after, from the last to infinity. Not in the interval: the measure is itself a sample,
    whose distribution function F has variance `2 / (n + 2) F (1 - F) / probes` about that of the n singular values.
    Values far below the largest are not told apart: there the interval is wide, and the estimate says nothing.

    Source: Szegő 1939, section 3.41; Chen, Trogdon and Ubaru 2021.
    """
    nodes, weights = density.nodes[:, ::-1], density.weights[:, ::-1] / len(density.weights)
    before = jnp.pad(nodes[:, :-1], ((0, 0), (1, 0)))
    after = jnp.pad(nodes[:, 1:], ((0, 0), (0, 1)), constant_values=jnp.inf)

    def quantile(places: Array) -> Array:
        order = jnp.argsort(places.ravel())
        index = jnp.searchsorted(jnp.cumsum(weights.ravel()[order]), level)
        return jnp.where(jnp.isnan(nodes).any(), jnp.nan, places.ravel()[order][index.clip(max=places.size - 1)])

    return quantile(before), quantile(nodes), quantile(after)


def _padded(values: Array, count: int) -> Array:
    """The first `count` values, NaN where there are fewer."""
    return jnp.pad(values[:count], (0, max(0, count - len(values))), constant_values=jnp.nan)


def _ritz(linear: LinearMap, steps: int, key: Array) -> tuple[Array, Array, Array]:
    """Ritz values, largest first, their errors, and their weights in the start vector."""
    push, pull, columns = _flat(linear)
    steps = min(steps, columns)
    out = jnp.promote_types(linear.domain.dtype, jnp.float32)
    dtype = jnp.result_type(float)  # what matfree keeps its vectors in
    start_key, grain_key = jax.random.split(key)
    start = jax.random.normal(start_key, (columns,), dtype)
    start /= jnp.linalg.norm(start)
    # Squares of a vanishing or exploding map's products leave the range of floats: the recurrence sees a map of size 1.
    image = push(start)
    largest = jnp.abs(image).max()
    scale = largest * jnp.linalg.norm(image / jnp.where(largest == 0, 1, largest))
    divisor = jnp.where(scale == 0, 1, scale)
    grain = GRAIN * jnp.finfo(dtype).eps * jax.random.uniform(grain_key, (columns,), dtype, -1, 1)

    def forward(v: Array) -> Array:
        return (push(v) / divisor).at[:columns].add(grain * v)

    def backward(u: Array) -> Array:
        return pull(u) / divisor + grain * u[:columns]

    # matfree transposes by `jax.vjp`; this hands it the transpose there is.
    apply = jax.custom_vjp(forward)
    apply.defvjp(lambda v: (forward(v), None), lambda _, u: (backward(u),))
    # Where float32 products are rounded to fewer bits by default, bases would not come out orthogonal.
    with jax.default_matmul_precision("highest"):
        found = bidiag(steps, materialize=False)(apply, start)
    diagonal, above = found.J_small
    bidiagonal = jnp.diag(diagonal) + jnp.diag(above, 1)
    # All of the smaller space is spanned: what is left is rounding, or matfree's 0 / 0.
    coupling = jnp.linalg.norm(found.residual) if steps < columns else jnp.zeros((), dtype)
    finite = jnp.isfinite(bidiagonal).all() & jnp.isfinite(coupling)
    left, values, right = svd(jnp.where(finite, bidiagonal, 0))
    defined = finite | (scale == 0)
    results = (scale * values, scale * coupling * jnp.abs(left[-1]), jnp.square(right[:, 0]))
    values, errors, weights = (jnp.where(defined, x, jnp.nan).astype(out) for x in results)
    return values, errors, weights


def _flat(linear: LinearMap) -> tuple[Apply, Apply, int]:
    """Push and pull of the map, or of its transpose where that has fewer columns, on vectors; columns."""
    image = jax.eval_shape(linear.push, linear.domain)
    back = jax.eval_shape(linear.pull, image)
    if back.shape != linear.domain.shape:
        raise ValueError(f"LinearMap: pull must give push's inputs' shape {linear.domain.shape}, got {back.shape}")

    def on_vectors(apply: Apply, source: jax.ShapeDtypeStruct) -> Apply:
        return lambda v: apply(v.reshape(source.shape).astype(source.dtype)).ravel().astype(float)

    push, pull = on_vectors(linear.push, linear.domain), on_vectors(linear.pull, image)
    return (push, pull, linear.domain.size) if image.size >= linear.domain.size else (pull, push, image.size)

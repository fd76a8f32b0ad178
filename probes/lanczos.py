"""Eigenvalues of a symmetric map that is never formed: the outermost ones, and the density of all of them.

Lanczos' tridiagonalization, `A Q = Q T + β q_next e_lastᵀ`, with full reorthogonalization, from a unit start vector of
uniform direction. The eigenvalues θ of the tridiagonal `T`, of eigenvectors s, approximate the map's, the outermost
first; weighted by the squared first components of the s they are a Gauss quadrature of the start vector's spectral
measure. A run costs `steps + 1` products with A and O(steps² n) to stay orthogonal; it keeps `steps n` numbers.

A start vector holds one direction of each eigenspace: on a map of few distinct eigenvalues the recurrence ends early,
with 0 / 0. As in `probes.matrixfree` a random diagonal of `GRAIN` machine epsilons of |A start|, about the eigenvalues'
root mean square, keeps it going; by Weyl's inequality no eigenvalue moves by more.

Source: Lanczos 1950; Golub and Meurant 2010, chapters 4 and 6; Saad 2011, section 6.6.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PRNGKeyArray
from matfree.decomp import tridiag_sym

from kernels.linalg import eigh
from probes.matrixfree import GRAIN, Apply


class ExtremeEigenvalues(NamedTuple):
    """Both ends of a spectrum; some true eigenvalue lies within its error of each, up to rounding.

    Attributes:
      largest, largest_errors: largest first.
      smallest, smallest_errors: smallest (of an indefinite map: most negative) first.
    """

    largest: Float[Array, " count"]
    largest_errors: Float[Array, " count"]
    smallest: Float[Array, " count"]
    smallest_errors: Float[Array, " count"]


class EigenvalueDensity(NamedTuple):
    """For every start vector a Gauss rule: eigenvalues, largest first, and weights that sum to 1."""

    nodes: Float[Array, "vectors steps"]
    weights: Float[Array, "vectors steps"]


def extreme_eigenvalues(
    apply: Apply, example: Array | jax.ShapeDtypeStruct, count: int, steps: int, key: PRNGKeyArray
) -> ExtremeEigenvalues:
    """The largest and the smallest eigenvalues of a symmetric map, and how far each may be from a true one.

    The Ritz vector `x = Q s` of an eigenvalue θ of `T` has `|A x - θ x| = β |s_last|`: some eigenvalue of `A` is within
    that of θ. It does not promise that none was missed: before convergence the k-th value may be a later one's, and the
    largest found is never above the largest there is, nor the smallest below, up to rounding. More steps find them.

    Args:
      apply: the map `v -> A v`, symmetric, of arrays like `example` to the same; nobody checks that it is.
      example: an array, or the shape and dtype of one, of n entries.
      count: how many at each end; no more than `steps`. The ends overlap where they are more than half of the values.
      steps: of the recurrence; after n it stops and is exact.
      key: draws the start vector.

    Returns:
      Values and errors. NaN beyond n, where there is no eigenvalue, and everywhere if the map is not finite; of the
      zero map 0.

    Raises:
      ValueError: a count that is not between 1 and `steps`.
    Source: Lanczos 1950; the bound is that of Saad 2011, section 3.2.
    """
    if not 1 <= count <= steps:
        raise ValueError(f"extreme_eigenvalues: count must be between 1 and the {steps} steps, got {count}")
    values, errors, _ = _ritz(apply, example, steps, key)
    missing = (0, max(0, count - len(values)))
    ends = (values, errors, values[::-1], errors[::-1])
    return ExtremeEigenvalues(*(jnp.pad(end[:count], missing, constant_values=jnp.nan) for end in ends))


def eigenvalue_density(
    apply: Apply, example: Array | jax.ShapeDtypeStruct, vectors: int, steps: int, key: PRNGKeyArray
) -> EigenvalueDensity:
    """The density of a symmetric map's eigenvalues by stochastic Lanczos quadrature, `steps` nodes a vector, or n.

    The mean over vectors of `Σ_i weight_i f(node_i)` estimates the mean of f over all n eigenvalues; start vectors are
    normalized Gaussians. A histogram of the nodes by weight, or their sum of Gaussians as Ghorbani et al. draw it, is
    the density. `apply` and `example` are those of `extreme_eigenvalues`.

    Cost: `vectors` runs, one at a time. NaN if the map is not finite.

    Raises:
      ValueError: vectors or steps below 1.
    Source: Ubaru, Chen and Saad 2017; of Hessians Papyan 2018; Ghorbani et al. 2019; Yao et al. 2020.
    """
    if min(vectors, steps) < 1:
        raise ValueError(f"eigenvalue_density: vectors and steps must be at least 1, got {vectors} and {steps}")
    nodes, _, weights = lax.map(lambda key: _ritz(apply, example, steps, key), jax.random.split(key, vectors))
    return EigenvalueDensity(nodes, weights)


def eigenvalue_moment(density: EigenvalueDensity, power: int) -> tuple[Float[Array, ""], Float[Array, ""]]:
    """The mean of `θ^power` over the n eigenvalues, and its standard error (NaN of one vector).

    For `power < 2 steps` the rules are exact for their vectors: the mean is unbiased, and its variance is
    `2 / (n + 2) Var(θ^power) / vectors`, estimated from the vectors' spread. n times the first is the trace (Hutchinson
    1990, of Gaussians of one length).
    """
    each = (density.weights * density.nodes**power).sum(1)
    return each.mean(), each.std(ddof=1) / jnp.sqrt(len(each))


def _ritz(apply: Apply, example: Array | jax.ShapeDtypeStruct, steps: int, key: Array) -> tuple[Array, Array, Array]:
    """Ritz values, largest first, their errors, and their weights in the start vector."""
    size = example.size
    steps = min(steps, size)
    out = jnp.promote_types(example.dtype, jnp.float32)
    dtype = jnp.result_type(float)

    def on_vector(v: Array) -> Array:
        return apply(v.reshape(example.shape).astype(example.dtype)).ravel().astype(dtype)

    start_key, grain_key = jax.random.split(key)
    start = jax.random.normal(start_key, (size,), dtype)
    start /= jnp.linalg.norm(start)
    # Squares of a vanishing or exploding map's products leave the range of floats: the recurrence sees a map of size 1.
    image = on_vector(start)
    largest = jnp.abs(image).max()
    scale = largest * jnp.linalg.norm(image / jnp.where(largest == 0, 1, largest))
    divisor = jnp.where(scale == 0, 1, scale)
    grain = GRAIN * jnp.finfo(dtype).eps * jax.random.uniform(grain_key, (size,), dtype, -1, 1)
    # Nobody differentiates this: matfree's own derivative rule would only make every array of the map an argument.
    tridiagonalize = tridiag_sym(steps, materialize=False, custom_vjp=False)
    # Where float32 products are rounded to fewer bits by default, bases would not come out orthogonal.
    with jax.default_matmul_precision("highest"):
        found = tridiagonalize(lambda v: on_vector(v) / divisor + grain * v, start)
    diagonal, beside = found.J_small
    tridiagonal = jnp.diag(diagonal) + jnp.diag(beside, 1) + jnp.diag(beside, -1)
    # Of the whole space nothing is left: what there is is rounding, or matfree's 0 / 0.
    coupling = jnp.linalg.norm(found.residual) if steps < size else jnp.zeros((), dtype)
    finite = jnp.isfinite(tridiagonal).all() & jnp.isfinite(coupling)
    values, vectors = eigh(jnp.where(finite, tridiagonal, 0))
    defined = finite | (scale == 0)
    results = (scale * values, scale * coupling * jnp.abs(vectors[-1]), jnp.square(vectors[0]))
    values, errors, weights = (jnp.where(defined, x, jnp.nan).astype(out)[::-1] for x in results)
    return values, errors, weights

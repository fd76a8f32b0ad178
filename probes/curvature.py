"""How the loss curves in the space of all parameters: the Hessian's or the Gauss-Newton matrix's eigenvalues.

Neither matrix, of parameters², is formed: products with one vector at a time are all that Lanczos' recurrence asks for.
"""

from typing import Literal, NamedTuple

import jax
import optax
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from nets import Network
from probes.lanczos import eigenvalue_density, eigenvalue_moment, extreme_eigenvalues
from probes.matrixfree import Apply
from probes.network import Inputs, Labels
from probes.parameters import logits_by_parameters

Matrix = Literal["hessian", "gauss_newton"]

# Eigenvalues told by default, and the steps and random vectors they take.
TOP = 4
STEPS = 40
VECTORS = 8


class LossCurvature(NamedTuple):
    """What products with a curvature matrix tell of its eigenvalues, in units of loss over squared parameter.

    Attributes:
      top: the largest ones, largest first; NaN beyond the number of parameters.
      top_errors: a true one lies within this of each, up to the rounding of the products.
      smallest: the smallest one, of a Hessian its most negative curvature.
      smallest_error: as the others'.
      nodes, weights: for every random vector a Gauss rule of the density of all, see `probes.lanczos`.
      trace: estimate of the sum of all.
      trace_error: its standard error, over random vectors; NaN of one vector.
    """

    top: Float[Array, " top"]
    top_errors: Float[Array, " top"]
    smallest: Float[Array, ""]
    smallest_error: Float[Array, ""]
    nodes: Float[Array, "vectors steps"]
    weights: Float[Array, "vectors steps"]
    trace: Float[Array, ""]
    trace_error: Float[Array, ""]


def loss_curvature(
    network: Network,
    x: Inputs,
    labels: Labels,
    key: PRNGKeyArray,
    *,
    matrix: Matrix = "hessian",
    top: int = TOP,
    steps: int = STEPS,
    vectors: int = VECTORS,
) -> LossCurvature:
    """Eigenvalues of the second derivative of the batch's mean cross-entropy by all parameters.

    `hessian` is `∂²L/∂θ²`; `gauss_newton` its part `Jᵀ H J` that has no curvature of the network itself, J the logits'
    derivative and H the loss's second one by them, `(diag(p) - p pᵀ) / batch` of softmax p: positive semidefinite, and
    the Fisher information of the model's own labels. Batch norm is in training mode, its statistics differentiated.

    Cost: `(vectors + 1)(steps + 1)` products, one at a time, each of about two gradients (hessian), or one forward and
    one backward derivative after one forward pass (gauss_newton). Keeps `steps` vectors of all parameters.

    Args:
      network: not changed.
      x, labels: the batch; the Gauss-Newton matrix does not depend on the labels.
      key: draws the start vectors.
      matrix: which of the two.
      top: how many of the largest; no more than `steps`.
      steps: of the recurrence, for both the extremes and the density.
      vectors: random vectors that density and trace are estimated from.

    Raises:
      ValueError: an unknown matrix, top not between 1 and `steps`, or vectors below 1.
    Source: Pearlmutter 1994 (products); Schraudolph 2002 (Gauss-Newton); Papyan 2018; Ghorbani et al. 2019; Yao et al.
      2020 (density and trace).
    """
    apply, parameters = curvature_product(network, x, labels, matrix)
    for_extremes, for_density = jax.random.split(key)
    ends = extreme_eigenvalues(apply, parameters, top, steps, for_extremes)
    density = eigenvalue_density(apply, parameters, vectors, steps, for_density)
    mean, error = eigenvalue_moment(density, 1)
    return LossCurvature(
        top=ends.largest,
        top_errors=ends.largest_errors,
        smallest=ends.smallest[0],
        smallest_error=ends.smallest_errors[0],
        nodes=density.nodes,
        weights=density.weights,
        trace=mean * parameters.size,
        trace_error=error * parameters.size,
    )


def curvature_product(
    network: Network, x: Inputs, labels: Labels, matrix: Matrix
) -> tuple[Apply, Float[Array, " parameters"]]:
    """The product `v -> C v` of a curvature matrix of `loss_curvature` with a vector, and the parameters as a vector.

    Hessian by forward-over-reverse differentiation, Gauss-Newton by a forward derivative and its transpose. Cost and
    errors are those stated there.
    """
    logits, parameters = logits_by_parameters(network, x)
    if matrix == "hessian":

        def loss(parameters: Array) -> Array:
            return optax.softmax_cross_entropy_with_integer_labels(logits(parameters), labels).mean()

        return lambda v: jax.jvp(jax.grad(loss), (parameters,), (v,))[1], parameters
    if matrix == "gauss_newton":
        y, push = jax.linearize(logits, parameters)
        pull = jax.linear_transpose(push, parameters)
        p = jax.nn.softmax(y)

        def apply(v: Array) -> Array:
            u = push(v)
            return pull(p * (u - (p * u).sum(-1, keepdims=True)) / len(p))[0]

        return apply, parameters
    raise ValueError(f"loss_curvature: matrix must be 'hessian' or 'gauss_newton', got {matrix!r}")

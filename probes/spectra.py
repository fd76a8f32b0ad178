"""Singular values of a layer's Jacobian by an earlier layer: all of them, or what can be had without forming it.

By default it is that of the last hidden state by the first. The two readings of it are those of `probes.hiddenmap`.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, PRNGKeyArray

from kernels.linalg import singular_values
from nets import Network
from probes.hiddenmap import BLOCKS, Layer, Reading, hidden_map
from probes.matrixfree import (
    derivative,
    smallest_singular_values,
    spectral_density,
    spectral_moment,
    top_singular_values,
)
from probes.network import Inputs

# What a matrix-free spectrum tells by default: so many largest values, from so many steps; the density from so many
# random vectors, and so many nodes each. 20 values of a Jacobian of 20 layers have converged to 1e-4 by then.
TOP = 20
_STEPS = 80
VECTORS = 8
NODES = 6

Spectrum = TypeVar("Spectrum")


class LeadingSpectrum(NamedTuple):
    """What products with a Jacobian tell of its singular values σ, one entry a matrix.

    Attributes:
      values: the largest ones, largest first; NaN where there are fewer.
      errors: a true one lies within this of each, up to the rounding of the products.
      mean_square: mean of σ² over all of them.
      mean_square_error: its standard error, over random vectors.
      nodes, weights: for every random vector a Gauss rule of the density of all, see `probes.matrixfree`.
    """

    values: Float[Array, "*samples top"]
    errors: Float[Array, "*samples top"]
    mean_square: Float[Array, "*samples"]
    mean_square_error: Float[Array, "*samples"]
    nodes: Float[Array, "*samples vectors nodes"]
    weights: Float[Array, "*samples vectors nodes"]


class SmallestSpectrum(NamedTuple):
    """What products with a Jacobian tell of its smallest singular values, one entry a matrix.

    Attributes:
      values: the smallest ones found, smallest first; NaN where there are fewer.
      errors: a true one lies within this of each, up to the rounding of the products.
    """

    values: Float[Array, "*samples count"]
    errors: Float[Array, "*samples count"]


def jacobian(
    network: Network,
    x: Inputs,
    reading: Reading = "frozen",
    samples: int | None = None,
    *,
    between: tuple[Layer, Layer] = BLOCKS,
) -> Float[Array, "rows columns"] | Float[Array, "samples rows columns"]:
    """The Jacobian of a network's layer by an earlier one at the batch `x`, by default `d h_last / d h_0`.

    Arguments and errors are those of `hidden_map`. Cost: as many backward passes of the samples through these layers as
    the later one has entries, of one sample (frozen) or of all (coupled).

    Returns:
      frozen: one Jacobian a sample, output by input; coupled: one matrix, of all samples' outputs by all inputs.
    """
    layers, h = hidden_map(network, x, reading, samples, between=between)
    y, pull = jax.vjp(layers, h)
    pull = jax.vmap(pull)
    if reading == "coupled":
        return pull(jnp.eye(y.size, dtype=h.dtype).reshape(y.size, *y.shape))[0].reshape(y.size, h.size)
    rows = y[0].size
    units = jnp.eye(rows, dtype=h.dtype).reshape(rows, 1, *y.shape[1:])
    by_row = pull(jnp.broadcast_to(units, (rows, *y.shape)))[0]
    return jnp.swapaxes(by_row.reshape(rows, len(h), -1), 0, 1)


def jacobian_spectrum(
    network: Network,
    x: Inputs,
    reading: Reading = "frozen",
    samples: int | None = None,
    *,
    between: tuple[Layer, Layer] = BLOCKS,
) -> Float[Array, " values"] | Float[Array, "samples values"]:
    """All singular values of `jacobian` with the same arguments, largest first; NaN where it is not finite.

    Cost: that of `jacobian`, and a dense SVD of each matrix, O(rows columns min(rows, columns)).
    Source: Saxe et al. 2014; Pennington et al. 2017.
    """
    matrix = jacobian(network, x, reading, samples, between=between)
    return jnp.vectorize(singular_values, signature="(m,n)->(k)")(matrix)


def leading_spectrum(
    network: Network,
    x: Inputs,
    reading: Reading = "frozen",
    samples: int | None = None,
    *,
    key: PRNGKeyArray,
    top: int = TOP,
    steps: int = _STEPS,
    vectors: int = VECTORS,
    nodes: int = NODES,
    between: tuple[Layer, Layer] = BLOCKS,
) -> LeadingSpectrum:
    """The largest singular values of the same Jacobians, and the density of all of them, without forming any.

    Cost: `steps` forward and backward derivatives for the largest, `vectors nodes` more for the density, all samples at
    once.

    Args:
      network, x, reading, samples, between: as for `hidden_map`, whose errors it has.
      key: draws the random vectors, others for every sample.
      top: how many singular values.
      steps: of the Golub-Kahan recurrence they are taken from.
      vectors, nodes: random vectors that the density is estimated from, and singular values of each one's Gauss rule.

    Source: `probes.matrixfree`.
    """
    layers, h = hidden_map(network, x, reading, samples, between=between)

    def of(layers: Callable[[Array], Array], h: Array, key: Array) -> LeadingSpectrum:
        linear = derivative(layers, h)
        for_top, for_density = jax.random.split(key)
        density = spectral_density(linear, vectors, nodes, for_density)
        values, errors = top_singular_values(linear, top, steps, for_top)
        return LeadingSpectrum(values, errors, *spectral_moment(density, 1), *density)

    return _by_reading(of, reading, layers, h, key)


def smallest_spectrum(
    network: Network,
    x: Inputs,
    reading: Reading = "frozen",
    samples: int | None = None,
    *,
    key: PRNGKeyArray,
    count: int = 1,
    steps: int = _STEPS,
    between: tuple[Layer, Layer] = BLOCKS,
) -> SmallestSpectrum:
    """The smallest singular values of the same Jacobians, without forming any: upper bounds, late to converge.

    Cost: `steps` forward and backward derivatives, all samples at once.

    Args:
      network, x, reading, samples, between: as for `hidden_map`, whose errors it has.
      key: draws the random vector, another for every sample.
      count: how many singular values.
      steps: of the Golub-Kahan recurrence; as many as the smaller layer has entries make them exact.

    Source: `probes.matrixfree.smallest_singular_values`.
    """
    layers, h = hidden_map(network, x, reading, samples, between=between)

    def of(layers: Callable[[Array], Array], h: Array, key: Array) -> SmallestSpectrum:
        return SmallestSpectrum(*smallest_singular_values(derivative(layers, h), count, steps, key))

    return _by_reading(of, reading, layers, h, key)


def condition_number(values: Float[Array, "*matrices values"]) -> Float[Array, "*matrices"]:
    """The largest of each matrix's singular values over its smallest.

    Infinite if one is exactly 0 (the zero matrix included); zeros of a dense SVD that are so only to rounding give
    1 / epsilon or so. NaN if one is NaN. Cost: no pass of the network. Source: Golub and Van Loan 2013, section 2.6.2.
    """
    smallest = values.min(-1)
    return jnp.where(smallest == 0, jnp.inf, values.max(-1) / jnp.where(smallest == 0, 1, smallest))


def isometry_distance(values: Float[Array, "*matrices values"]) -> Float[Array, "*matrices"]:
    """How far each matrix is from a multiple of an isometry: the variance of its log singular values, `Var(log σ)`.

    0 if all are equal; the mean of log σ, a multiple's size, does not count. Infinite if one is exactly 0, NaN if one
    is NaN. Cost: no pass of the network. Source: dynamical isometry, Saxe et al. 2014; Pennington et al. 2017.
    """
    spread = jnp.log(jnp.where(values == 0, 1, values)).var(-1)
    return jnp.where((values == 0).any(-1) & ~jnp.isnan(spread), jnp.inf, spread)


def _by_reading(
    of: Callable[[Callable[[Array], Array], Array, Array], Spectrum],
    reading: Reading,
    layers: Callable[[Array], Array],
    h: Array,
    key: Array,
) -> Spectrum:
    """What `of` says of the batch as a whole (coupled), or of each sample (frozen)."""
    if reading == "coupled":
        return of(layers, h, key)
    return jax.vmap(lambda h, key: of(lambda one: layers(one[None])[0], h, key))(h, jax.random.split(key, len(h)))

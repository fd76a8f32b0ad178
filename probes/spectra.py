"""Singular values of the Jacobian of the last hidden state by the first: all of them, or what can be had without it.

Batch norm couples the rows of a batch, so the Jacobian has two honest readings. `coupled` differentiates the whole
batch's output by the whole batch's input, statistics included. `frozen` holds the statistics at the batch's values;
rows are then independent and every sample has a Jacobian of its own. Without batch norm the coupled Jacobian is
block-diagonal and holds exactly the frozen ones.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from kernels.linalg import singular_values
from nets import Network
from probes.matrixfree import derivative, spectral_density, spectral_moment, top_singular_values
from probes.network import Inputs, training_copy

Reading = Literal["coupled", "frozen"]

# What a matrix-free spectrum tells by default: so many largest values, from so many steps; the mean of squares from
# so many random vectors. 20 values of a Jacobian of 20 layers have converged to 1e-4 by then.
TOP = 20
_STEPS = 80
_VECTORS = 8


class LeadingSpectrum(NamedTuple):
    """What products with a Jacobian tell of its singular values σ, one entry a matrix.

    Attributes:
      values: the largest ones, largest first; NaN where there are fewer.
      errors: a true one lies within this of each, up to the rounding of the products.
      mean_square: mean of σ² over all of them.
      mean_square_error: its standard error, over random vectors.
    """

    values: Float[Array, "*samples top"]
    errors: Float[Array, "*samples top"]
    mean_square: Float[Array, "*samples"]
    mean_square_error: Float[Array, "*samples"]


def hidden_map(
    network: Network, x: Inputs, reading: Reading, samples: int | None = None
) -> tuple[Callable[[Array], Array], Float[Array, "samples *size"]]:
    """A network's blocks as a pure function of the first hidden state, and that state.

    Args:
      network: has a stem, blocks, a head; it is not changed, and batch norm is read as in training mode.
      x: a batch of inputs.
      reading: see the module's docstring.
      samples: how many of the batch's first samples to give, by default all. The frozen reading takes its statistics
        from all of `x` nevertheless; the coupled one, whose rows are coupled by them, from these alone.

    Raises:
      ValueError: an unknown reading, or more samples than `x` has.
    """
    if reading not in ("coupled", "frozen"):
        raise ValueError(f"jacobian: reading must be 'coupled' or 'frozen', got {reading!r}")
    samples = len(x) if samples is None else samples
    if not 1 <= samples <= len(x):
        raise ValueError(f"jacobian: samples must be between 1 and the batch's {len(x)}, got {samples}")
    copy = training_copy(network)
    if reading == "frozen":
        # With momentum 0 the running statistics become the batch's; evaluation mode then holds them there.
        copy.set_attributes(momentum=0.0, raise_if_not_found=False)
        copy(x)
        copy.eval()
    h = copy.sections["stem"](x[:samples])
    graphdef, state = nnx.split(copy)
    arrays = nnx.as_pure(state)

    def blocks(h: Array) -> Array:
        for section in nnx.merge(graphdef, arrays).hidden.values():
            h = section(h)
        return h

    return blocks, h


def jacobian(
    network: Network, x: Inputs, reading: Reading = "frozen", samples: int | None = None
) -> Float[Array, "rows columns"] | Float[Array, "samples rows columns"]:
    """The Jacobian `d h_last / d h_0` of a network's blocks at the hidden states of the batch `x`.

    Arguments and errors are those of `hidden_map`. Cost: as many backward passes of the samples as the last hidden
    state has entries, of one sample (frozen) or of all (coupled).

    Returns:
      frozen: one Jacobian a sample, output by input; coupled: one matrix, of all samples' outputs by all inputs.
    """
    blocks, h = hidden_map(network, x, reading, samples)
    y, pull = jax.vjp(blocks, h)
    pull = jax.vmap(pull)
    if reading == "coupled":
        return pull(jnp.eye(y.size, dtype=h.dtype).reshape(y.size, *y.shape))[0].reshape(y.size, h.size)
    rows = y[0].size
    units = jnp.eye(rows, dtype=h.dtype).reshape(rows, 1, *y.shape[1:])
    by_row = pull(jnp.broadcast_to(units, (rows, *y.shape)))[0]
    return jnp.swapaxes(by_row.reshape(rows, len(h), -1), 0, 1)


def jacobian_spectrum(
    network: Network, x: Inputs, reading: Reading = "frozen", samples: int | None = None
) -> Float[Array, " values"] | Float[Array, "samples values"]:
    """All singular values of `jacobian(network, x, reading, samples)`, largest first; NaN where it is not finite.

    Cost: that of `jacobian`, and a dense SVD of each matrix, O(rows columns min(rows, columns)).
    Source: Saxe et al. 2014; Pennington et al. 2017.
    """
    matrix = jacobian(network, x, reading, samples)
    finite = jnp.isfinite(matrix).all((-2, -1))
    # LAPACK is never shown a NaN: some builds do not return from one.
    safe = jnp.where(finite[..., None, None], matrix, 0)
    return jnp.where(finite[..., None], jnp.vectorize(singular_values, signature="(m,n)->(k)")(safe), jnp.nan)


def leading_spectrum(
    network: Network,
    x: Inputs,
    reading: Reading = "frozen",
    samples: int | None = None,
    *,
    top: int = TOP,
    steps: int = _STEPS,
    vectors: int = _VECTORS,
) -> LeadingSpectrum:
    """The largest singular values of the same Jacobians, and their mean square, without forming any.

    Random vectors are the same at every call. Cost: `steps` forward and backward derivatives for the largest, as many
    again as `vectors` for the mean square, all samples at once.

    Args:
      network, x, reading, samples: as for `hidden_map`, whose errors it has.
      top: how many singular values.
      steps: of the Golub-Kahan recurrence they are taken from.
      vectors: random vectors the mean square is estimated from.

    Source: `probes.matrixfree`.
    """
    blocks, h = hidden_map(network, x, reading, samples)
    for_top, for_density = jax.random.split(jax.random.key(0))

    def of(blocks: Callable[[Array], Array], h: Array) -> LeadingSpectrum:
        linear = derivative(blocks, h)
        # One step is enough for the first moment: it is the Rayleigh quotient of the random vector.
        density = spectral_density(linear, vectors, 1, for_density)
        return LeadingSpectrum(*top_singular_values(linear, top, steps, for_top), *spectral_moment(density, 1))

    if reading == "coupled":
        return of(blocks, h)
    return jax.vmap(lambda h: of(lambda one: blocks(one[None])[0], h))(h)

"""Singular values of the Jacobian of the last hidden state by the first, exactly.

Batch norm couples the rows of a batch, so the Jacobian has two honest readings. `coupled` differentiates the whole
batch's output by the whole batch's input, statistics included. `frozen` holds the statistics at the batch's values;
rows are then independent and every sample has a Jacobian of its own. Without batch norm the coupled Jacobian is
block-diagonal and holds exactly the frozen ones.
"""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jaxtyping import Float

from kernels.linalg import singular_values
from nets import Network
from probes.network import Hidden, Inputs, training_copy

Reading = Literal["coupled", "frozen"]


def jacobian(
    network: Network, x: Inputs, reading: Reading = "frozen", samples: int | None = None
) -> Float[Array, "rows rows"] | Float[Array, "samples width width"]:
    """The Jacobian `d h_depth / d h_0` of a network's blocks at the hidden states of the batch `x`.

    Cost: `width` backward passes of the samples (frozen), `samples * width` (coupled).

    Args:
      network: has `stem`, `blocks`, `head`; it is not changed, and batch norm is read as in training mode.
      x: a batch of inputs.
      reading: see the module's docstring.
      samples: how many of the batch's first samples to differentiate at, by default all. The frozen reading takes its
        statistics from all of `x` nevertheless; the coupled one, whose rows are coupled by them, from these alone.

    Returns:
      frozen: one Jacobian a sample, `[samples, width, width]`, output by input;
      coupled: one matrix, `[samples width, samples width]`.

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
        copy.blocks(copy.stem(x))
        copy.eval()
    h = copy.stem(x[:samples])
    graphdef, state = nnx.split(copy.blocks)
    arrays = nnx.as_pure(state)

    def blocks(h: Hidden) -> Hidden:
        return nnx.merge(graphdef, arrays)(h)

    pull = jax.vmap(jax.vjp(blocks, h)[1])
    if reading == "coupled":
        cotangents = jnp.eye(h.size, dtype=h.dtype).reshape(h.size, *h.shape)
        return pull(cotangents)[0].reshape(h.size, h.size)
    width = h.shape[1]
    cotangents = jnp.broadcast_to(jnp.eye(width, dtype=h.dtype)[:, None], (width, samples, width))
    return jnp.swapaxes(pull(cotangents)[0], 0, 1)


def jacobian_spectrum(
    network: Network, x: Inputs, reading: Reading = "frozen", samples: int | None = None
) -> Float[Array, " rows"] | Float[Array, "samples width"]:
    """All singular values of `jacobian(network, x, reading, samples)`, largest first; NaN where it is not finite.

    Cost: that of `jacobian`, and a dense SVD: O(samples width³) frozen, O(samples³ width³) coupled.
    Source: Saxe et al. 2014; Pennington et al. 2017.
    """
    matrix = jacobian(network, x, reading, samples)
    finite = jnp.isfinite(matrix).all((-2, -1))
    # LAPACK is never shown a NaN: some builds do not return from one.
    safe = jnp.where(finite[..., None, None], matrix, 0)
    return jnp.where(finite[..., None], jnp.vectorize(singular_values, signature="(m,n)->(k)")(safe), jnp.nan)

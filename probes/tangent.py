"""The empirical neural tangent kernel: how a gradient step for one logit of one sample moves every other.

`K = J Jᵀ`, J the derivative of all logits by all parameters, rows in the order of `logits.ravel()`. Batch norm is in
training mode: a batch's kernel is that of its logits as they are computed together.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from kernels.linalg import eigh
from nets import Network
from probes.network import Inputs, Labels
from probes.parameters import logits_by_parameters

# Rows of the kernel that are computed at once; so many gradients by all parameters are held.
_CHUNK = 32


class TangentSpectrum(NamedTuple):
    """A tangent kernel in short.

    Attributes:
      values: its eigenvalues, largest first; NaN where it is not finite.
      alignment: with the labels, see `label_alignment`.
    """

    values: Float[Array, " kernel"]
    alignment: Float[Array, ""]


def tangent_kernel(network: Network, x: Inputs, *, chunk: int = _CHUNK) -> Float[Array, "kernel kernel"]:
    """The tangent kernel `∂f/∂θ (∂f/∂θ)ᵀ` of a batch's logits f by all parameters θ, `[samples classes]²`.

    Cost: for each of its `samples classes` rows a backward and a forward derivative of the batch, after one
    forward pass; holds the kernel and `chunk` vectors of all parameters, never J.

    Args:
      network: not changed.
      x: a batch.
      chunk: rows computed at once; changes no number but by rounding.

    Raises:
      ValueError: a chunk below 1.
    Source: Jacot et al. 2018.
    """
    if chunk < 1:
        raise ValueError(f"tangent_kernel: chunk must be at least 1, got {chunk}")
    logits, parameters = logits_by_parameters(network, x)
    y, push = jax.linearize(logits, parameters)
    pull = jax.linear_transpose(push, parameters)
    units = jnp.eye(y.size, dtype=y.dtype).reshape(y.size, *y.shape)
    rows = lax.map(lambda unit: push(pull(unit)[0]).ravel(), units, batch_size=min(chunk, y.size))
    return (rows + rows.T) / 2  # symmetric to the last bit, as it is but for rounding


def label_alignment(
    kernel: Float[Array, "kernel kernel"], labels: Labels, *, centered: bool = False
) -> Float[Array, ""]:
    """The cosine of the angle between a tangent kernel and the labels' own, `<K, Y Yᵀ> / (|K| |Y Yᵀ|)`.

    K is summed over classes, `K_ij = Σ_c kernel_(ic)(jc)`, Y the one-hot labels `[samples, classes]`, the products
    Frobenius'. Between 0 and 1, as both are positive semidefinite; 1 if the kernel is a multiple of the labels'.
    Centered, both are first projected by `I - 1 1ᵀ / samples` on either side, as if features had mean 0: without that
    a constant kernel aligns with any labels. NaN where one is 0, such as the labels' if centered and all are equal.

    Args:
      kernel: as `tangent_kernel` gives it.
      labels: of its samples.
      centered: see above.

    Cost: no pass of the network, O(samples³).

    Raises:
      ValueError: a kernel whose rows are no multiple of the labels.
    Source: Cristianini et al. 2001; centered Cortes et al. 2012; of tangent kernels Baratin et al. 2021.
    """
    samples = len(labels)
    classes, left = divmod(len(kernel), samples)
    if left:
        raise ValueError(f"label_alignment: {len(kernel)} rows of a kernel are no multiple of {samples} labels")
    summed = jnp.einsum("icjc->ij", kernel.reshape(samples, classes, samples, classes))
    onehot = jax.nn.one_hot(labels, classes, dtype=kernel.dtype)
    same = onehot @ onehot.T
    if centered:
        summed, same = (_centered(matrix) for matrix in (summed, same))
    return (_of_norm_1(summed) * _of_norm_1(same)).sum()


def tangent_spectrum(
    network: Network,
    x: Inputs,
    labels: Labels,
    samples: int | None = None,
    *,
    centered: bool = False,
    chunk: int = _CHUNK,
) -> TangentSpectrum:
    """Eigenvalues of the tangent kernel of a batch's first samples, and its alignment with their labels.

    Batch norm's statistics are those of these samples alone. Cost: that of `tangent_kernel`, and a dense
    eigendecomposition, O((samples classes)³).

    Args:
      network, chunk: as for `tangent_kernel`.
      x, labels: a batch.
      samples: how many of its first samples, by default all.
      centered: as for `label_alignment`.

    Raises:
      ValueError: more samples than `x` has, or a chunk below 1.
    """
    samples = len(x) if samples is None else samples
    if not 1 <= samples <= len(x):
        raise ValueError(f"tangent_spectrum: samples must be between 1 and the batch's {len(x)}, got {samples}")
    kernel = tangent_kernel(network, x[:samples], chunk=chunk)
    finite = jnp.isfinite(kernel).all()
    # LAPACK is never shown a NaN: some builds do not return from one.
    values, _ = eigh(jnp.where(finite, kernel, 0))
    alignment = label_alignment(kernel, labels[:samples], centered=centered)
    return TangentSpectrum(jnp.where(finite, values[::-1], jnp.nan), alignment)


def _centered(matrix: Array) -> Array:
    rows = matrix - matrix.mean(0)
    return rows - rows.mean(1, keepdims=True)


def _of_norm_1(matrix: Array) -> Array:
    """Over its Frobenius norm, whose square may be out of the range of floats; NaN for 0."""
    scaled = matrix / jnp.abs(matrix).max()
    return scaled / jnp.linalg.norm(scaled)

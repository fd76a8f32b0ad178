"""Whether depth still tells inputs apart: rank and correlation of the hidden states of a batch."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float

from kernels.linalg import singular_values
from nets import Network
from probes.network import Inputs, training_copy


class Representation(NamedTuple):
    """A batch's hidden states `[sample, entry]` at `l = 0..depth`.

    Attributes:
      effective_rank: `exp(-Σ p_i log p_i)` with `p_i = σ_i / Σ σ`, σ the singular values: from 1 to the batch's size.
      correlation: mean cosine of the angle between two samples' states, over all pairs.
    """

    effective_rank: Float[Array, " layer"]
    correlation: Float[Array, " layer"]


def representation(network: Network, x: Inputs) -> Representation:
    """Effective rank and pairwise correlation of the hidden states by layer, batch norm in training mode.

    Cost: one forward pass and a singular value decomposition of each layer's states.
    Source: Roy & Vetterli 2007 (effective rank); Daneshmand et al. 2020 (rank collapse); Poole et al. 2016
    (correlations).
    """
    outputs = training_copy(network).trace(x).outputs
    sections = [states.reshape(*states.shape[:2], -1) for states in outputs.values()]

    def of(states: Array) -> tuple[Array, Array]:
        return _effective_rank(states), pairwise_cosine(states)

    ranks, correlations = zip(*(lax.map(of, states) for states in sections), strict=True)
    return Representation(jnp.concatenate(ranks), jnp.concatenate(correlations))


def pairwise_cosine(rows: Float[Array, "row entry"]) -> Float[Array, ""]:
    """Mean cosine of the angle between two of the rows, over all pairs of different ones; those of length 0 count 0."""
    # Squares of a vanishing or exploding net's rows would leave the range of floats.
    largest = jnp.abs(rows).max(1, keepdims=True)
    scaled = rows / jnp.where(largest == 0, 1, largest)
    length = jnp.linalg.norm(scaled, axis=1, keepdims=True)
    units = scaled / jnp.where(length == 0, 1, length)
    count = len(rows)
    return (jnp.square(units.sum(0)).sum() - jnp.square(units).sum()) / (count * (count - 1))


def _effective_rank(states: Array) -> Array:
    values = singular_values(states)
    shares = values / values.sum()
    return jnp.exp(jax.scipy.special.entr(shares).sum())

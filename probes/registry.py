"""The probes a sweep runs, with the names and dimensions of what they return. Add one here and it is run and stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nets import Network
from probes.gradients import gradient_flow
from probes.network import Inputs, Labels
from probes.signals import forward_signals
from probes.spectra import jacobian_spectrum


@dataclass(frozen=True)
class Variable:
    """One measured array: its dimensions after `member` and `probe_step`, and what it means."""

    dims: tuple[str, ...]
    long_name: str


class Batch(NamedTuple):
    """What a probe sees of the data.

    Attributes:
      inputs, labels: the probe batch.
      samples: how many of its first samples the Jacobian spectra are taken at.
    """

    inputs: Inputs
    labels: Labels
    samples: int


@dataclass(frozen=True)
class Probe:
    """A measurement of one network.

    Attributes:
      measure: `(network, batch) -> {variable: array}`; arrays with a `layer` dimension have length `depth + 1`, the
        stem first.
      variables: what `measure` returns.
      applies: whether the probe has anything to say of a network with this norm.
      one_at_a_time: whether it is too large to run on many networks at once.
    """

    measure: Callable[[Network, Batch], dict[str, Array]]
    variables: Mapping[str, Variable]
    applies: Callable[[str], bool] = lambda norm: True
    one_at_a_time: bool = False


def _with_stem(by_block: Array) -> Array:
    """Puts a NaN where the stem's number would stand: only blocks are asked for their pre-activations."""
    return jnp.concatenate([jnp.full_like(by_block[:1], jnp.nan), by_block])


def _signals(network: Network, batch: Batch) -> dict[str, Array]:
    signals = forward_signals(network, batch.inputs)
    return {
        "second_moment": signals.second_moment,
        "batch_variance": signals.batch_variance,
        "preactivation": _with_stem(signals.percentiles),
        "unit_preactivation": _with_stem(signals.unit_percentiles),
    }


def _gradients(network: Network, batch: Batch) -> dict[str, Array]:
    flow = gradient_flow(network, batch.inputs, batch.labels)
    return {"output_gradient": flow.output, "weight_gradient": flow.weight}


def _frozen(network: Network, batch: Batch) -> dict[str, Array]:
    return {"frozen_spectrum": jacobian_spectrum(network, batch.inputs, "frozen", batch.samples)}


def _coupled(network: Network, batch: Batch) -> dict[str, Array]:
    return {"coupled_spectrum": jacobian_spectrum(network, batch.inputs, "coupled", batch.samples)}


PROBES: dict[str, Probe] = {
    "signals": Probe(
        _signals,
        {
            "second_moment": Variable(("layer",), "mean square of a layer's output"),
            "batch_variance": Variable(("layer",), "variance of a layer's output over the batch, mean over units"),
            "preactivation": Variable(("layer", "percentile"), "pre-activations of a layer, over batch and units"),
            "unit_preactivation": Variable(
                ("layer", "percentile"), "pre-activations of a layer's first unit, over the batch"
            ),
        },
    ),
    "gradients": Probe(
        _gradients,
        {
            "output_gradient": Variable(("layer",), "squared norm of the loss's gradient by a layer's output"),
            "weight_gradient": Variable(("layer",), "squared norm of the loss's gradient by a layer's weights"),
        },
    ),
    "frozen_spectrum": Probe(
        _frozen,
        {
            "frozen_spectrum": Variable(
                ("sample", "singular_value"),
                "singular values of d h_depth / d h_0, batch statistics held fixed",
            )
        },
    ),
    "coupled_spectrum": Probe(
        _coupled,
        {
            "coupled_spectrum": Variable(
                ("coupled_singular_value",),
                "singular values of d h_depth / d h_0 of the spectrum batch as a whole, its own statistics included",
            )
        },
        applies=lambda norm: norm != "none",
        one_at_a_time=True,
    ),
}

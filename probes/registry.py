"""The probes a sweep runs, with the names and dimensions of what they return. Add one here and it is run and stored."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import jax.numpy as jnp
from jax import Array

from nets import Network
from probes.gradients import gradient_flow
from probes.network import Inputs, Labels
from probes.signals import forward_signals
from probes.spectra import Reading, jacobian_spectrum, leading_spectrum

# A network's Jacobians are formed if their singular values take fewer multiplications than this, each matrix rows x
# columns x the fewer of them.
_DENSE = 2**32


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


class Subject(NamedTuple):
    """What decides whether a probe has anything to say.

    Attributes:
      norm: the networks' norm.
      first, last: entries of the first and of the last hidden state of one sample.
      samples: as in `Batch`.
    """

    norm: str
    first: int
    last: int
    samples: int

    def is_dense(self, reading: Reading) -> bool:
        """Whether the Jacobian is small enough to be formed."""
        scale = self.samples**3 if reading == "coupled" else self.samples
        return scale * self.first * self.last * min(self.first, self.last) < _DENSE


@dataclass(frozen=True)
class Probe:
    """A measurement of one network.

    Attributes:
      measure: `(network, batch) -> {variable: array}`; arrays with a `layer` dimension have the length of the stem and
        the blocks.
      variables: what `measure` returns.
      applies: whether the probe has anything to say.
      one_at_a_time: whether it is too large to run on many networks at once.
    """

    measure: Callable[[Network, Batch], dict[str, Array]]
    variables: Mapping[str, Variable]
    applies: Callable[[Subject], bool] = lambda subject: True
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


def _leading(reading: Reading, network: Network, batch: Batch) -> dict[str, Array]:
    found = leading_spectrum(network, batch.inputs, reading, batch.samples)
    return {
        f"{reading}_top": found.values,
        f"{reading}_top_error": found.errors,
        f"{reading}_mean_square": found.mean_square,
        f"{reading}_mean_square_error": found.mean_square_error,
    }


def _leading_variables(reading: Reading, dims: tuple[str, ...], what: str) -> dict[str, Variable]:
    return {
        f"{reading}_top": Variable((*dims, "top"), f"largest singular values of {what}"),
        f"{reading}_top_error": Variable(
            (*dims, "top"), "a true singular value lies within this of each, up to rounding"
        ),
        f"{reading}_mean_square": Variable(dims, f"mean of the squared singular values of {what}"),
        f"{reading}_mean_square_error": Variable(dims, "its standard error"),
    }


_FROZEN = "d h_last / d h_0, batch statistics held fixed"
_COUPLED = "d h_last / d h_0 of the spectrum batch as a whole, its own statistics included"

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
        {"frozen_spectrum": Variable(("sample", "singular_value"), f"singular values of {_FROZEN}")},
        applies=lambda subject: subject.is_dense("frozen"),
    ),
    "frozen_top": Probe(
        partial(_leading, "frozen"),
        _leading_variables("frozen", ("sample",), _FROZEN),
        applies=lambda subject: not subject.is_dense("frozen"),
    ),
    "coupled_spectrum": Probe(
        _coupled,
        {"coupled_spectrum": Variable(("coupled_singular_value",), f"singular values of {_COUPLED}")},
        applies=lambda subject: subject.norm != "none" and subject.is_dense("coupled"),
        one_at_a_time=True,
    ),
    "coupled_top": Probe(
        partial(_leading, "coupled"),
        _leading_variables("coupled", (), _COUPLED),
        applies=lambda subject: subject.norm != "none" and not subject.is_dense("coupled"),
        one_at_a_time=True,
    ),
}

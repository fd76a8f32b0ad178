"""What a probe is: a measurement of one network, with the names and dimensions of what it returns."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from jax import Array
from jaxtyping import Float, PRNGKeyArray

from nets import Network
from probes.network import Inputs, Labels


class Batch(NamedTuple):
    """What a probe is given besides a network.

    Attributes:
      inputs, labels: the probe batch.
      samples: how many of its first samples Jacobians and kernels are taken at.
      learning_rate: the network's, at its peak.
      key: for whatever is random: the seed's, the same for every depth, kind and step.
    """

    inputs: Inputs
    labels: Labels
    samples: int
    learning_rate: Float[Array, ""]
    key: PRNGKeyArray


@dataclass(frozen=True)
class Subject:
    """The networks of a program, as far as it decides what probes can say of them.

    Attributes:
      norm: their norm.
      residual: whether any has skip connections.
      blocks: of the deepest.
      inputs, first, last, classes: entries of the input, of the first and the last hidden state, and of the output of
        one sample.
      parameters: of the deepest.
      samples: as in `Batch`.
    """

    norm: str
    residual: bool
    blocks: int
    inputs: int
    first: int
    last: int
    classes: int
    parameters: int
    samples: int


@dataclass(frozen=True)
class Variable:
    """One measured array: its dimensions after `member` and `probe_step`, and what it means."""

    dims: tuple[str, ...]
    long_name: str


@dataclass(frozen=True, eq=False)
class Probe:
    """A measurement of one network.

    Attributes:
      measure: `(network, batch) -> {variable: array}`; arrays with a `layer` dimension have the length of the stem and
        the blocks.
      variables: what `measure` returns.
      sizes: the lengths of its dimensions other than `layer`.
      coordinates: the labels along those that have any.
      refusal: why it has nothing to say of such networks, in a line; "" if another one says the same; None if it has.
      one_at_a_time: whether it is too large to run on many networks at once.
    """

    measure: Callable[[Network, Batch], dict[str, Array]]
    variables: Mapping[str, Variable]
    sizes: Callable[[Subject], Mapping[str, int]] = lambda subject: {}
    coordinates: Mapping[str, tuple[float, ...]] = field(default_factory=dict)
    refusal: Callable[[Subject], str | None] = lambda subject: None
    one_at_a_time: bool = False

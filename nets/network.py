"""The shape of every deep network here: sections one after the other. Sweeps and probes ask for no more."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.blocks import Block
from nets.stack import Stack


def check_arguments(network: str, sizes: Mapping[str, int], names: Mapping[str, tuple[str, Iterable[str]]]) -> None:
    """Checks what a network was asked for: sizes, and names with those that are known, both by argument.

    Raises:
      ValueError: a size below 1 or an unknown name; the message lists the known ones.
    """
    for argument, size in sizes.items():
        if size < 1:
            raise ValueError(f"{network}: {argument} must be at least 1, got {size}")
    for argument, (name, known) in names.items():
        if name not in list(known):
            raise ValueError(f"{network}: {argument} must be one of {', '.join(known)}, got {name!r}")


class Part(nnx.Module, ABC):
    """A module of one input and one output."""

    @abstractmethod
    def __call__(self, x: Float[Array, "batch ..."]) -> Float[Array, "batch ..."]:
        """The part's output."""


class Trace(NamedTuple):
    """What a network computes on the way, by section, each with a leading axis of the section's layers.

    Attributes:
      logits: the network's output.
      outputs: hidden states: the stem's, then every block's.
      before: every block's pre-activation; what stands between stem and head is blocks and stacks of them.
    """

    logits: Float[Array, "batch classes"]
    outputs: dict[str, Float[Array, "layer batch ..."]]
    before: dict[str, Float[Array, "layer batch ..."]]


class Network(nnx.Module):
    """A stem, then blocks, then a head: `h_0 = stem(x)`, `h_l = block_l(h_{l-1})`, `logits = head(h_last)`.

    Attributes:
      section_names: the attributes that hold its sections, in the order they are applied: `"stem"` first, `"head"`
        last, between them single blocks and stacks of blocks of one kind.
    """

    section_names: tuple[str, ...]

    @property
    def sections(self) -> dict[str, Part | Block | Stack]:
        """The network's sections by name, in order."""
        return {name: getattr(self, name) for name in self.section_names}

    @property
    def hidden(self) -> dict[str, Block | Stack]:
        """The sections between stem and head."""
        return {name: getattr(self, name) for name in self.section_names[1:-1]}

    @property
    def block_count(self) -> int:
        """Number of blocks between stem and head."""
        return sum(section.depth if isinstance(section, Stack) else 1 for section in self.hidden.values())

    def __call__(self, x: Float[Array, "batch *features"]) -> Float[Array, "batch classes"]:
        """The logits. Uses and updates batch statistics in training mode, running ones in evaluation mode."""
        for section in self.sections.values():
            x = section(x)
        return x

    def trace(
        self,
        x: Float[Array, "batch *features"],
        perturbations: Mapping[str, Float[Array, "layer batch ..."]] | None = None,
    ) -> Trace:
        """Runs the network and tells what happens inside; changes no variable.

        Args:
          x: a batch.
          perturbations: added to the hidden states, shaped like the result's `outputs`; the derivative by these at zero
            is the derivative by the hidden states.
        """
        given = {} if perturbations is None else perturbations
        outputs, before = {}, {}
        for name, section in self.sections.items():
            offset = given.get(name)
            if isinstance(section, Stack):
                x, outputs[name], before[name] = section.trace(x, offset)
                continue
            module = nnx.clone(section)
            if isinstance(module, Block):
                before[name] = nnx.clone(module).preactivation(x)[None]
            x = module(x)
            if name != self.section_names[-1]:
                x = x if offset is None else x + offset[0]
                outputs[name] = x[None]
        return Trace(x, outputs, before)

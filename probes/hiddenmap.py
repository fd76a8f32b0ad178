"""A part of a network, from any layer to any later one, as a pure function: what partial Jacobians are taken of.

Batch norm couples the rows of a batch, so the Jacobian has two honest readings. `coupled` differentiates the whole
batch's output by the whole batch's input, statistics included. `frozen` holds the statistics at the batch's values;
rows are then independent and every sample has a Jacobian of its own. Without batch norm the coupled Jacobian is
block-diagonal and holds exactly the frozen ones.
"""

from collections.abc import Callable
from typing import Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets import Block, Network, Part, Stack
from probes.network import Inputs, frozen_copy, training_copy

Reading = Literal["coupled", "frozen"]

# `l` is hidden state h_l, 0 the stem's output; None is the last one.
Layer = int | Literal["input", "logits"] | None

BLOCKS: tuple[Layer, Layer] = (0, None)


def hidden_map(
    network: Network,
    x: Inputs,
    reading: Reading,
    samples: int | None = None,
    *,
    between: tuple[Layer, Layer] = BLOCKS,
) -> tuple[Callable[[Array], Array], Float[Array, "samples *size"]]:
    """The map from one layer of a network to a later one as a pure function, and what the first is at the batch `x`.

    Args:
      network: has a stem, blocks, a head; it is not changed, and batch norm is read as in training mode.
      x: a batch of inputs.
      reading: see the module's docstring.
      samples: how many of the batch's first samples to give, by default all. The frozen reading takes its statistics
        from all of `x` nevertheless; the coupled one, whose rows are coupled by them, from these alone.
      between: the first and the last layer: `l` for hidden state `h_l` (0 the stem's output, `network.block_count`, or
        None, the last), "input" for `x` itself, "logits" for the network's output. By default all blocks.

    Cost: the layers up to the first one, of the samples; frozen with the whole batch through the network besides.

    Raises:
      ValueError: an unknown reading, more samples than `x` has, a layer the network lacks, or layers not in order.
    """
    if reading not in ("coupled", "frozen"):
        raise ValueError(f"jacobian: reading must be 'coupled' or 'frozen', got {reading!r}")
    samples = len(x) if samples is None else samples
    if not 1 <= samples <= len(x):
        raise ValueError(f"jacobian: samples must be between 1 and the batch's {len(x)}, got {samples}")
    first, last = (_place(network, layer) for layer in between)
    if first >= last:
        raise ValueError(f"jacobian: between must name a layer and a later one, got {between[0]!r} and {between[1]!r}")
    copy = frozen_copy(network, x) if reading == "frozen" else training_copy(network)
    h = _run(copy, x[:samples], _place(network, "input"), first)
    graphdef, state = nnx.split(copy)
    arrays = nnx.as_pure(state)
    return lambda h: _run(nnx.merge(graphdef, arrays), h, first, last), h


def _place(network: Network, layer: Layer) -> int:
    """Where a layer is: -1 the input, l hidden state h_l, one more than the last the logits."""
    last = network.block_count
    if layer is None:
        return last
    if isinstance(layer, str):
        if layer not in ("input", "logits"):
            raise ValueError(f"jacobian: a layer is a number, None, 'input' or 'logits', got {layer!r}")
        return -1 if layer == "input" else last + 1
    if not 0 <= layer <= last:
        raise ValueError(f"jacobian: hidden states are numbered 0 to {last}, got {layer}")
    return layer


def _run(network: Network, h: Array, first: int, last: int) -> Array:
    """Applies the layers from place `first` to place `last`."""
    start = -1
    for section in network.sections.values():
        end = start + (section.depth if isinstance(section, Stack) else 1)
        if first < end and start < last:
            h = _part(section, max(first - start, 0), min(last, end) - start)(h)
        start = end
    return h


def _part(section: Part | Block | Stack, first: int, last: int) -> Callable[[Array], Array]:
    """A section, or of a stack the layers `first` to `last` alone."""
    if not isinstance(section, Stack) or last - first == section.depth:
        return section
    graphdef, state = nnx.split(section)
    part = nnx.merge(graphdef, jax.tree.map(lambda stacked: stacked[first:last], state))
    part.depth = last - first
    return part

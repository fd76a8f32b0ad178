"""Many members of one structure, of any depths, as one pure function."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jax.typing import ArrayLike, DTypeLike
from jaxtyping import Bool, Float, Int, PyTree

from nets import Network, Stack
from nets.stack import step
from sweep import serial
from sweep.devices import BATCH, ONE_DEVICE, Grid
from sweep.members import Member, Structure, Traits, init_key, traits_of
from sweep.placement import place
from sweep.queue import Queue
from sweep.rows import chosen_rows, finite_rows, scaled
from sweep.serial import Modules, Parts
from sweep.staircase import Staircase

# Entries of a sample's hidden state from which on a network is large.
_LARGE = 4096


@dataclass(frozen=True)
class Ensemble:
    """Members of one structure, in shards of the same depths. Its arrays and functions are those of one shard.

    Knows of a network only that it is one section after the other.

    Attributes:
      structure: what the members share.
      members: who they are, one shard after the other, each deepest first; use `Ensemble.of` to have them put in order.
      grid: the devices they are spread over.
    """

    structure: Structure
    members: tuple[Member, ...]
    grid: Grid = ONE_DEVICE

    @classmethod
    def of(cls, structure: Structure, members: tuple[Member, ...], grid: Grid = ONE_DEVICE) -> "Ensemble":
        """The ensemble of these members, whatever their order."""
        return cls(structure, place(members, grid.members), grid)

    @cached_property
    def traits(self) -> Traits:
        """What tells the members apart, `[shard, ...]`."""
        return traits_of(self.members, self.grid.members)

    @cached_property
    def _places(self) -> dict[Member, int]:
        """Where each member stands; of one that is trained twice, first."""
        found: dict[Member, int] = {}
        for position, member in enumerate(self.members):
            found.setdefault(member, position)
        return found

    @cached_property
    def owners(self) -> dict[Member, int]:
        """The process that has each member's results."""
        return {member: self.grid.owners[position // self.size] for member, position in self._places.items()}

    @cached_property
    def _rows(self) -> dict[Member, int]:
        """Where this process's members stand among its shards."""
        own = [shard for shard, owner in enumerate(self.grid.owners) if owner == jax.process_index()]
        first = {shard: rank * self.size for rank, shard in enumerate(own)}
        places = ((member, divmod(position, self.size)) for member, position in self._places.items())
        return {member: first[shard] + row for member, (shard, row) in places if shard in first}

    @property
    def size(self) -> int:
        """Members in a shard."""
        return len(self.members) // self.grid.members

    @cached_property
    def groups(self) -> dict[int, slice]:
        """The members of each depth, deepest first."""
        depths = [member.depth for member in self.members[: self.size]]
        return {depth: slice(depths.index(depth), depths.index(depth) + depths.count(depth)) for depth in depths}

    @cached_property
    def outlines(self) -> dict[int, Network]:
        """A network of each depth, deepest first, with shapes in place of arrays. The deepest has all sections."""
        return {
            depth: nnx.eval_shape(partial(self.members[group.start].build, self.structure))
            for depth, group in self.groups.items()
        }

    @cached_property
    def deepest(self) -> Network:
        """The outline of the deepest members."""
        return next(iter(self.outlines.values()))

    @cached_property
    def layouts(self) -> dict[str, Staircase | Queue]:
        """The layout of the members' layers in every section that is a stack."""
        layout = Queue if self.one_at_a_time else Staircase

        def layers(member: Member, name: str) -> int:
            outline = self.outlines[member.depth]
            return getattr(outline, name).depth if name in outline.section_names else 0

        return {
            name: layout(tuple(layers(member, name) for member in self.members[: self.size]))
            for name, section in self.deepest.sections.items()
            if isinstance(section, Stack)
        }

    @property
    def _queues(self) -> dict[str, Queue]:
        return {name: layout for name, layout in self.layouts.items() if isinstance(layout, Queue)}

    @cached_property
    def hidden_sizes(self) -> tuple[int, int]:
        """Entries of the first and of the last hidden state of one sample."""
        graphdef, state = nnx.split(self.deepest)
        image = jax.ShapeDtypeStruct((1, *self.structure.image_shape), jnp.result_type(float))
        outputs = jax.eval_shape(lambda state, x: nnx.merge(graphdef, state).trace(x).outputs, state, image)
        first, last = (outputs[self.deepest.section_names[i]] for i in (0, -2))
        return math.prod(first.shape[2:]), math.prod(last.shape[2:])

    @property
    def is_large(self) -> bool:
        """Whether the networks are so large that many at once gain nothing, or fill the memory."""
        return max(self.hidden_sizes) >= _LARGE

    @cached_property
    def one_at_a_time(self) -> bool:
        """Whether the networks run one after the other.

        A large network's operations fill a core, and what one of them writes the next one still finds in the cache.
        """
        return jax.default_backend() == "cpu" and self.is_large

    def modules(self, training: bool, precision: DTypeLike | None = None, batch_size: int | None = None) -> Modules:
        """The sections' code in training or in evaluation mode, of stacks one layer's.

        Args:
          training: which mode.
          batch_size: of the batches that the devices of a row share; None if each has its own.
          precision: what hidden states, products and normalized values are rounded to; statistics are not. None leaves
            all as it is.
        """
        network = nnx.clone(self.deepest)
        network.train() if training else network.eval()
        if batch_size is not None and self.grid.batch > 1:
            rows = batch_size if batch_size % self.grid.batch else None
            network.set_attributes(axis_name=BATCH, rows=rows, raise_if_not_found=False)
        graphs = {name: nnx.split(_module(section))[0] for name, section in network.sections.items()}
        run = step if precision is None else _rounded(precision)
        return {name: partial(run, graph) for name, graph in graphs.items()}

    def init(self, traits: Traits) -> tuple[Parts, Parts]:
        """The members' initial parameters, and their other variables (statistics, skip strengths).

        Every member is built as deep as the deepest, and keeps its own layers: a layer's weights depend on its key, not
        on how many there are, and random bits are what takes long to compile.
        """

        def build(seed: Array, depth: Array, *numbers: Array) -> dict[str, tuple[nnx.State, nnx.State]]:
            network = self.structure.build(max(self.groups), init_key(seed, depth), *numbers)
            found = {}
            for name, section in network.sections.items():
                _, params, rest = nnx.split(_module(section), nnx.Param, ...)
                found[name] = nnx.as_pure(params), nnx.as_pure(rest)
            return found

        depths = [member.depth for member in self.members[: self.size]]
        numbers = (traits.seed, depths, traits.skip, traits.weight_std, traits.bias_std)
        of_member = tuple(map(jnp.asarray, numbers))
        queues = {name: Queue(layout.depths) for name, layout in self.layouts.items()}
        starts = {name: jnp.asarray(queue.starts) for name, queue in queues.items()}
        outline = jax.eval_shape(build, *(number[0] for number in of_member))

        def body(made: Parts, at: tuple) -> tuple[Parts, Parts]:
            starts, numbers = at
            found = build(*numbers)
            made = {name: queue.put(made[name], found[name], starts[name]) for name, queue in queues.items()}
            return made, {name: arrays for name, arrays in found.items() if name not in queues}

        rooms = {name: queue.room(outline[name]) for name, queue in queues.items()}
        made, found = lax.scan(body, rooms, (starts, of_member))
        for name, layout in self.layouts.items():
            queue, arrays = queues[name], queues[name].unpadded(made[name])
            if isinstance(layout, Staircase):
                layers = ((queue.depths[group.start], group) for group in self.groups.values())
                groups = [(count, queue.extract(arrays, group)) for count, group in layers if count]
                arrays = tuple(zip(*layout.assemble(groups), strict=True))
            found[name] = arrays
        params, rest = ({name: found[name][kind] for name in self.deepest.section_names} for kind in (0, 1))
        return params, rest

    def forward(
        self, modules: Modules, params: Parts, rest: Parts, x: Float[Array, "member batch *features"]
    ) -> tuple[Float[Array, "member batch classes"], Parts]:
        """All members' logits, each on its own batch, and their updated variables."""
        if self.one_at_a_time:
            return serial.forward(self._queues, modules, params, rest, x)
        updated: Parts = {}
        for name, module in modules.items():
            if isinstance(layout := self.layouts.get(name), Staircase):
                x, updated[name] = layout.run(module, params[name], rest[name], x)
            else:
                x, updated[name] = jax.vmap(module)(params[name], rest[name], x)
        return x, updated

    def gradients(
        self,
        modules: Modules,
        loss: Callable[[Float[Array, "batch classes"], Int[Array, " batch"]], Float[Array, ""]],
        params: Parts,
        rest: Parts,
        x: Float[Array, "member batch *features"],
        labels: Int[Array, "member batch"],
        kept: PyTree[Array],
    ) -> tuple[Parts, tuple[Float[Array, " member"], Parts, PyTree[Array]]]:
        """Each member's gradient of the loss of its own batch.

        Args:
          modules: from `modules`.
          loss: one member's, of its logits and labels.
          params, rest: the members' arrays.
          x, labels: a batch for each.
          kept: memory from `room`, or what another call returned as such.

        Returns:
          The gradients; the losses, the updated variables, and the memory for the next call, which overwrites the
            gradients.
        """
        if self.one_at_a_time:
            return serial.gradients(self._queues, modules, loss, params, rest, x, labels, kept)

        def total(params: Parts) -> tuple[Array, tuple[Array, Parts, dict[str, Any]]]:
            h, updated, rooms = x, {}, {}
            for name, module in modules.items():
                if isinstance(layout := self.layouts.get(name), Staircase):
                    h, updated[name], rooms[name] = layout.climb(module, params[name], rest[name], h, kept[name])
                else:
                    h, updated[name] = jax.vmap(module)(params[name], rest[name], h)
            losses = jax.vmap(loss)(h, labels)
            return losses.sum(), (losses, updated, rooms)

        gradients, (losses, updated, rooms) = jax.grad(total, has_aux=True)(params)
        kept = {name: tuple(zip(rooms[name], gradients[name], strict=True)) for name in rooms}
        return gradients, (losses, updated, kept)

    def room(self, modules: Modules, params: Parts, rest: Parts, x: Any, remat: str) -> PyTree[Array]:
        """Memory for what `gradients` keeps between its forward and its backward pass, for inputs like `x`.

        `remat` is a name in `sweep.climb.REMATERIALIZATIONS`.
        """
        if self.one_at_a_time:
            return serial.room(self._queues, modules, params, rest, x, remat)
        found = {}
        for name, module in modules.items():
            if isinstance(layout := self.layouts.get(name), Staircase):
                found[name] = layout.room(module, params[name], rest[name], x, remat)
            else:
                x, _ = jax.eval_shape(jax.vmap(module), params[name], rest[name], x)
        return found

    def extract(self, parts: Parts, depth: int) -> dict[str, PyTree[Array]]:
        """The arrays of the members of one depth by section, each with a leading member axis."""
        group = self.groups[depth]

        def of(name: str) -> PyTree[Array]:
            if name in self.layouts:
                return self.layouts[name].extract(parts[name], group)
            return jax.tree.map(lambda leaf: leaf[group], parts[name])

        return {name: of(name) for name in self.outlines[depth].section_names}

    def scale(self, parts: Parts, factors: Float[Array, " member"]) -> Parts:
        """Multiplies every member's arrays by its own factor."""

        return {
            name: self.layouts[name].scale(part, factors) if name in self.layouts else scaled(part, factors)
            for name, part in parts.items()
        }

    def where(self, chosen: Bool[Array, " member"], parts: Parts, others: Parts | float) -> Parts:
        """The arrays of the chosen members, and in the place of the rest's those of `others`, or one number."""

        def of(name: str) -> PyTree[Array]:
            other = others[name] if isinstance(others, dict) else others
            if name in self.layouts:
                return self.layouts[name].where(chosen, parts[name], other)
            return chosen_rows(chosen, parts[name], other)

        return {name: of(name) for name in parts}

    def is_finite(self, parts: Parts) -> Bool[Array, " member"]:
        """Which members' arrays are all finite."""
        found = [
            self.layouts[name].is_finite(part) if name in self.layouts else finite_rows(part)
            for name, part in parts.items()
            if jax.tree.leaves(part)
        ]
        return jnp.stack(found).all(0)

    def networks(self, params: Parts, rest: Parts, depth: int) -> tuple[nnx.GraphDef, PyTree[Array]]:
        """The members of one depth as whole networks: `nnx.merge(graphdef, state)` under `vmap` over the state."""
        states = []
        for parts in (params, rest):
            found = self.extract(parts, depth)
            states.append({name: {"layers": s} if name in self.layouts else s for name, s in found.items()})
        return nnx.graphdef(self.outlines[depth]), nnx.merge_state(*(nnx.State(state) for state in states))

    def by_member(self, stacked: ArrayLike, members: Sequence[Member]) -> np.ndarray:
        """The rows of these members, who are this process's, of an array `[shard, member, ...]`."""
        array = self.grid.owned(stacked)
        rows = np.asarray([self._rows[member] for member in members], int)
        return array.reshape(-1, *array.shape[2:])[rows]


def _rounded(precision: DTypeLike) -> Callable[..., tuple[Array, nnx.State]]:
    """`step` on numbers rounded to a precision; variables other than parameters are not."""

    def rounded(
        graphdef: nnx.GraphDef, params: nnx.State, rest: nnx.State, x: Float[Array, "batch *features"]
    ) -> tuple[Float[Array, "batch ..."], nnx.State]:
        params, x = jax.tree.map(lambda leaf: leaf.astype(precision), (params, x))
        return step(graphdef, params, rest, x)

    return rounded


def _module(section: nnx.Module) -> nnx.Module:
    """What holds a section's arrays, and for a stack is the code of one layer."""
    return section.layers if isinstance(section, Stack) else section

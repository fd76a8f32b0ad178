"""Many members of one structure, of any depths, as one pure function."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax import Array, lax
from jaxtyping import Float, PyTree

from nets.stack import step
from sweep.members import Member, Structure, init_key
from sweep.staircase import Parts, Staircase


class Graphs(NamedTuple):
    """The code of a network's three parts, as Flax keeps it apart from the arrays."""

    stem: nnx.GraphDef
    block: nnx.GraphDef
    head: nnx.GraphDef


@dataclass(frozen=True)
class Ensemble:
    """Members of one structure, deepest first. Knows of a network only that it is `head(blocks(stem(x)))`.

    Attributes:
      structure: what the members share.
      members: who they are; use `Ensemble.of` to have them put in order.
    """

    structure: Structure
    members: tuple[Member, ...]

    @classmethod
    def of(cls, structure: Structure, members: tuple[Member, ...]) -> "Ensemble":
        """The ensemble of these members, whatever their order."""
        return cls(structure, tuple(sorted(members, key=lambda member: -member.depth)))

    @cached_property
    def staircase(self) -> Staircase:
        """The layout of the members' layers."""
        return Staircase(tuple(member.depth for member in self.members))

    def graphs(self, training: bool) -> Graphs:
        """The parts' code, in training or in evaluation mode."""
        network = nnx.eval_shape(lambda: self.members[0].build(self.structure))
        network.train() if training else network.eval()
        return Graphs(*(nnx.split(part)[0] for part in (network.stem, network.blocks.layers, network.head)))

    def init(self) -> tuple[Parts, Parts]:
        """The members' initial parameters, and their other variables (statistics, skip strengths)."""
        built = {depth: self._build(depth) for depth in self.staircase.groups}
        params, rest = ({depth: states[kind] for depth, states in built.items()} for kind in (0, 1))
        return self.staircase.assemble(params), self.staircase.assemble(rest)

    def _build(self, depth: int) -> tuple[dict[str, nnx.State], dict[str, nnx.State]]:
        """Parameters and other variables, by part, of all members of one depth, with a leading member axis."""

        def build(seed: Array, *numbers: Array) -> tuple[dict[str, nnx.State], dict[str, nnx.State]]:
            network = self.structure.build(depth, init_key(seed, depth), *numbers)
            parts = {"stem": network.stem, "blocks": network.blocks.layers, "head": network.head}
            split = {name: nnx.as_pure(nnx.split(part, nnx.Param, ...)[1:]) for name, part in parts.items()}
            return {name: split[name][0] for name in parts}, {name: split[name][1] for name in parts}

        group = self.staircase.groups[depth]
        numbers = [self.member_values(name)[group] for name in ("seed", "skip", "weight_std", "bias_std")]
        return jax.vmap(build)(*map(jnp.asarray, numbers))

    def forward(
        self, graphs: Graphs, params: Parts, rest: Parts, x: Float[Array, "member batch *features"]
    ) -> tuple[Float[Array, "member batch classes"], Parts]:
        """All members' logits, each on its own batch, and their updated variables."""

        def part(graphdef: nnx.GraphDef) -> Callable:
            return jax.vmap(partial(step, graphdef))

        h, stem = part(graphs.stem)(params.stem, rest.stem, x)
        block = part(graphs.block)
        segments, finished = [], []
        for segment, *layers in zip(self.staircase.segments, params.segments, rest.segments, strict=True):
            finished.append(h[segment.members :])
            h, updated = lax.scan(lambda h, layer: block(*layer, h), h[: segment.members], tuple(layers))
            segments.append(updated)
        h = jnp.concatenate([h, *reversed(finished)])
        logits, head = part(graphs.head)(params.head, rest.head, h)
        return logits, Parts(stem, tuple(segments), head)

    def networks(self, params: Parts, rest: Parts, depth: int) -> tuple[nnx.GraphDef, PyTree[Array]]:
        """The members of one depth as whole networks: `nnx.merge(graphdef, state)` under `vmap` over the state."""
        alone = self.members[self.staircase.groups[depth].start]
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: alone.build(self.structure)))
        parts = [self.staircase.extract(part, depth) for part in (params, rest)]
        states = [{"stem": p["stem"], "blocks": {"layers": p["blocks"]}, "head": p["head"]} for p in parts]
        return graphdef, nnx.merge_state(*(nnx.State(state) for state in states))

    def member_values(self, name: str) -> np.ndarray:
        """One field of every member, in the ensemble's order."""
        return np.asarray([getattr(member, name) for member in self.members])

"""The members of a sweep: who they are, which of them share a program, and how each is built."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product
from typing import TYPE_CHECKING

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Key

from nets import MLP
from nets.mlp import SKIP_STRENGTH

if TYPE_CHECKING:
    from sweep.config import Config

ARCHITECTURES: dict[str, type[nnx.Module]] = {"mlp": MLP}


@dataclass(frozen=True)
class Structure:
    """What splits a sweep into programs: everything about a network that is not a number."""

    arch: str
    norm: str
    width: int
    activation: str
    order: str
    init: str
    in_features: int
    out_features: int

    def build(
        self,
        depth: int,
        key: Key[Array, ""],
        skip: float | Float[Array, ""],
        weight_std: float | Float[Array, ""],
        bias_std: float | Float[Array, ""],
    ) -> nnx.Module:
        """One network of this structure; every argument but `depth` may be traced."""
        return ARCHITECTURES[self.arch](
            in_features=self.in_features,
            out_features=self.out_features,
            depth=depth,
            width=self.width,
            norm=self.norm,
            activation=self.activation,
            order=self.order,
            init=self.init,
            weight_std=weight_std,
            bias_std=bias_std,
            skip=skip,
            rngs=nnx.Rngs(key),
        )


@dataclass(frozen=True)
class Member:
    """One network of a sweep. Its numbers depend on these fields and on nothing else."""

    net: str
    norm: str
    depth: int
    seed: int
    learning_rate: float
    weight_std: float
    bias_std: float

    @property
    def skip(self) -> float:
        """The strength of the skip connections."""
        return SKIP_STRENGTH[self.net]

    def init_key(self) -> Key[Array, ""]:
        """The key of the initial weights: by seed and depth only, so that kinds, norms and rates compare like with like."""
        return jax.random.fold_in(jax.random.split(jax.random.key(self.seed))[0], self.depth)

    def build(self, structure: Structure) -> nnx.Module:
        """This member alone, exactly as it starts in a sweep."""
        return structure.build(self.depth, self.init_key(), self.skip, self.weight_std, self.bias_std)


def data_key(seed: int) -> Key[Array, ""]:
    """The key of the order in which a member of this seed sees the data."""
    return jax.random.split(jax.random.key(seed))[1]


def members_of(config: Config) -> tuple[Member, ...]:
    """Every combination of a sweep's values, members of one structure side by side."""
    return tuple(
        Member(net, norm, depth, seed, learning_rate, weight_std, bias_std)
        for norm, net, depth, seed, learning_rate, weight_std, bias_std in product(
            config.norms,
            config.nets,
            config.depths,
            config.seeds,
            config.learning_rates,
            config.weight_std,
            config.bias_std,
        )
    )


def structures_of(config: Config, in_features: int, out_features: int) -> dict[Structure, tuple[Member, ...]]:
    """The programs of a sweep and the members each trains, in the order of `members_of`."""
    groups: dict[Structure, tuple[Member, ...]] = {}
    for member in members_of(config):
        structure = Structure(
            config.arch,
            member.norm,
            config.width,
            config.activation,
            config.order,
            config.init,
            in_features,
            out_features,
        )
        groups[structure] = (*groups.get(structure, ()), member)
    return groups

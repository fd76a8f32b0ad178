"""The members of a sweep: who they are, and how each is built."""

from collections.abc import Callable
from dataclasses import dataclass

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float, Int, Key

from nets import MLP, Network
from nets.mlp import SKIP_STRENGTH

ARCHITECTURES: dict[str, Callable[..., Network]] = {"mlp": MLP}


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
    ) -> Network:
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

    def build(self, structure: Structure) -> Network:
        """This member alone, exactly as it starts in a sweep."""
        return structure.build(self.depth, init_key(self.seed, self.depth), self.skip, self.weight_std, self.bias_std)


def init_key(seed: int | Int[Array, ""], depth: int) -> Key[Array, ""]:
    """The key of the initial weights: by seed and depth only, so that kinds, norms and rates compare like with like."""
    return jax.random.fold_in(jax.random.split(jax.random.key(seed))[0], depth)


def data_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of the order in which a member of this seed sees the data."""
    return jax.random.split(jax.random.key(seed))[1]

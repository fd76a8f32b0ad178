"""The members of a sweep: who they are, and how each is built."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import numpy as np
from flax import nnx
from jax import Array
from jax.typing import ArrayLike
from jaxtyping import Float, Int, Key

from nets import CNN, MLP, SKIP_STRENGTH, Network

ImageShape = tuple[int, int, int]


def _mlp(image_shape: ImageShape, shortcut: str, **settings: Any) -> Network:
    del shortcut  # every block of an MLP has one size
    return MLP(in_features=math.prod(image_shape), **settings)


def _cnn(layout: str, image_shape: ImageShape, **settings: Any) -> Network:
    return CNN(layout=layout, in_channels=image_shape[-1], **settings)


ARCHITECTURES: dict[str, Callable[..., Network]] = {
    "mlp": _mlp,
    "cnn": partial(_cnn, "staged"),
    "isotropic-cnn": partial(_cnn, "isotropic"),
}


@dataclass(frozen=True)
class Structure:
    """What splits a sweep into programs: everything about a network that is not a number."""

    arch: str
    norm: str
    width: int
    activation: str
    order: str
    init: str
    shortcut: str
    image_shape: ImageShape
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
            image_shape=self.image_shape,
            shortcut=self.shortcut,
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


class Traits(NamedTuple):
    """The numbers that tell members of one structure and depth apart, as arrays: they may be traced.

    Attributes:
      seed, skip, weight_std, bias_std, learning_rate: by member.
      seeds: the distinct seeds; the last may be repeated.
      place: where a member's seed stands in `seeds`.
    """

    seed: Int[ArrayLike, " member"]
    skip: Float[ArrayLike, " member"]
    weight_std: Float[ArrayLike, " member"]
    bias_std: Float[ArrayLike, " member"]
    learning_rate: Float[ArrayLike, " member"]
    seeds: Int[ArrayLike, " seed"]
    place: Int[ArrayLike, " member"]


def traits_of(members: Sequence[Member], shards: int) -> Traits:
    """The traits of the members of one shard after the other, stacked `[shard, ...]`."""

    def stacked(name: str) -> np.ndarray:
        return np.asarray([getattr(member, name) for member in members]).reshape(shards, -1)

    seed = stacked("seed")
    distinct = [np.unique(row) for row in seed]
    longest = max(map(len, distinct))
    return Traits(
        seed,
        stacked("skip"),
        stacked("weight_std"),
        stacked("bias_std"),
        stacked("learning_rate"),
        np.stack([np.pad(row, (0, longest - len(row)), mode="edge") for row in distinct]),
        np.stack([np.searchsorted(row, own) for row, own in zip(distinct, seed, strict=True)]),
    )


def init_key(seed: int | Int[Array, ""], depth: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of the initial weights: by seed and depth only, so that kinds, norms and rates compare like with like."""
    return jax.random.fold_in(jax.random.split(jax.random.key(seed))[0], depth)


def data_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of the order in which a member of this seed sees the data."""
    return jax.random.split(jax.random.key(seed))[1]


def augmentation_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of what is done at random to the images that a member of this seed sees."""
    return jax.random.split(jax.random.key(seed), 3)[2]


def probe_key(seed: int | Int[Array, ""]) -> Key[Array, ""]:
    """The key of whatever is random in measuring a member of this seed."""
    return jax.random.split(jax.random.key(seed), 4)[3]

"""The queue: networks of different depth that run one after the other, without padding.

All layers of the first member stand before all of the second, stacked `[layer, ...]`. A member's stack is a loop as
long as it is deep, so that one program serves all members and all depths.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from jaxtyping import Float, Int, PyTree

from sweep.rows import scaled

# `layer(params, rest, h)`, the next hidden state and the layer's updated variables.
Layer = Callable[[PyTree[Array], PyTree[Array], Array], tuple[Array, PyTree[Array]]]


@dataclass(frozen=True)
class Queue:
    """The layout for members with these numbers of layers."""

    depths: tuple[int, ...]

    @property
    def starts(self) -> np.ndarray:
        """Every member's first layer."""
        return np.cumsum(self.depths) - self.depths

    def extract(self, arrays: PyTree[Array], members: slice) -> PyTree[Array]:
        """The layers of neighbours that have as many, at least one: arrays `[member, layer, ...]`."""
        layers = self.depths[members]
        start = self.starts[members.start]
        return jax.tree.map(
            lambda leaf: leaf[start : start + sum(layers)].reshape(len(layers), -1, *leaf.shape[1:]), arrays
        )

    def scale(self, arrays: PyTree[Array], factors: Float[Array, " member"]) -> PyTree[Array]:
        """Multiplies every member's arrays by its own factor."""
        of_layer = jnp.repeat(factors, np.asarray(self.depths), total_repeat_length=sum(self.depths))
        return scaled(arrays, of_layer)

    def padded(self, arrays: PyTree[Array]) -> PyTree[Array]:
        """The arrays with room for a window that starts at the last member."""
        return jax.tree.map(lambda leaf: jnp.pad(leaf, [(0, max(self.depths))] + [(0, 0)] * (leaf.ndim - 1)), arrays)

    def room(self, window: PyTree[Any]) -> PyTree[Array]:
        """Padded arrays of zeros, into which windows shaped like this one can be put."""
        layers = sum(self.depths) + max(self.depths)
        return jax.tree.map(lambda leaf: jnp.zeros((layers, *leaf.shape[1:]), leaf.dtype), window)

    def unpadded(self, padded: PyTree[Array]) -> PyTree[Array]:
        """The inverse of `padded`."""
        return jax.tree.map(lambda leaf: leaf[: sum(self.depths)], padded)

    def window(self, padded: PyTree[Array], start: Int[Array, ""]) -> PyTree[Array]:
        """A member's layers, and after them those of the next ones: as many for every member."""
        return jax.tree.map(lambda leaf: lax.dynamic_slice_in_dim(leaf, start, max(self.depths)), padded)

    def put(self, padded: PyTree[Array], window: PyTree[Array], start: Int[Array, ""]) -> PyTree[Array]:
        """Writes a window. What of it is not the member's own the next ones must write, in their order."""
        return jax.tree.map(lambda leaf, w: lax.dynamic_update_slice_in_dim(leaf, w, start, 0), padded, window)


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def climb(
    layer: Layer,
    params: PyTree[Array],
    rest: PyTree[Array],
    layers: Int[Array, ""],
    h: Float[Array, "..."],
    kept: list[Array],
) -> tuple[Float[Array, "..."], PyTree[Array], list[Array]]:
    """The first `layers` layers of a stack `[layer, ...]`, in a loop of that length, which has no derivative in JAX.

    Args:
      layer: one layer.
      params, rest: the arrays of at least so many.
      layers: how many.
      h: the hidden state before the first.
      kept: room for what the derivative keeps (`room`), given back when it is filled: a loop over members that hands it
        on need not make that much memory, and fill it with zeros, for each of them.

    Returns:
      The hidden state after the last layer, the variables updated, and `kept`. Only the first has a derivative, by
        `params` and `h`.
    """

    def body(i: Array, carry: tuple) -> tuple:
        h, rest = carry
        h, updated = layer(_row(params, i), _row(rest, i), h)
        return h, _put(rest, updated, i)

    return *lax.fori_loop(0, layers, body, (h, rest)), kept


def room(layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: int, h: Any) -> list[Array]:
    """Arrays for what the derivative of `climb` keeps of so many layers of a hidden state like `h`."""
    _, own, leaves = _pullback(layer, params, rest, h)
    kept = (leaf for leaf, index in zip(leaves, own, strict=True) if index is None)
    return [jnp.zeros((layers, *leaf.shape), leaf.dtype) for leaf in kept]


def _pull(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Array) -> tuple[Array, Callable, PyTree[Array]]:
    return jax.vjp(lambda params, h: layer(params, rest, h), params, h, has_aux=True)


def _pullback(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Any) -> tuple[Any, list[int | None], list]:
    """A layer's pullback as a tree: its structure; which of its leaves are which of the layer's arrays; its leaves."""
    traced, (_, pull, _) = jax.make_jaxpr(partial(_pull, layer), return_shape=True)(_row(params, 0), _row(rest, 0), h)
    inputs = {id(var): index for index, var in enumerate(traced.jaxpr.invars[:-1])}
    leaves, structure = jax.tree.flatten(pull)
    return structure, [inputs.get(id(var)) for var in traced.jaxpr.outvars[1 : 1 + len(leaves)]], leaves


# The pullback's arrays are stacked as they are made; those that are the layer's own are stacked already.
def _climb_forward(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: Array, h: Array, kept: list[Array]
) -> tuple[tuple, tuple]:
    structure, own, _ = _pullback(layer, params, rest, h)

    def body(i: Array, carry: tuple) -> tuple:
        h, rest, kept = carry
        h, pull, updated = _pull(layer, _row(params, i), _row(rest, i), h)
        new = [leaf for leaf, index in zip(jax.tree.leaves(pull), own, strict=True) if index is None]
        return h, _put(rest, updated, i), _put(kept, new, i)

    given = jax.tree.leaves((params, rest))
    h, rest, kept = lax.fori_loop(0, layers, body, (h, rest, kept))
    new = iter(kept)
    pulls = jax.tree.unflatten(structure, [next(new) if index is None else given[index] for index in own])
    return (h, rest, kept), (pulls, jax.tree.map(jnp.zeros_like, params), layers)


def _climb_backward(layer: Layer, residuals: tuple, cotangents: tuple) -> tuple:
    (pulls, gradients, layers), (h, _, _) = residuals, cotangents

    def body(i: Array, carry: tuple) -> tuple:
        h, gradients = carry
        i = layers - 1 - i
        gradient, h = _row(pulls, i)(h)
        return h, _put(gradients, gradient, i)

    h, gradients = lax.fori_loop(0, layers, body, (h, gradients))
    return gradients, None, None, h, None


climb.defvjp(_climb_forward, _climb_backward)


def _row(arrays: PyTree[Array], i: Array | int) -> PyTree[Array]:
    return jax.tree.map(lambda array: lax.dynamic_index_in_dim(array, i, keepdims=False), arrays)


def _put(arrays: PyTree[Array], rows: PyTree[Array], i: Array) -> PyTree[Array]:
    return jax.tree.map(lambda array, row: lax.dynamic_update_index_in_dim(array, row, i, 0), arrays, rows)

"""A stack of layers as a loop that keeps what its derivative needs in memory it is given.

JAX's `scan` has a derivative too, but one that makes that memory anew with every call, fills it with zeros, and keeps
an output that is the next layer's input twice. And its length is fixed.

Where the memory is too small for all layers it holds those of a chunk, and the hidden state before every chunk. The
derivative then computes each chunk's layers a second time, a third more work in all (Griewank & Walther 2000; Chen et
al. 2016, section 4, for chunks of the square root of all layers).
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, PyTree

# How many of so many layers are a chunk.
REMATERIALIZATIONS: Mapping[str, Callable[[int], int]] = {
    "none": lambda layers: layers,
    "sqrt": lambda layers: math.isqrt(layers - 1) + 1,
}

# `layer(params, rest, h)`, the next hidden state and the layer's updated variables.
Layer = Callable[[PyTree[Array], PyTree[Array], Array], tuple[Array, PyTree[Array]]]


@jax.tree_util.register_static
@dataclass(frozen=True)
class Pullback:
    """A layer's pullback as a tree.

    Attributes:
      structure: the tree's.
      sources: where each of its leaves is to be had: the place among the layer's arrays, followed by its input and its
        output, or None.
    """

    structure: Any
    sources: tuple[int | None, ...]


class Room(NamedTuple):
    """Memory for what a stack's derivative keeps; what it holds before does not matter.

    Attributes:
      states: the hidden states of a chunk, before its first layer and after every one.
      others: what else the derivatives of a chunk's layers keep, `[layer, ...]`.
      entries: the hidden states before every chunk; none if one chunk is all.
      pullback: where the derivative finds what in these.
    """

    states: Float[Array, "state ..."]
    others: list[Array]
    entries: Float[Array, "chunk ..."]
    pullback: Pullback


def ascend(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: int | Int[Array, ""], h: Float[Array, "..."]
) -> tuple[Float[Array, "..."], PyTree[Array]]:
    """The hidden state after the first `layers` layers of a stack `[layer, ...]`, and the variables updated."""
    return _ascend(layer, params, rest, 0, layers, h)


def _ascend(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], start: int | Array, stop: int | Array, h: Array
) -> tuple[Array, PyTree[Array]]:
    def body(i: Array, carry: tuple) -> tuple:
        h, rest = carry
        h, updated = layer(_row(params, i), _row(rest, i), h)
        return h, _put(rest, updated, i)

    return lax.fori_loop(start, stop, body, (h, rest))


def climb(
    layer: Layer,
    params: PyTree[Array],
    rest: PyTree[Array],
    layers: Int[Array, ""],
    h: Float[Array, "..."],
    room: Room,
    gradients: PyTree[Array],
) -> tuple[Float[Array, "..."], PyTree[Array], Room]:
    """`ascend` with a derivative, which a loop of any length has not in JAX.

    Args:
      layer: one layer.
      params, rest: the arrays of at least so many layers.
      layers: how many.
      h: the hidden state before the first.
      room: from `room_for`, or what another call returned.
      gradients: arrays like `params` that the derivative may overwrite, such as gradients that nobody needs any more.

    Returns:
      The hidden state after the last layer, the variables updated, and the room, for the next call. Only the first has
        a derivative, by `params` and `h`; that by the parameters of further layers is what `gradients` held.
    """

    return _climb(layer, params, rest, layers, h, room, gradients)


def room_for(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: int, h: Any, remat: str = "none"
) -> Room:
    """Room for so many layers of a hidden state like `h`, in chunks as `REMATERIALIZATIONS` says."""
    pullback, leaves = _pullback(layer, params, rest, h)
    others = [leaf for leaf, source in zip(leaves, pullback.sources, strict=True) if source is None]
    chunk = REMATERIALIZATIONS[remat](layers)
    entries = -(-layers // chunk) if chunk < layers else 0
    return Room(
        jnp.zeros((chunk + 1, *h.shape), h.dtype),
        [jnp.zeros((chunk, *leaf.shape), leaf.dtype) for leaf in others],
        jnp.zeros((entries, *h.shape), h.dtype),
        pullback,
    )


def _pull(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Array) -> tuple[Array, Callable, PyTree[Array]]:
    return jax.vjp(lambda params, h: layer(params, rest, h), params, h, has_aux=True)


def _pullback(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Any) -> tuple[Pullback, list[Any]]:
    """A layer's pullback, and its leaves."""
    arrays = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), (params, rest))
    traced, (_, pull, _) = jax.make_jaxpr(partial(_pull, layer), return_shape=True)(*arrays, h)
    known = {id(var): place for place, var in enumerate([*traced.jaxpr.invars, traced.jaxpr.outvars[0]])}
    leaves, structure = jax.tree.flatten(pull)
    return Pullback(structure, tuple(known.get(id(var)) for var in traced.jaxpr.outvars[1 : 1 + len(leaves)])), leaves


@partial(jax.custom_vjp, nondiff_argnums=(0,))
def _climb(layer: Layer, params: Any, rest: Any, layers: Any, h: Any, room: Any, gradients: Any) -> Any:
    del gradients  # of the derivative
    return *ascend(layer, params, rest, layers, h), room


def _forward(
    layer: Layer,
    params: PyTree[Array],
    rest: PyTree[Array],
    layers: Array,
    h: Array,
    room: Room,
    gradients: PyTree[Array],
) -> tuple[tuple, tuple]:
    if not len(room.entries):
        after, updated, room = _keep(layer, params, rest, jnp.zeros_like(layers), layers, h, room)
        return (after, updated, room), (params, rest, layers, room, gradients)
    chunk = len(room.states) - 1

    def body(k: Array, carry: tuple) -> tuple:
        h, updated, entries = carry
        entries = _put(entries, h, k)
        h, updated = _ascend(layer, params, updated, k * chunk, jnp.minimum((k + 1) * chunk, layers), h)
        return h, updated, entries

    after, updated, entries = lax.fori_loop(0, -(-layers // chunk), body, (h, rest, room.entries))
    room = room._replace(entries=entries)
    return (after, updated, room), (params, rest, layers, room, gradients)


def _keep(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], start: Array, stop: Array, h: Array, room: Room
) -> tuple[Array, PyTree[Array], Room]:
    """From layer `start` to `stop`, keeping all that their derivatives need."""

    def body(i: Array, carry: tuple) -> tuple:
        h, rest, states, others = carry
        h, pull, updated = _pull(layer, _row(params, i), _row(rest, i), h)
        new = [
            leaf for leaf, source in zip(jax.tree.leaves(pull), room.pullback.sources, strict=True) if source is None
        ]
        return h, _put(rest, updated, i), _put(states, h, i - start + 1), _put(others, new, i - start)

    begin = h, rest, room.states.at[0].set(h), room.others
    after, updated, states, others = lax.fori_loop(start, stop, body, begin)
    return after, updated, room._replace(states=states, others=others)


def _backward(layer: Layer, residuals: tuple, cotangents: tuple) -> tuple:
    (params, rest, layers, room, gradients), (h, _, _) = residuals, cotangents
    own = jax.tree.leaves((params, rest))

    def through(start: Array, stop: Array, room: Room, h: Array, gradients: PyTree[Array]) -> tuple:
        def body(i: Array, carry: tuple) -> tuple:
            h, gradients = carry
            i = stop - 1 - (i - start)
            others = iter(_row(room.others, i - start))

            def leaf(source: int | None) -> Array:
                if source is None:
                    return next(others)
                if source < len(own):
                    return _row(own[source], i)
                return _row(room.states, i - start + source - len(own))

            gradient, h = jax.tree.unflatten(room.pullback.structure, map(leaf, room.pullback.sources))(h)
            return h, _put(gradients, gradient, i)

        return lax.fori_loop(start, stop, body, (h, gradients))

    if not len(room.entries):
        h, gradients = through(jnp.zeros_like(layers), layers, room, h, gradients)
        return gradients, None, None, h, None, None
    chunk = len(room.states) - 1
    chunks = -(-layers // chunk)

    def body(k: Array, carry: tuple) -> tuple:
        h, gradients, room = carry
        k = chunks - 1 - k
        start, stop = k * chunk, jnp.minimum((k + 1) * chunk, layers)
        _, _, room = _keep(layer, params, rest, start, stop, _row(room.entries, k), room)
        return *through(start, stop, room, h, gradients), room

    h, gradients, _ = lax.fori_loop(0, chunks, body, (h, gradients, room))
    return gradients, None, None, h, None, None


_climb.defvjp(_forward, _backward)


# No index is negative: arithmetic in case one were would be a good part of what these loops have to compile.
def _row(arrays: PyTree[Array], i: Array | int) -> PyTree[Array]:
    row = partial(lax.dynamic_index_in_dim, index=i, keepdims=False, allow_negative_indices=False)
    return jax.tree.map(row, arrays)


def _put(arrays: PyTree[Array], rows: PyTree[Array], i: Array) -> PyTree[Array]:
    put = partial(lax.dynamic_update_index_in_dim, index=i, axis=0, allow_negative_indices=False)
    return jax.tree.map(put, arrays, rows)

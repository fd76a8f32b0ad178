"""A stack of layers as a loop that keeps what its derivative needs in memory it is given.

JAX's `scan` has a derivative too, but one that makes that memory anew with every call, fills it with zeros, and keeps
an output that is the next layer's input twice. And its length is fixed.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, Int, PyTree

# `layer(params, rest, h)`, the next hidden state and the layer's updated variables.
Layer = Callable[[PyTree[Array], PyTree[Array], Array], tuple[Array, PyTree[Array]]]


class Room(NamedTuple):
    """Memory for what a stack's derivative keeps; what it holds before does not matter.

    Attributes:
      states: the hidden states, before the first layer and after every one.
      others: what else the layers' derivatives keep, `[layer, ...]`.
    """

    states: Float[Array, "state ..."]
    others: list[Array]


def ascend(
    layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: int | Int[Array, ""], h: Float[Array, "..."]
) -> tuple[Float[Array, "..."], PyTree[Array]]:
    """The hidden state after the first `layers` layers of a stack `[layer, ...]`, and the variables updated."""

    def body(i: Array, carry: tuple) -> tuple:
        h, rest = carry
        h, updated = layer(_row(params, i), _row(rest, i), h)
        return h, _put(rest, updated, i)

    return lax.fori_loop(0, layers, body, (h, rest))


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


def room_for(layer: Layer, params: PyTree[Array], rest: PyTree[Array], layers: int, h: Any) -> Room:
    """Room for so many layers of a hidden state like `h`."""
    _, sources, leaves = _pullback(layer, params, rest, h)
    others = [leaf for leaf, source in zip(leaves, sources, strict=True) if source is None]
    return Room(
        jnp.zeros((layers + 1, *h.shape), h.dtype),
        [jnp.zeros((layers, *leaf.shape), leaf.dtype) for leaf in others],
    )


def _pull(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Array) -> tuple[Array, Callable, PyTree[Array]]:
    return jax.vjp(lambda params, h: layer(params, rest, h), params, h, has_aux=True)


def _pullback(layer: Layer, params: PyTree[Array], rest: PyTree[Array], h: Any) -> tuple[Any, list[int | None], list]:
    """A layer's pullback as a tree.

    Returns:
      Its structure; where each of its leaves is to be had: the place among the layer's arrays, followed by its input
        and its output, or None; and the leaves.
    """
    traced, (_, pull, _) = jax.make_jaxpr(partial(_pull, layer), return_shape=True)(_row(params, 0), _row(rest, 0), h)
    known = {id(var): place for place, var in enumerate([*traced.jaxpr.invars, traced.jaxpr.outvars[0]])}
    leaves, structure = jax.tree.flatten(pull)
    return structure, [known.get(id(var)) for var in traced.jaxpr.outvars[1 : 1 + len(leaves)]], leaves


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
    _, sources, _ = _pullback(layer, params, rest, h)

    def body(i: Array, carry: tuple) -> tuple:
        h, rest, states, others = carry
        h, pull, updated = _pull(layer, _row(params, i), _row(rest, i), h)
        new = [leaf for leaf, source in zip(jax.tree.leaves(pull), sources, strict=True) if source is None]
        return h, _put(rest, updated, i), _put(states, h, i + 1), _put(others, new, i)

    start = h, rest, room.states.at[0].set(h), room.others
    after, updated, states, others = lax.fori_loop(0, layers, body, start)
    room = Room(states, others)
    return (after, updated, room), (params, rest, layers, h, room, gradients)


def _backward(layer: Layer, residuals: tuple, cotangents: tuple) -> tuple:
    (params, rest, layers, like, room, gradients), (h, _, _) = residuals, cotangents
    structure, sources, _ = _pullback(layer, params, rest, like)
    own = jax.tree.leaves((params, rest))

    def body(i: Array, carry: tuple) -> tuple:
        h, gradients = carry
        i = layers - 1 - i
        others = iter(_row(room.others, i))

        def leaf(source: int | None) -> Array:
            if source is None:
                return next(others)
            return _row(own[source], i) if source < len(own) else _row(room.states, i + source - len(own))

        gradient, h = jax.tree.unflatten(structure, map(leaf, sources))(h)
        return h, _put(gradients, gradient, i)

    h, gradients = lax.fori_loop(0, layers, body, (h, gradients))
    return gradients, None, None, h, None, None


_climb.defvjp(_forward, _backward)


def _row(arrays: PyTree[Array], i: Array | int) -> PyTree[Array]:
    return jax.tree.map(lambda array: lax.dynamic_index_in_dim(array, i, keepdims=False), arrays)


def _put(arrays: PyTree[Array], rows: PyTree[Array], i: Array) -> PyTree[Array]:
    return jax.tree.map(lambda array, row: lax.dynamic_update_index_in_dim(array, row, i, 0), arrays, rows)

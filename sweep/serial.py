"""Networks of one structure, of any depths, one after the other: forward, or forward and backward.

The program is that of one member. What its backward pass needs is kept in the same place for all of them, so that
memory does not grow with their number.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Float, PyTree

from sweep.climb import Layer, Room, ascend, climb, room_for
from sweep.queue import Queue

# An ensemble's arrays by section: parameters, statistics, gradients and optimizer moments all come in this shape. A
# stack's are as its layout has them, a single module's `[member, ...]`; of one member, a window of a queue, or its own.
Parts = dict[str, Any]
# The sections' code, in order: `module(params, rest, x) -> y, rest`, of a stack one layer's.
Modules = Mapping[str, Layer]
# By section that is a stack, where the derivative may write what it keeps, and the gradients.
Kept = dict[str, tuple[Room, PyTree[Array]]]


def forward(
    queues: Mapping[str, Queue], modules: Modules, params: Parts, rest: Parts, x: Float[Array, "member batch *features"]
) -> tuple[Float[Array, "member batch classes"], Parts]:
    """All members' logits, each on its own batch, and their updated variables."""

    def member(state: None, params: Parts, rest: Parts, layers: dict[str, Array], x: Array) -> tuple:
        def stack(name: str, module: Layer, h: Array) -> tuple:
            return ascend(module, params[name], rest[name], layers[name], h)

        logits, updated = _member(modules, params, rest, {name: partial(stack, name) for name in queues}, x)
        return state, (updated,), logits

    (updated,), logits, _ = _each(queues, member, None, (rest,), params, rest, x)
    return logits, updated


def gradients(
    queues: Mapping[str, Queue],
    modules: Modules,
    loss: Callable[[Array, Array], Array],
    params: Parts,
    rest: Parts,
    x: Float[Array, "member batch *features"],
    labels: Array,
    kept: Kept,
) -> tuple[Parts, tuple[Float[Array, " member"], Parts, Kept]]:
    """Each member's gradient of the loss of its own logits and labels, as `Ensemble.gradients` has it."""

    def member(kept: Kept, params: Parts, rest: Parts, layers: dict[str, Array], rows: tuple[Array, Array]) -> tuple:
        x, labels = rows

        def of(params: Parts) -> tuple[Array, tuple[Parts, dict[str, Room]]]:
            rooms: dict[str, Room] = {}

            def stack(name: str, module: Layer, h: Array) -> tuple:
                h, updated, rooms[name] = climb(module, params[name], rest[name], layers[name], h, *kept[name])
                return h, updated

            logits, updated = _member(modules, params, rest, {name: partial(stack, name) for name in queues}, x)
            return loss(logits, labels), (updated, rooms)

        (value, (updated, rooms)), gradient = jax.value_and_grad(of, has_aux=True)(params)
        return {name: (rooms[name], gradient[name]) for name in queues}, (gradient, updated), value

    (found, updated), losses, kept = _each(queues, member, kept, (params, rest), params, rest, (x, labels))
    return found, (losses, updated, kept)


def room(queues: Mapping[str, Queue], modules: Modules, params: Parts, rest: Parts, x: Any, remat: str) -> Kept:
    """What `gradients` needs for batches like `x`: memory for the stacks of the deepest member."""
    found: Kept = {}
    h = jax.ShapeDtypeStruct(x.shape[1:], x.dtype)
    for name, module in modules.items():
        if name in queues:
            layers = max(queues[name].depths)
            gradients = jax.tree.map(lambda leaf, n=layers: jnp.zeros((n, *leaf.shape[1:]), leaf.dtype), params[name])
            found[name] = room_for(module, params[name], rest[name], layers, h, remat), gradients
        else:
            first = jax.tree.map(lambda leaf: leaf[0], (params[name], rest[name]))
            h, _ = jax.eval_shape(module, *first, h)
    return found


def _member(
    modules: Modules, params: Parts, rest: Parts, stacks: Mapping[str, Callable[[Layer, Array], tuple]], x: Array
) -> tuple[Array, Parts]:
    """One network, whose stacks run as given: its logits, and its variables updated."""
    updated = {}
    for name, module in modules.items():
        x, updated[name] = stacks[name](module, x) if name in stacks else module(params[name], rest[name], x)
    return x, updated


def _each(
    queues: Mapping[str, Queue],
    member: Callable[..., tuple],
    state: PyTree[Array],
    like: tuple[Parts, ...],
    params: Parts,
    rest: Parts,
    rows: PyTree[Array],
) -> tuple[tuple[Parts, ...], PyTree[Array], PyTree[Array]]:
    """`member(state, params, rest, layers, rows) -> state, parts, outputs` of one member after the other.

    Args:
      queues: the layouts of the sections that are stacks.
      member: gets a member's arrays, how many layers each of its stacks has, and its rows of `rows`.
      state: what every member hands to the next.
      like: arrays shaped like all members' `parts`, each by section.
      params, rest: all members' arrays.
      rows: arrays `[member, ...]`.

    Returns:
      All members' `parts`, `outputs` stacked, and the last member's `state`.
    """
    sections = list(params)
    single = [name for name in sections if name not in queues]
    own = {name: (params[name], rest[name]) for name in single}
    padded = {name: queue.padded((params[name], rest[name])) for name, queue in queues.items()}
    made = {name: queue.padded(tuple(part[name] for part in like)) for name, queue in queues.items()}
    places = {name: (jnp.asarray(queue.starts), jnp.asarray(queue.depths)) for name, queue in queues.items()}

    def body(carry: tuple[PyTree[Array], Parts], at: tuple) -> tuple[tuple[PyTree[Array], Parts], tuple]:
        (state, made), (places, own, rows) = carry, at
        windows = {name: queue.window(padded[name], places[name][0]) for name, queue in queues.items()}
        params, rest = ({name: (own | windows)[name][i] for name in sections} for i in (0, 1))
        layers = {name: places[name][1] for name in queues}
        state, parts, outputs = member(state, params, rest, layers, rows)
        found = {name: tuple(part[name] for part in parts) for name in sections}
        made = {name: queue.put(made[name], found[name], places[name][0]) for name, queue in queues.items()}
        return (state, made), ({name: found[name] for name in single}, outputs)

    (state, made), (found, outputs) = lax.scan(body, (state, made), (places, own, rows))
    found |= {name: queue.unpadded(made[name]) for name, queue in queues.items()}
    return tuple({name: found[name][i] for name in sections} for i in range(len(like))), outputs, state

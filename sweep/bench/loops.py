"""What one would write in Flax without fathom: a Python loop over networks, over depths, or padding."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets import Stack
from nets.stack import step
from sweep.bench.batches import Batches
from sweep.bench.twins import Unrolled, scanned
from sweep.bench.way import Start, Trainer, Workload
from sweep.members import Member

# Parameters, other variables, the optimizer's moments.
State = tuple[Any, Any, Any]
Step = Callable[[State, Array, Array], tuple[State, Array]]
Call = Callable[[Any, Any, Array], tuple[Array, Any]]


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, Any, Any]:
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)
    return graphdef, nnx.as_pure(params), nnx.as_pure(rest)


def _step(call: Call, workload: Workload) -> Step:
    """A training step of one network, from `call(params, rest, x) -> logits, rest`."""
    optimizer, call = _optimizer(workload), _rounded(call, workload.precision)

    def train(state: State, x: Array, labels: Array) -> tuple[State, Array]:
        params, rest, moments = state

        def loss(params: Any) -> tuple[Array, Any]:
            logits, updated = call(params, rest, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), updated

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), updated, moments), value

    return train


def _rounded(call: Call, precision: str | None) -> Call:
    """`call` on parameters and inputs rounded to a precision; its logits and other variables are not."""
    if precision is None:
        return call

    def rounded(params: Any, rest: Any, x: Array) -> tuple[Array, Any]:
        params, x = jax.tree.map(lambda leaf: leaf.astype(precision), (params, x))
        logits, updated = call(params, rest, x)
        return logits.astype(float), updated

    return rounded


@dataclass(frozen=True)
class _Group:
    """Members that one call of a program trains, and the `kind` that tells which groups can share it."""

    members: Sequence[Member]
    state: State
    step: Step
    kind: tuple[str, int]


class _Loop(Trainer):
    """A program for every kind of group, called for one group after the other."""

    def __init__(self, workload: Workload, groups: Sequence[_Group], batches: Batches):
        self._batches, self._states = batches, [group.state for group in groups]
        order = [member for group in groups for member in group.members]
        self._columns = [order.index(member) for member in workload.members]
        started = time.perf_counter()
        programs: dict[tuple[str, int], Any] = {}
        for group, batch in zip(groups, batches(0), strict=True):
            if group.kind not in programs:
                # By a call on copies, and not ahead of time: what `jit` returns takes many small arrays faster.
                programs[group.kind] = jax.jit(group.step, donate_argnums=0)
                jax.block_until_ready(programs[group.kind](jax.tree.map(jnp.copy, group.state), *batch))
        self.compile_seconds = time.perf_counter() - started
        self._programs = [programs[group.kind] for group in groups]

    def take(self, first: int, count: int) -> Float[np.ndarray, "step member"]:
        losses: list[list[Array]] = []
        for index in range(first, first + count):
            losses.append([])
            for i, (program, batch) in enumerate(zip(self._programs, self._batches(index), strict=True)):
                self._states[i], loss = program(self._states[i], *batch)
                losses[-1].append(loss)
        return np.stack([np.concatenate([np.atleast_1d(loss) for loss in row]) for row in losses])[:, self._columns]


def _optimizer(workload: Workload) -> optax.GradientTransformation:
    return optax.sgd(workload.config.learning_rates[0], momentum=workload.config.momentum)


def _one_by_one(workload: Workload, twin: Callable[[Any], nnx.Module]) -> Start:
    optimizer, groups = _optimizer(workload), []
    for member in workload.members:
        graphdef, params, rest = _split(twin(member.build(workload.structure)))
        state = params, rest, optimizer.init(params)
        train = _step(partial(step, graphdef), workload)
        groups.append(_Group([member], state, train, (member.net, member.depth)))
    return _start(workload, groups, stacked=False)


def _start(workload: Workload, groups: Sequence[_Group], stacked: bool) -> Start:
    batches = Batches(workload, [group.members for group in groups], stacked)
    return lambda: _Loop(workload, groups, batches)


def unrolled(workload: Workload) -> Start:
    """A loop over networks whose layers stand in a Python list; a program a kind and depth."""
    return _one_by_one(workload, Unrolled)


def scanned_layers(workload: Workload) -> Start:
    """A loop over networks whose layers are scanned; a program a kind and depth."""
    return _one_by_one(workload, scanned)


def vmapped_seeds(workload: Workload) -> Start:
    """A loop over kinds and depths: a network with scanned layers, vmapped over seeds."""
    optimizer, groups = _optimizer(workload), []
    for kind in dict.fromkeys((member.net, member.depth) for member in workload.members):
        members = [member for member in workload.members if (member.net, member.depth) == kind]
        found = [_split(scanned(member.build(workload.structure))) for member in members]
        params, rest = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *(f[i] for f in found)) for i in (1, 2))
        train = jax.vmap(_step(partial(step, found[0][0]), workload))
        groups.append(_Group(members, (params, rest, jax.vmap(optimizer.init)(params)), train, kind))
    return _start(workload, groups, stacked=True)


def padded(workload: Workload) -> Start:
    """All members as deep as the deepest, layers past their own switched off, vmapped."""
    optimizer = _optimizer(workload)
    deepest = max(workload.members, key=lambda member: member.depth)
    network = scanned(deepest.build(workload.structure))
    graphs = {name: nnx.graphdef(_layers(section)) for name, section in network.sections.items()}
    states = [_padded_to(network, scanned(member.build(workload.structure))) for member in workload.members]
    params, rest = (jax.tree.map(lambda *leaves: jnp.stack(leaves), *(s[i] for s in states)) for i in (0, 1))

    def call(params: Any, rest: Any, x: Array) -> tuple[Array, Any]:
        rest, counts = rest
        updated = {}
        for name, graph in graphs.items():
            if name not in counts:
                x, updated[name] = step(graph, params[name], rest[name], x)
                continue

            def layer(h: Array, arrays: Any, graph: nnx.GraphDef = graph, count: Array = counts[name]) -> Any:
                index, params, rest = arrays
                after, updated = step(graph, params, rest, h)
                return jnp.where(index < count, after, h), updated

            indices = jnp.arange(len(jax.tree.leaves(params[name])[0]))
            x, updated[name] = jax.lax.scan(layer, x, (indices, params[name], rest[name]))
        return x, (updated, counts)

    state = params, rest, jax.vmap(optimizer.init)(params)
    groups = [_Group(workload.members, state, jax.vmap(_step(call, workload)), ("all", deepest.depth))]
    return _start(workload, groups, stacked=True)


def _layers(section: nnx.Module) -> nnx.Module:
    return section.layers if isinstance(section, Stack) else section


def _padded_to(deepest: Any, network: Any) -> tuple[Any, tuple[Any, dict[str, Array]]]:
    """A network's parameters and other variables by section, with layers of zeros, and how many are its own."""
    params, rest, counts = {}, {}, {}
    for name, section in network.sections.items():
        _, params[name], rest[name] = _split(_layers(section))
        if isinstance(section, Stack):
            missing = getattr(deepest, name).depth - section.depth
            counts[name] = jnp.asarray(section.depth)

            def pad(leaf: Array, missing: int = missing) -> Array:
                return jnp.pad(leaf, [(0, missing)] + [(0, 0)] * (leaf.ndim - 1))

            params[name], rest[name] = jax.tree.map(pad, (params[name], rest[name]))
    return params, (rest, counts)

"""The matrix products of a training step: how many operations they are, and how long they take with nothing else.

Nobody's step of MLPs can take less time than its products: the forward pass's, the input gradients' and the weight
gradients'.
"""

import time
from collections.abc import Iterator
from functools import partial
from math import prod
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array, lax
from jax.extend.core import Jaxpr
from jaxtyping import Float

from kernels.versions import ClosedJaxpr
from sweep.bench.twins import Unrolled
from sweep.bench.way import Start, Trainer, Workload
from sweep.devices import Grid, use_every_core
from sweep.ensemble import Ensemble
from sweep.placement import shard_count
from sweep.staircase import Staircase


def products(workload: Workload) -> int:
    """Operations of all matrix products and convolutions in a training step of all members: 2 m k n each.

    Counted in what JAX traces of the networks written layer by layer, so that everybody's count is the same.
    """
    config = workload.config

    def of(depth: int) -> int:
        member = next(member for member in workload.members if member.depth == depth)
        network = nnx.eval_shape(lambda: Unrolled(member.build(workload.structure)))
        graphdef, params, rest = nnx.split(network, nnx.Param, ...)

        def loss(params: Any, rest: Any, x: Array, labels: Array) -> Array:
            logits = nnx.merge(graphdef, params, rest)(x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).sum()

        x = jax.ShapeDtypeStruct((config.batch_size, *workload.structure.image_shape), jnp.result_type(float))
        labels = jax.ShapeDtypeStruct((config.batch_size,), jnp.result_type(int))
        return _count(jax.make_jaxpr(jax.grad(loss))(nnx.as_pure(params), nnx.as_pure(rest), x, labels).jaxpr)

    counts = {depth: of(depth) for depth in config.depths}
    return sum(counts[member.depth] for member in workload.members)


def _count(jaxpr: Jaxpr) -> int:
    def shape(variable: Any) -> tuple[int, ...]:
        return variable.aval.shape

    found = 0
    for equation in jaxpr.eqns:
        size = sum(prod(shape(out)) for out in equation.outvars)
        if equation.primitive is lax.dot_general_p:
            (contracted, _), _ = equation.params["dimension_numbers"]
            found += 2 * size * prod(shape(equation.invars[0])[axis] for axis in contracted)
        elif equation.primitive is lax.conv_general_dilated_p:
            kernel, numbers = shape(equation.invars[1]), equation.params["dimension_numbers"]
            found += 2 * size * prod(kernel) // kernel[numbers.rhs_spec[0]]
        else:
            found += sum(_count(inner) for inner in _inner(equation.params))
    return found


def _inner(params: dict[str, Any]) -> Iterator[Jaxpr]:
    for value in params.values():
        for one in value if isinstance(value, tuple | list) else [value]:
            if isinstance(one, ClosedJaxpr | Jaxpr):
                yield one.jaxpr if isinstance(one, ClosedJaxpr) else one


def limit(workload: Workload) -> Start:
    """The products of MLPs alone, batched over members and spread over devices as fathom's are.

    Where the members of a depth do not divide evenly over the devices, one is computed twice here as there. One product
    feeds the next, or the compiler would leave some out; what a network keeps between its forward and its
    backward pass is not kept.
    """
    use_every_core()
    structure, batch = workload.structure, workload.config.batch_size
    grid = Grid(shard_count(workload.members, jax.device_count()))
    together = Ensemble.of(structure, workload.members, grid)
    staircase = Staircase(tuple(member.depth for member in together.members[: together.size]))
    inputs, width, classes = prod(structure.image_shape), structure.width, structure.out_features
    layers = [(s.stop - s.start, s.members, width, width) for s in staircase.segments]
    shapes = [(1, together.size, inputs, width), *layers, (1, together.size, width, classes)]
    keys = jax.random.split(jax.random.key(0), len(shapes))
    dtype = workload.precision or float

    def draw(key: Array, shape: tuple[int, ...]) -> Array:
        normal = jax.random.normal(key, (grid.members, *shape)) / shape[2] ** 0.5
        return normal.astype(dtype)

    weights = [draw(key, shape) for key, shape in zip(keys, shapes, strict=True)]
    x = jax.random.normal(keys[0], (grid.members, together.size, batch, inputs)).astype(dtype)
    return lambda: _Products(weights, x, grid)


class _Products(Trainer):
    def __init__(self, weights: list[Array], x: Array, grid: Grid):
        self._weights, self._x = weights, x
        started = time.perf_counter()
        run = jax.jit(lambda weights, x, steps: grid.over_shards(_step)((weights, x), steps))
        self._run = run.lower(self._weights, self._x, jnp.int32(0)).compile()
        self.compile_seconds = time.perf_counter() - started

    def take(self, first: int, count: int) -> Float[np.ndarray, "step member"]:
        """Has no losses to return."""
        jax.block_until_ready(self._run(self._weights, self._x, jnp.int32(count)))
        return np.zeros((count, 0))


def _step(parts: tuple[list[Array], Array], steps: Array) -> list[Array]:
    """Steps of one shard: a scan a stack of weights `[layer, member, in, out]` forward, another backward."""
    weights, x = parts
    first, *stacks, last = weights

    def forward(h: Array, w: Array) -> tuple[Array, None]:
        return h @ w, None

    def backward(h: Array, g: Array, w: Array) -> tuple[Array, Array]:
        return g @ w.mT, h.mT @ g

    def body(i: Array, gradients: list[Array]) -> list[Array]:
        del gradients  # the step's own take their place
        again = x * jnp.cos(i.astype(x.dtype))  # so that no product is the same in every step
        h = start = again @ first[0]
        ends = [h := lax.scan(forward, h[: w.shape[1]], w)[0] for w in stacks]
        g, at_last = backward(start, start @ last[0], last[0])
        found = [
            lax.scan(partial(backward, end), g[: w.shape[1]], w, reverse=True)[1]
            for w, end in zip(stacks, ends, strict=True)
        ]
        return [(again.mT @ g)[None], *found, at_last[None]]

    return lax.fori_loop(0, steps, body, jax.tree.map(jnp.zeros_like, weights))

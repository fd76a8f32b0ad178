"""Linear maps whose transposes are written by hand, differentiable to any order in both modes.

`jax.custom_vjp` has no forward mode, and the tangents of `jax.custom_jvp` are transposed by JAX, which cannot transpose
a Pallas kernel and chooses for itself what to keep. Here a tangent is computed by one primitive, `linear_map`, that
carries both directions, push and pull. JAX transposes it by swapping them, maps it by mapping both, and keeps its
operands, nothing else, between the passes. Where an operand that is not linear moves, as in a Hessian-vector product,
the derivative is that of the direction's plain form, which is ordinary JAX.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

# Arrays, and None where there is none.
Arrays = tuple[Any, ...]


@dataclass(frozen=True)
class Direction:
    """One direction of a linear map.

    Attributes:
      apply: `apply(operands, inputs) -> outputs`, linear in `inputs`; tuples of arrays, None where nothing is given.
      plain: the same in ordinary differentiable JAX, where `apply` is not that already.
    """

    apply: Callable[[Arrays, Arrays], Arrays]
    plain: Callable[[Arrays, Arrays], Arrays] | None = None


@dataclass(frozen=True)
class _Flat:
    """A direction on lists of arrays, those that are there, under as many `vmap`s as there are entries of `mapped`."""

    direction: Direction
    operands: tuple[bool, ...]
    inputs: tuple[bool, ...]
    outputs: tuple[bool, ...]
    mapped: tuple[tuple[int | None, ...], ...] = ()

    def __call__(self, args: Sequence[Array], plain: bool = False) -> list[Array]:
        apply = self.direction.plain if plain and self.direction.plain else self.direction.apply
        count = sum(self.operands)

        def flat(operands: Sequence[Array], inputs: Sequence[Array]) -> list[Array]:
            outputs = apply(_place(operands, self.operands), _place(inputs, self.inputs))
            wanted = zip(outputs, self.outputs, strict=True)
            return [out for out, here in wanted if here]

        for axes in self.mapped:
            flat = jax.vmap(flat, in_axes=(list(axes), 0))
        return flat(list(args[:count]), list(args[count:]))

    def under_vmap(self, axes: tuple[int | None, ...]) -> "_Flat":
        return _Flat(self.direction, self.operands, self.inputs, self.outputs, (*self.mapped, axes))


def _place(arrays: Sequence[Array], present: tuple[bool, ...]) -> Arrays:
    following = iter(arrays)
    return tuple(next(following) if here else None for here in present)


def linear_map(push: Direction, pull: Direction, operands: Arrays, inputs: Arrays, outputs: int) -> Arrays:
    """`push.apply(operands, inputs)`, of which `pull.apply(operands, ...)` is the transpose in `inputs`.

    Args:
      push, pull: the two directions; give the same objects again for the same map, and it is traced once.
      operands: what else the map depends on; these, and nothing else, are kept for the transpose.
      inputs: tangents; None where there is none, and nothing is then pulled back there.
      outputs: how many outputs there are.
    """
    present = [tuple(x is not None for x in arrays) for arrays in (operands, inputs)]
    args = [x for x in (*operands, *inputs) if x is not None]
    everything = (True,) * outputs
    forward = _Flat(push, present[0], present[1], everything)
    backward = _Flat(pull, present[0], everything, present[1])
    return tuple(_linear_map.bind(*varying_alike(args), push=forward, pull=backward))


def opaque(function: Direction, operands: Arrays, outputs: int) -> Arrays:
    """`function.apply(operands, ())`, whose derivative, wherever JAX comes to need one, is that of its plain form.

    Inside `scan` JAX may forget a `custom_jvp` when it separates what is known from what is linear; this it cannot.
    """
    return linear_map(function, function, operands, (), outputs)


def varying_alike(arrays: Sequence[Array]) -> list[Array]:
    """The arrays, inside `shard_map` each varying over all axes that any of them varies over.

    The cotangent of a value all devices share is summed over them: the transpose of this cast.
    """
    axes = frozenset().union(*(jax.typeof(x).manual_axis_type.varying for x in arrays))

    def cast(x: Array) -> Array:
        missing = tuple(sorted(axes - jax.typeof(x).manual_axis_type.varying))
        return lax.pcast(x, missing, to="varying") if missing else x

    return [cast(x) for x in arrays]


_linear_map = Primitive("linear_map")
_linear_map.multiple_results = True


@_linear_map.def_impl
def _run(*args: Array, push: _Flat, pull: _Flat) -> list[Array]:
    return push(args)


@lru_cache(maxsize=1024)
def _output_types(push: _Flat, types: tuple[Any, ...]) -> list[Any]:
    return jax.make_jaxpr(lambda *args: push(args))(*types).out_avals


@_linear_map.def_abstract_eval
def _types(*types: Any, push: _Flat, pull: _Flat) -> list[Any]:
    return _output_types(push, types)


def _jvp(primals: Sequence[Array], tangents: Sequence[Any], *, push: _Flat, pull: _Flat) -> tuple[Any, Any]:
    count = sum(push.operands)
    moving = [i for i, t in enumerate(tangents[:count]) if type(t) is not ad.Zero]
    terms = []
    if any(type(t) is not ad.Zero for t in tangents[count:]):
        inputs = [ad.instantiate_zeros(t) for t in tangents[count:]]
        terms.append(_linear_map.bind(*primals[:count], *inputs, push=push, pull=pull))
    if moving:

        def of_moving(*operands: Array) -> list[Array]:
            args = list(primals)
            for i, operand in zip(moving, operands, strict=True):
                args[i] = operand
            return push(args, plain=True)

        terms.append(jax.jvp(of_moving, [primals[i] for i in moving], [tangents[i] for i in moving])[1])
    return _linear_map.bind(*primals, push=push, pull=pull), [
        sum(term[1:], term[0]) for term in zip(*terms, strict=True)
    ]


def _transpose(cotangents: Sequence[Any], *args: Any, push: _Flat, pull: _Flat) -> list[Any]:
    count = sum(push.operands)
    given = [ad.instantiate_zeros(ct) for ct in cotangents]
    found = iter(_linear_map.bind(*args[:count], *given, push=pull, pull=push))
    # An input that was known beforehand takes no cotangent.
    pulled = [ct if ad.is_undefined_primal(x) else None for ct, x in zip(found, args[count:], strict=True)]
    return [None] * count + pulled


def _batch(args: Sequence[Array], axes: Sequence[Any], *, push: _Flat, pull: _Flat) -> tuple[list[Array], list[int]]:
    count = sum(push.operands)
    size = next(x.shape[axis] for x, axis in zip(args, axes, strict=True) if axis is not None)
    # Every input is mapped, so that the transpose's cotangents have their shapes.
    inputs = [
        jnp.broadcast_to(x, (size, *x.shape)) if axis is None else jnp.moveaxis(x, axis, 0)
        for x, axis in zip(args[count:], axes[count:], strict=True)
    ]
    mapped = tuple(axes[:count])
    out = _linear_map.bind(*args[:count], *inputs, push=push.under_vmap(mapped), pull=pull.under_vmap(mapped))
    return out, [0] * len(out)


ad.primitive_jvps[_linear_map] = _jvp
ad.primitive_transposes[_linear_map] = _transpose
batching.primitive_batchers[_linear_map] = _batch
mlir.register_lowering(_linear_map, mlir.lower_fun(_run, multiple_results=True))

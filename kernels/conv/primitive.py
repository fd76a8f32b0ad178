"""The convolution as one primitive that is closed under differentiation and `vmap`.

`<y, conv(x, w)>` is linear in each of x, w and y. Given two of them, its gradient by the third is a bilinear map: y is
the convolution, x and w its two transposes. The derivative of any of the three is made of the others, so one primitive,
told which of the three it gives, has every derivative of every order; and under `vmap` it stays itself with more
members, or more samples where only images are mapped.
"""

from functools import lru_cache, partial
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax import Array, lax
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from kernels.conv import matmul, native
from kernels.conv.geometry import Geometry
from kernels.linear import varying_alike

Implementation = Literal["native", "matmul"]
Gives = Literal["x", "w", "y"]

_FORMS = {
    "native": {"y": native.output, "x": native.input_gradient, "w": native.kernel_gradient_one_at_a_time},
    "matmul": {"y": matmul.output, "x": matmul.input_gradient, "w": matmul.kernel_gradient},
}
_GIVEN: dict[Gives, tuple[Gives, Gives]] = {"y": ("x", "w"), "x": ("w", "y"), "w": ("x", "y")}


def bind(
    a: Array,
    b: Array,
    *,
    gives: Gives,
    geometry: Geometry,
    implementation: Implementation | None,
    precision: str | None,
) -> Array:
    """The one of x, w and y that the other two, in this order, give."""
    return _convolution.bind(
        *varying_alike((a, b)), gives=gives, geometry=geometry, implementation=implementation, precision=precision
    )


_convolution = Primitive("ensemble_convolution")


@_convolution.def_impl
@partial(jax.jit, static_argnames=("gives", "geometry", "implementation", "precision"))
def _compute(
    a: Array,
    b: Array,
    *,
    gives: Gives,
    geometry: Geometry,
    implementation: Implementation | None,
    precision: str | None,
) -> Array:
    def form(name: str) -> Any:
        return partial(_FORMS[name][gives], geometry=geometry, precision=precision)

    if implementation is not None:
        return form(implementation)(a, b)
    # Elsewhere not measured: products are what every accelerator is built for, grouped convolutions are not.
    return lax.platform_dependent(a, b, cpu=form("native"), default=form("native" if len(a) == 1 else "matmul"))


@lru_cache(maxsize=1024)
def _output_type(a: Any, b: Any, settings: tuple[tuple[str, Any], ...]) -> Any:
    (found,) = jax.make_jaxpr(partial(_compute, **dict(settings)))(a, b).out_avals
    return found


@_convolution.def_abstract_eval
def _type(a: Any, b: Any, **settings: Any) -> Any:
    return _output_type(a, b, tuple(settings.items()))


def _transposed(lost: int, cotangent: Any, a: Any, b: Any, *, gives: Gives, **settings: Any) -> Array:
    """The cotangent of the lost operand, from the output's and the operand that is known."""
    first, second = _GIVEN[gives]
    wanted, known = (first, second) if lost == 0 else (second, first)
    arrays = {known: b if lost == 0 else a, gives: cotangent}
    return bind(*(arrays[name] for name in _GIVEN[wanted]), gives=wanted, **settings)


def _batch(args: Any, axes: Any, *, gives: Gives, **settings: Any) -> tuple[Array, int]:
    names = _GIVEN[gives]
    size = next(array.shape[axis] for array, axis in zip(args, axes, strict=True) if axis is not None)
    mapped = "".join(name for name, axis in zip(names, axes, strict=True) if axis is not None)
    if mapped in ("x", "y") and gives != "w":  # the same kernels for all: more samples of the same members
        args = [
            array if axis is None else _merged(jnp.moveaxis(array, axis, 1), 1)
            for array, axis in zip(args, axes, strict=True)
        ]
        out = bind(*args, gives=gives, **settings)
        return out.reshape(out.shape[0], size, -1, *out.shape[2:]), 1
    args = [
        _merged(jnp.broadcast_to(array, (size, *array.shape)) if axis is None else jnp.moveaxis(array, axis, 0), 0)
        for array, axis in zip(args, axes, strict=True)
    ]
    out = bind(*args, gives=gives, **settings)
    return out.reshape(size, -1, *out.shape[1:]), 0


def _merged(array: Array, axis: int) -> Array:
    """Joins an axis with the next one."""
    return array.reshape(*array.shape[:axis], -1, *array.shape[axis + 2 :])


ad.defbilinear(_convolution, partial(_transposed, 0), partial(_transposed, 1))
batching.primitive_batchers[_convolution] = _batch
mlir.register_lowering(_convolution, mlir.lower_fun(_compute, multiple_results=False))

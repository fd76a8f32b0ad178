"""Kernels over tiles on NVIDIA GPUs from Hopper on, compiled by Mosaic GPU, the successor of Pallas's Triton.

A block is one warpgroup, which loads what it holds from global memory into registers and stores its results there.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import jax
from jax import Array, lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import mosaic_gpu
from jax.extend.core import Jaxpr, Literal
from jax.typing import DTypeLike

from kernels.batchnorm.chips import Chip
from kernels.batchnorm.columns import Body, Columns, Result
from kernels.linear import varying_alike
from kernels.versions import ClosedJaxpr, load


@dataclass(frozen=True)
class InRegisters(Columns):
    """Vectors are `[features]`, and what is broadcast or counted is told how it lies in registers: nothing infers it.

    A warp holds a row, each of its threads neighbours of it, and the four warps every fourth row, so that sums over
    rows stay within a thread until the end.
    """

    tile: tuple[int, int]
    emulated: bool

    @property
    def layout(self) -> Any:
        """Where the numbers of a tile are."""
        width = self.tile[1]
        tiling = mosaic_gpu.Tiling(((4, width), (width // 32,)))
        return mosaic_gpu.Layout.TILED(tiling, warp_dims=(-3,), lane_dims=(-2,), vector_dim=-1)

    def sum(self, tile: Array) -> Array:
        return tile.sum(0)

    def min(self, tile: Array) -> Array:
        return tile.min(0)

    def spread(self, vector: Array) -> Array:
        return self._laid_out(lax.broadcast_in_dim(vector, self.tile, (1,)))

    def row(self, shape: tuple[int, ...]) -> Array:
        return self._laid_out(super().row(shape))

    def load(self, ref: Any, index: Any, is_vector: bool) -> Array:
        """A tile or vector of an array in global memory."""
        if self.emulated:
            return ref[index]
        layout = self.layout.reduce(0) if is_vector else self.layout
        return load(ref, index, layout)

    def _laid_out(self, tile: Array) -> Array:
        return tile if self.emulated else mosaic_gpu.layout_cast(tile, self.layout)


def run(
    body: Body,
    tiles: list[Array],
    vectors: list[Array],
    results: list[Result],
    grid: tuple[int, int],
    tile: tuple[int, int],
    chip: Chip,
) -> list[Array]:
    """The results of `body` on every tile of `tiles [rows, features]` and vector of `vectors [features]`."""
    columns = InRegisters(tile, bool(chip.interpret))

    def of_arrays(block: Array, *loaded: Array) -> Sequence[Array]:
        return body(columns, block, loaded)

    def on_arrays(*refs: Any) -> None:
        block, column = lax.axis_index("rows"), lax.axis_index("columns")
        part = pl.ds(column * tile[1], tile[1])
        where = pl.ds(block * tile[0], tile[0]), part
        loaded = [columns.load(ref, where, is_vector=False) for ref in refs[: len(tiles)]]
        loaded += [columns.load(ref, part, is_vector=True) for ref in refs[len(tiles) : -len(results)]]
        made = _in_known_operations(of_arrays, block, *loaded)
        for ref, result, array in zip(refs[-len(results) :], results, made, strict=True):
            ref[(block, part) if result.is_vector else where] = array.astype(ref.dtype)

    found = mosaic_gpu.kernel(
        on_arrays,
        out_type=[result.type for result in results],
        grid=grid,
        grid_names=("rows", "columns"),
        interpret=chip.interpret or None,
    )(*tiles, *vectors)
    # It forgets over which devices its results vary.
    return varying_alike([tiles[0], *found])[1:]


# The operations on numbers that Mosaic GPU compiles.
# fmt: off
_OPERATIONS = frozenset([
    "abs", "add", "and", "atan2", "broadcast_in_dim", "clamp", "convert_element_type", "cos", "div", "eq",
    "erf", "exp", "exp2", "ge", "gt", "integer_pow", "le", "log", "logistic", "lt", "max", "min", "mul", "ne",
    "neg", "not", "one_minus_square", "or", "rem", "rsqrt", "select_n", "sign", "sin", "square", "sub", "tanh", "xor",
])
# fmt: on
# Where a call keeps the function that it calls.
_CALLS = {"jit": "jaxpr", "custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}
# How autodiff adds cotangents, and what a mesh with explicit axes adds to constants: a kernel is on one device.
_SUBSTITUTES: dict[str, Callable[..., Any]] = {"add_any": lax.add, "reshard": lambda array, **_: array}


def takes(chip: Chip, function: Callable[[Array], Array], dtype: DTypeLike) -> bool:
    """Whether kernels for `chip` may call an elementwise function of numbers of `dtype`, and its derivative."""

    if chip.compiler != "mosaic_gpu":
        return True
    both = jax.make_jaxpr(lambda z: jax.vjp(function, z)[1](z))(jax.ShapeDtypeStruct((1,), dtype))
    return _OPERATIONS.issuperset(_operations(both.jaxpr))


def _operations(jaxpr: Jaxpr) -> Iterator[str]:
    for equation in jaxpr.eqns:
        name = equation.primitive.name
        if name in _CALLS:
            yield from _operations(equation.params[_CALLS[name]].jaxpr)
        elif name not in _SUBSTITUTES:
            yield name


def _in_known_operations(function: Callable[..., Any], *args: Array) -> list[Array]:
    """`function(*args)` without the derivative rules inside, such as relu's: Mosaic GPU knows no such calls."""
    # Of a kernel's own operations some forget, under `shard_map`, what their results vary over: here nothing does.
    types = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in args]
    return _evaluate(jax.make_jaxpr(function)(*types), args)


def _evaluate(function: ClosedJaxpr, args: Sequence[Any]) -> list[Any]:
    jaxpr = function.jaxpr
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*function.consts, *args), strict=True))

    def value(atom: Any) -> Any:
        return atom.val if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        name, given = equation.primitive.name, map(value, equation.invars)
        if name in _CALLS:
            found = _evaluate(equation.params[_CALLS[name]], list(given))
        else:
            found = _SUBSTITUTES.get(name, equation.primitive.bind)(*given, **equation.params)
        made = found if name in _CALLS or equation.primitive.multiple_results else [found]
        known.update(zip(equation.outvars, made, strict=True))
    return [value(atom) for atom in jaxpr.outvars]

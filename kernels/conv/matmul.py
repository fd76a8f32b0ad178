"""All members at once, a batched matrix product for every pixel of the window."""

from collections.abc import Iterator
from itertools import product

import jax.numpy as jnp
from jax import Array, lax

from kernels.conv.geometry import Geometry


def _wide(dtype: jnp.dtype) -> jnp.dtype:
    return jnp.promote_types(dtype, jnp.float32)


def _taps(geometry: Geometry) -> Iterator[tuple[int, int]]:
    return product(range(geometry.height.window), range(geometry.width.window))


def _read(x: Array, geometry: Geometry) -> Iterator[tuple[tuple[int, int], Array]]:
    """For every pixel of the window, what of x it is multiplied with, shaped like y but for the channels."""
    padded = lax.pad(x, jnp.zeros((), x.dtype), [(0, 0, 0), (0, 0, 0), *((*p, 0) for p in geometry.zeros), (0, 0, 0)])
    stride = geometry.stride
    for tap in _taps(geometry):
        stops = [t + (axis.outputs - 1) * stride + 1 for t, axis in zip(tap, geometry.axes, strict=True)]
        yield (
            tap,
            lax.slice(
                padded,
                (0, 0, *tap, 0),
                (*padded.shape[:2], *stops, padded.shape[4]),
                (1, 1, stride, stride, 1),
            ),
        )


def output(x: Array, w: Array, geometry: Geometry, precision: str | None) -> Array:
    """The convolution."""
    terms = (
        jnp.einsum("mbhwi,mio->mbhwo", read, w[:, i, j], precision=precision, preferred_element_type=_wide(x.dtype))
        for (i, j), read in _read(x, geometry)
    )
    return sum(terms, jnp.zeros((), _wide(x.dtype))).astype(x.dtype)


def input_gradient(w: Array, y: Array, geometry: Geometry, precision: str | None) -> Array:
    """Its transpose in x: what each pixel of the window read is written back there."""
    wide = _wide(y.dtype)

    def written(i: int, j: int) -> Array:
        found = jnp.einsum("mbhwo,mio->mbhwi", y, w[:, i, j], precision=precision, preferred_element_type=wide)
        around = [
            (t - axis.before, axis.window - 1 - t - axis.after, axis.stride - 1)
            for t, axis in zip((i, j), geometry.axes, strict=True)
        ]
        return lax.pad(found, jnp.zeros((), wide), [(0, 0, 0), (0, 0, 0), *around, (0, 0, 0)])

    return sum((written(i, j) for i, j in _taps(geometry)), jnp.zeros((), wide)).astype(y.dtype)


def kernel_gradient(x: Array, y: Array, geometry: Geometry, precision: str | None) -> Array:
    """Its transpose in w."""
    found = [
        jnp.einsum("mbhwi,mbhwo->mio", read, y, precision=precision, preferred_element_type=_wide(x.dtype))
        for _, read in _read(x, geometry)
    ]
    window = [axis.window for axis in geometry.axes]
    return jnp.stack(found, 1).reshape(x.shape[0], *window, x.shape[4], y.shape[4]).astype(x.dtype)

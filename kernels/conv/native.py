"""One member at a time, each of the three maps as a forward convolution of XLA's.

XLA's CPU backend has a fast convolution for one layout, images `NHWC` and kernels `HWIO`, and for others, such as those
its own derivatives ask for inside a loop or under `vmap`, a loop over scalars that is 40 to 130 times slower. Written
with explicit transposes, all three maps are forward convolutions in the fast layout.
"""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from jax import Array, lax

from kernels.conv.geometry import Axis, Geometry
from kernels.conv.matmul import kernel_gradient
from kernels.linear import varying_alike

_LAYOUT = ("NHWC", "HWIO", "NHWC")


def _convolve(image: Array, kernel: Array, precision: str | None, **settings) -> Array:
    wide = jnp.promote_types(image.dtype, jnp.float32)
    out = lax.conv_general_dilated(
        image, kernel, dimension_numbers=_LAYOUT, precision=precision, preferred_element_type=wide, **settings
    )
    return out.astype(image.dtype)


def _output(x: Array, w: Array, geometry: Geometry, precision: str | None) -> Array:
    return _convolve(x, w, precision, window_strides=(geometry.stride,) * 2, padding=geometry.zeros)


def _input(w: Array, y: Array, geometry: Geometry, precision: str | None) -> Array:
    """The transposed map: y with zeros between its pixels, convolved with the flipped kernel."""

    def padding(axis: Axis) -> tuple[int, int]:
        before = axis.window - 1 - axis.before
        return before, axis.size + axis.window - 1 - before - ((axis.outputs - 1) * axis.stride + 1)

    return _convolve(
        y,
        jnp.flip(w, (0, 1)).swapaxes(2, 3),
        precision,
        window_strides=(1, 1),
        padding=[padding(axis) for axis in geometry.axes],
        lhs_dilation=(geometry.stride,) * 2,
    )


def _kernel(x: Array, y: Array, geometry: Geometry, precision: str | None) -> Array:
    """Channels as images, samples as channels, and y as the kernel.

    A strided y would be a kernel with holes, and a window of one pixel a product of two matrices: both are better
    served by those.
    """
    if geometry.stride > 1 or all(axis.window == 1 for axis in geometry.axes):
        return kernel_gradient(x[None], y[None], geometry, precision)[0]

    def by_channels(x: Array, y: Array) -> Array:
        images, kernels = x.transpose(3, 1, 2, 0), y.transpose(1, 2, 0, 3)
        found = _convolve(images, kernels, precision, window_strides=(1, 1), padding=geometry.zeros)
        return found.transpose(1, 2, 0, 3)

    return lax.platform_dependent(x, y, cpu=partial(_apart, by_channels), default=by_channels)


def _apart(function: Callable[..., Array], *args: Array) -> Array:
    """`function(*args)`, the arguments made before it.

    XLA's CPU backend would make what a transpose reads in the order in which the transpose writes, several times as
    slowly as one after the other. It does not look into a branch; that this one is taken it learns when it runs.
    """
    always = args[0].ravel()[0].astype(jnp.int32) * 2 + 1 != 0
    out = jax.eval_shape(function, *args)

    def never(*args: Array) -> Array:
        return varying_alike([jnp.zeros(out.shape, out.dtype), *args])[0]

    return lax.cond(always, function, never, *args)


def _mapped(function: Callable[..., Array]) -> Callable[..., Array]:
    def over_members(a: Array, b: Array, geometry: Geometry, precision: str | None) -> Array:
        if len(a) == 1:
            return function(a[0], b[0], geometry, precision)[None]
        return lax.map(lambda pair: function(*pair, geometry, precision), (a, b))

    return over_members


output, input_gradient, kernel_gradient_one_at_a_time = _mapped(_output), _mapped(_input), _mapped(_kernel)

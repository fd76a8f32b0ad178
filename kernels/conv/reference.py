"""The textbook convolution, in any precision: what the fast ones are compared with."""

import jax.numpy as jnp
from jax import Array
from jaxtyping import Float

from kernels.conv.geometry import Geometry


def ensemble_conv(
    x: Float[Array, "member batch height width channel"],
    w: Float[Array, "member rows columns channel channel_out"],
    geometry: Geometry,
) -> Float[Array, "member batch height_out width_out channel_out"]:
    """`y[m, b, h, k, o] = sum_ijc x[m, b, h s + i - before, k s + j - before, c] w[m, i, j, c, o]`, pixel by pixel."""

    def read(axis: int) -> Array:
        """Where every output reads, `[output, tap]`; past the image is a row of zeros, the last one."""
        place = geometry.axes[axis]
        index = jnp.arange(place.outputs)[:, None] * place.stride + jnp.arange(place.window) - place.before
        return jnp.where((index < 0) | (index >= place.size), place.size, index)

    padded = jnp.pad(x, [(0, 0), (0, 0), (0, 1), (0, 1), (0, 0)])
    windows = padded[:, :, read(0)[:, :, None, None], read(1)[None, None]]  # [m, b, h, i, k, j, c]
    return jnp.einsum("mbhikjc,mijco->mbhko", windows, w)

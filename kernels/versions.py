"""What differs between the versions of JAX that are supported: the one place that asks which is installed."""

from typing import Any

import jax
from jax import Array
from jax.experimental.pallas import mosaic_gpu

IS_BEFORE_0_12 = jax.__version_info__ < (0, 12)


def load(ref: Any, index: Any, layout: Any) -> Array:
    """Reads `ref[index]`, in a kernel of Mosaic GPU, from global memory into registers that lie as `layout` says.

    Until jax 0.11 `mosaic_gpu.load` takes the index itself, from 0.12 on the part of the reference that it means.
    """
    if IS_BEFORE_0_12:
        return mosaic_gpu.load(ref, index, layout=layout, optimized=False)  # pyright: ignore[reportCallIssue]
    return mosaic_gpu.load(ref.at[index], layout=layout, optimized=False)  # pyright: ignore[reportCallIssue]

"""Hides the differences between the supported versions of JAX; no other module asks which one is installed."""

import inspect
from typing import Any, TypeAlias

from jax import Array
from jax.experimental.pallas import mosaic_gpu
from jax.extend import core

# From jax 0.12 on `Jaxpr` is closed, and this is another name of it, which is not exported.
ClosedJaxpr: TypeAlias = core.ClosedJaxpr  # pyright: ignore[reportPrivateImportUsage]

# `mosaic_gpu.load` must be given an index until jax 0.10, may be in 0.11, and may not be from 0.12 on.
_LOAD = inspect.signature(mosaic_gpu.load).parameters
_LOAD_NEEDS_INDEX = "idx" in _LOAD and _LOAD["idx"].default is inspect.Parameter.empty


def load(ref: Any, index: Any, layout: Any) -> Array:
    """Reads `ref[index]`, in a kernel of Mosaic GPU, from global memory into registers that lie as `layout` says."""
    source, indices = (ref, [index]) if _LOAD_NEEDS_INDEX else (ref.at[index], [])
    return mosaic_gpu.load(source, *indices, layout=layout, optimized=False)

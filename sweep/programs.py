"""Programs that belong to an object: compiled once for it, and forgotten with it."""

from collections.abc import Callable
from functools import cached_property
from typing import Any

import jax


def program(**options: Any) -> Callable[[Callable[..., Any]], cached_property[Any]]:
    """Decorates a method with `jax.jit`, given `options`, whose argument numbers leave out `self`.

    `jax.jit` with `self` as a static argument would keep the object in JAX's caches, and each of its programs, until
    the process ends: a program takes some hundred of the 65,530 memory mappings that Linux gives a process.
    """
    return lambda method: cached_property(lambda self: jax.jit(method.__get__(self), **options))

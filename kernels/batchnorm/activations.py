"""The activations batch norm fuses: four by name, any elementwise function as it is."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

Activation = Callable[[Array], Array]

ACTIVATIONS: dict[str, Activation] = {
    "relu": jax.nn.relu,
    "tanh": jnp.tanh,
    "gelu": jax.nn.gelu,
    "silu": jax.nn.silu,
}


def resolve(activation: str | Activation | None) -> Activation | None:
    """The function an argument `activation` means.

    Raises:
      ValueError: a name that is not one of `ACTIVATIONS`.
      TypeError: neither a name, nor a function, nor None.
    """
    if isinstance(activation, str):
        if activation not in ACTIVATIONS:
            names = ", ".join(ACTIVATIONS)
            raise ValueError(f"batch_norm: activation must be None, a function or one of {names}, got {activation!r}")
        return ACTIVATIONS[activation]
    if activation is not None and not callable(activation):
        raise TypeError(f"batch_norm: activation must be None, a name or a function, got {activation!r}")
    return activation

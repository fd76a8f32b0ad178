"""The activations' values and slopes in NumPy, for the expectations of the theory."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Function = Callable[[Float[np.ndarray, "*shape"]], Float[np.ndarray, "*shape"]]


class UnknownActivationError(ValueError):
    """The theory has no activation of this name; one line lists those it has."""


class Activation(NamedTuple):
    """An elementwise function φ and its derivative φ'. Where φ has a kink it is at 0, which quadrature relies on."""

    value: Function
    derivative: Function


def _sigmoid(x: np.ndarray) -> np.ndarray:
    """`1/(1 + e^-x)`, by the hyperbolic tangent so that no argument overflows."""
    return (1 + np.tanh(x / 2)) / 2


# GELU is the nets': the approximation by tanh, Hendrycks & Gimpel 2016, section 2.
_GELU_SCALE, _GELU_CUBIC = (2 / np.pi) ** 0.5, 0.044715


def _gelu_gate(x: np.ndarray) -> np.ndarray:
    x = np.clip(x, -10, 10)  # past which it is 0 or 1 in double precision, and the cube might overflow
    return _sigmoid(2 * _GELU_SCALE * (x + _GELU_CUBIC * x**3))


def _gelu_derivative(x: np.ndarray) -> np.ndarray:
    gate = _gelu_gate(x)
    return gate + gate * (1 - gate) * 2 * _GELU_SCALE * (x + 3 * _GELU_CUBIC * x**3)


def _silu_derivative(x: np.ndarray) -> np.ndarray:
    gate = _sigmoid(x)
    return gate + gate * (1 - gate) * x


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda x: np.maximum(x, 0.0), lambda x: (x > 0).astype(float)),
    "tanh": Activation(np.tanh, lambda x: 1 - np.tanh(x) ** 2),
    "gelu": Activation(lambda x: x * _gelu_gate(x), _gelu_derivative),
    "silu": Activation(lambda x: x * _sigmoid(x), _silu_derivative),
    "linear": Activation(lambda x: x, np.ones_like),
}


def activation_of(name: str) -> Activation:
    """The activation of this name.

    Raises:
      UnknownActivationError: a name that is not one of `ACTIVATIONS`.
    """
    if name not in ACTIVATIONS:
        raise UnknownActivationError(f"activation: must be one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]

"""Roots by bisection, many at once."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Float

HALVINGS = 64  # a bracket of order 1 shrinks below float64's resolution


def root(
    f: Callable[[Float[np.ndarray, "*shape"]], Float[np.ndarray, "*shape"] | float],
    low: Float[np.ndarray, "*shape"] | float,
    high: Float[np.ndarray, "*shape"] | float,
) -> Float[np.ndarray, "*shape"]:
    """Where `f` changes sign between `low` and `high`, elementwise.

    Raises:
      ValueError: somewhere `f` has one sign at both ends.
    """
    low, high = (np.asarray(end, float) for end in np.broadcast_arrays(low, high))
    sign = np.sign(f(low))
    if np.any(sign * f(high) > 0):
        raise ValueError(f"root: f must change sign between low and high, does not between {low} and {high}")
    for _ in range(HALVINGS):
        middle = (low + high) / 2
        below = np.sign(f(middle)) == sign
        low, high = np.where(below, middle, low), np.where(below, high, middle)
    return np.asarray((low + high) / 2)

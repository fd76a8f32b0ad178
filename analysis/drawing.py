"""What an analysis script makes: a figure, and one sentence of what it shows, computed from the data."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from matplotlib.figure import Figure


class Drawing(NamedTuple):
    """A figure and its finding, a sentence of plain text; "" where there is nothing to say."""

    figure: Figure
    finding: str = ""


def joined(parts: list[str]) -> str:
    """Parts of an enumeration as a sentence: first letter large, full stop."""
    text = "; ".join(part for part in parts if part)
    return f"{text[0].upper()}{text[1:]}." if text else ""


def listed(opening: str, parts: list[str]) -> str:
    """A sentence that opens an enumeration: `Opening: part; part.`"""
    return joined([f"{opening}: {parts[0]}", *parts[1:]] if parts else [opening])


def number(found: np.ndarray, reduce: Callable[[np.ndarray], float] = np.mean) -> str:
    """The finite ones of some numbers in one, for a sentence; says so where there are none."""
    finite = found[np.isfinite(found)].astype(float)
    return f"{reduce(finite):.3g}" if finite.size else "not finite"


def geometric_mean(numbers: np.ndarray) -> float:
    """Of positive numbers."""
    with np.errstate(divide="ignore"):
        return float(np.exp(np.log(numbers).mean()))

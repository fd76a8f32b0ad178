"""How every figure looks: one column wide, colours that the colour-blind can tell apart, nothing that needs a caption."""

from collections.abc import Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

# Okabe & Ito 2008. Warm without batch norm, cold with it; the brighter of two is the residual net.
COLOURS = {
    ("plain", "none"): "#D55E00",
    ("residual", "none"): "#E69F00",
    ("plain", "batch"): "#0072B2",
    ("residual", "batch"): "#009E73",
}
MARKERS = {"plain": "o", "residual": "s"}
START, END, THEORY = "#56B4E9", "#CC79A7", "#000000"
NORM_NAMES = {"none": "no norm", "batch": "batch norm"}

_SETTINGS = {
    "font.size": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
    "figure.constrained_layout.use": True,
}


def colour(net: str, norm: str) -> str:
    """The colour of a kind of network, in every figure; grey for one this file does not know."""
    return COLOURS.get((net, norm), "#888888")


def name(net: str, norm: str) -> str:
    """How a kind of network is called."""
    return f"{net}, {NORM_NAMES.get(norm, norm)}"


def depth_colours(depths: Sequence[int]) -> dict[int, Any]:
    """A colour a depth, light for shallow and dark for deep."""
    return dict(zip(depths, mpl.colormaps["viridis_r"](np.linspace(0.1, 1, len(depths))), strict=True))


def panels(
    rows: int, columns: int, *, width: float = 6.4, height: float = 2.5, **sharing: Any
) -> tuple[Figure, np.ndarray]:
    """A new figure and its `[rows, columns]` axes; drawn without any display or global state."""
    with mpl.rc_context(_SETTINGS):
        figure = Figure(figsize=(width, height * rows + 0.4), layout="constrained", dpi=160)
        axes = figure.subplots(rows, columns, squeeze=False, **sharing)
    return figure, axes


def depth_axis(axes: Axes, depths: Sequence[int]) -> None:
    """Depth on a logarithmic axis with a tick at every depth that was run."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()


def note(axes: Axes, text: str) -> None:
    """A short remark in the middle of a panel, where there is nothing to draw."""
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color="#666666")

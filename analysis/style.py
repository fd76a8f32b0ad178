"""How every figure looks: one column wide, colours that the colour-blind can tell apart, no need of a caption."""

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, ParamSpec, TypeVar

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

_SETTINGS: dict[Any, Any] = {
    "font.size": 10,
    "figure.titlesize": 11,
    "figure.labelsize": 10,
    "axes.titlesize": 10,
    "axes.labelsize": 10,
    "legend.fontsize": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.25,
    "lines.linewidth": 1.6,
    "savefig.dpi": 160,
}

P = ParamSpec("P")
R = TypeVar("R")


def styled(draw: Callable[P, R]) -> Callable[P, R]:
    """Draws in this style, and leaves the caller's own untouched."""

    @wraps(draw)
    def drawing(*args: P.args, **kwargs: P.kwargs) -> R:
        with mpl.rc_context(_SETTINGS):
            return draw(*args, **kwargs)

    return drawing


def colour(net: str, norm: str) -> str:
    """The colour of a kind of network, in every figure; grey for one this file does not know."""
    return COLOURS.get((net, norm), "#888888")


def name(net: str, norm: str) -> str:
    """How a kind of network is called."""
    return f"{net}, {NORM_NAMES.get(norm, norm)}"


def depth_colours(depths: Sequence[int]) -> dict[int, Any]:
    """A colour a depth, light for shallow and dark for deep."""
    return dict(zip(depths, mpl.colormaps["viridis_r"](np.linspace(0.25, 1, len(depths))), strict=True))


def depth_legend(figure: Figure, panel: Axes, depths: Sequence[int], *, compared: bool) -> None:
    """Names the lines of the depths below all panels, one of which is given, and theory's if there is one."""
    colours = depth_colours(depths)
    lines = [panel.plot([], [], color=colours[depth])[0] for depth in depths]
    labels = [f"depth {depth}" for depth in depths]
    if compared:
        lines.append(panel.plot([], [], color=THEORY, linestyle="--", linewidth=1)[0])
        labels.append("theory")
    figure.legend(lines, labels, loc="outside lower center", ncols=4, frameon=False)


def panels(
    rows: int, columns: int, *, width: float = 6.4, height: float = 2.5, **sharing: Any
) -> tuple[Figure, np.ndarray]:
    """A new figure and its `[rows, columns]` axes; drawn without any display or global state."""
    figure = Figure(figsize=(width, height * rows + 0.6), layout="constrained", dpi=160)
    return figure, figure.subplots(rows, columns, squeeze=False, **sharing)


def depth_label(config: dict[str, Any]) -> str:
    """What a run counts its depths in."""
    return "depth (layers)" if config["arch"] == "cnn" else "depth (blocks)"


def depth_axis(axes: Axes, depths: Sequence[int]) -> None:
    """Depth on a logarithmic axis with a tick at every depth that was run."""
    axes.set_xscale("log", base=2)
    axes.set_xticks(depths, [str(depth) for depth in depths])
    axes.minorticks_off()


def log_values(axes: Axes) -> None:
    """A logarithmic vertical axis, where there is anything to show on one."""
    if np.isfinite(axes.dataLim.minposy):
        axes.set_yscale("log")


def remark(axes: Axes, text: str, *, top: bool = True) -> None:
    """A short remark in a panel's right corner."""
    place, alignment = (0.97, "top") if top else (0.03, "bottom")
    axes.text(0.98, place, text, transform=axes.transAxes, ha="right", va=alignment, fontsize=8, color="#444444")

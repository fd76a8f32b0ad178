"""Singular values of the Jacobian from the first to the last hidden state, against depth, before and after training."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import style
from analysis.command import main
from analysis.load import kind, values
from analysis.profile import profile_of


def draw(results: xr.Dataset, reading: str = "frozen") -> Figure | None:
    """One panel a kind of net: the middle 90 % of all singular values, their root mean square, and the largest.

    `reading` is `"frozen"` (batch statistics held) or `"coupled"` (the whole batch's Jacobian; nets with batch norm
    only). Returns None where the run has no such spectrum.
    """
    variable = f"{reading}_spectrum"
    norms = [n for n in values(results, "norm") if reading == "frozen" or n != "none"]
    if variable not in results or not norms:
        return None
    nets = values(results, "net")
    figure, axes = style.panels(len(norms), len(nets), sharex=True, sharey=True)
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            panel.set_title(style.name(net, norm))
            _panel(panel, kind(results, net, norm), variable)
    depths = values(results, "depth")
    for panel in axes.flat:
        panel.set_yscale("log")
        style.depth_axis(panel, depths)
    for panel in axes[-1]:
        panel.set_xlabel("depth (blocks)")
    for panel in axes[:, 0]:
        panel.set_ylabel("singular value")
    limits = [limit for panel in axes.flat for limit in getattr(panel, "fathom_limits", ())]
    if limits:
        axes[0, 0].set_ylim(max(min(limits) / 10, 1e-30), min(max(limits) * 3, 1e30))
    handles: dict[str, object] = {}
    for panel in axes.flat:
        handles |= dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=3, frameon=False)
    statistics = "batch statistics held fixed" if reading == "frozen" else "whole batch, statistics included"
    figure.suptitle(f"Jacobian from first to last hidden state ({statistics})", fontsize=10)
    return figure


def _panel(panel: Axes, members: xr.Dataset, variable: str) -> None:
    for step, name, colour in ((0, "start", style.START), (-1, "end", style.END)):
        depths, low, high, middle, top = [], [], [], [], []
        for depth in values(members, "depth"):
            found = members[variable].isel(probe_step=step, member=members.depth.values == depth).values
            found = found[np.isfinite(found)].astype(float)
            if found.size:
                depths.append(depth)
                low.append(np.quantile(found, 0.05))
                high.append(np.quantile(found, 0.95))
                middle.append(np.sqrt(np.square(found).mean()))
                top.append(found.max())
        if not depths:
            continue
        panel.fill_between(depths, low, high, color=colour, alpha=0.3, linewidth=0, label=f"{name}: middle 90 %")
        panel.plot(depths, middle, color=colour, marker="o", markersize=4, label=f"{name}: root mean square")
        panel.plot(depths, top, color=colour, linestyle=":", label=f"{name}: largest")
        panel.fathom_limits = [*getattr(panel, "fathom_limits", ()), *middle, *top]
    curve = _theory(members)
    if curve is not None:
        panel.plot(*curve, color=style.THEORY, linestyle="--", linewidth=1, label="theory, r.m.s. at start")


def _theory(members: xr.Dataset) -> tuple[list[int], list[float]] | None:
    """Root mean square singular value at initialization by depth: the mean of λ is the gradient's growth."""
    profile = [profile_of(members, depth) for depth in values(members, "depth")]
    known = [(p.size - 1, float(np.sqrt(p[0]))) for p in profile if p is not None]
    return ([d for d, _ in known], [s for _, s in known]) if known else None


def figures(results: xr.Dataset) -> dict[str, Figure]:
    """Both readings, as far as the run has them."""
    drawn = {"spectra": draw(results, "frozen"), "spectra-coupled": draw(results, "coupled")}
    return {name: figure for name, figure in drawn.items() if figure is not None}


if __name__ == "__main__":
    main(figures, __doc__)

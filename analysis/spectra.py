"""Singular values of the Jacobian from the first to the last hidden state, against depth, before and after training."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import style, theory
from analysis.command import main
from analysis.drawing import Drawing, listed, number
from analysis.fuss_catalan import fuss_catalan_largest
from analysis.load import kind, largest_and_mean_square, values
from analysis.profile import profile_of


@style.styled
def draw(results: xr.Dataset, reading: str = "frozen") -> Drawing | None:
    """One panel a kind of net: from the median to the largest singular value, and their root mean square.

    Where only the largest ones were measured, the band begins at the root mean square.

    `reading` is `"frozen"` (batch statistics held) or `"coupled"` (the whole batch's Jacobian; nets with batch norm
    only). Returns None where the run has no such spectrum.
    """
    norms = [n for n in values(results, "norm") if reading == "frozen" or n != "none"]
    if not norms or not {f"{reading}_spectrum", f"{reading}_top"} & set(results):
        return None
    nets = values(results, "net")
    figure, axes = style.panels(len(norms), len(nets), sharex=True, sharey=True)
    shown: list[float] = []
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            panel.set_title(style.name(net, norm))
            shown += _panel(panel, kind(results, net, norm), reading)
    for panel in axes.flat:
        style.log_values(panel)
        style.depth_axis(panel, values(results, "depth"))
    for panel in axes[-1]:
        panel.set_xlabel(style.depth_label(results.attrs["config"]))
    for panel in axes[:, 0]:
        panel.set_ylabel("singular value")
    positive = [number for number in shown if number > 0]
    if positive:
        axes[0, 0].set_ylim(max(min(positive) / 10, 1e-30), min(max(positive) * 10, 1e30))
    entries: dict[str, Any] = {}
    for panel in axes.flat:
        handles, labels = panel.get_legend_handles_labels()
        entries |= dict(zip(labels, handles, strict=True))
    figure.legend(entries.values(), entries.keys(), loc="outside lower center", ncols=2, frameon=False)
    statistics = "batch statistics fixed"
    if reading == "coupled":
        statistics = f"{results.sizes['sample']} samples, coupled"
    figure.suptitle(f"Jacobian from first to last hidden state ({statistics})")
    return Drawing(figure, _finding(results, reading, norms))


def _finding(results: xr.Dataset, reading: str, norms: list[str]) -> str:
    deepest, parts = values(results, "depth")[-1], []
    for norm in norms:
        for net in values(results, "net"):
            members = kind(results, net, norm, deepest)
            before, after = (number(largest_and_mean_square(members, reading, step)[0], np.max) for step in (0, -1))
            parts.append(f"{style.name(net, norm)}, {before} before and {after} after training")
    return listed(f"largest singular value at depth {deepest}", parts)


def _panel(panel: Axes, members: xr.Dataset, reading: str) -> list[float]:
    """Draws one kind of net; returns the numbers that the axis must show."""
    shown, exact = [], f"{reading}_spectrum"
    for step, name, colour in ((0, "start", style.START), (-1, "end", style.END)):
        depths, lower, mean, largest = [], [], [], []
        for depth in values(members, "depth"):
            chosen = members.isel(member=members.depth.values == depth)
            top, mean_square = (a.astype(float) for a in largest_and_mean_square(chosen, reading, step))
            finite = np.isfinite(top) & np.isfinite(mean_square)
            if finite.any():
                depths.append(depth)
                mean.append(np.sqrt(mean_square[finite].mean()))
                largest.append(top[finite].max())
                lower.append(np.nanmedian(chosen[exact].isel(probe_step=step).values) if exact in chosen else mean[-1])
        band = "upper half of the spectrum" if exact in members else "from there to the largest"
        panel.fill_between(depths, lower, largest, color=colour, alpha=0.3, linewidth=0, label=f"{name}: {band}")
        panel.plot(depths, mean, color=colour, marker="o", markersize=4, label=f"{name}: root mean square")
        shown += [*mean, *largest]
    if reading == "frozen":  # the coupled one's few samples are far from the theory's large batch
        _theory(panel, members)
    return shown


def _theory(panel: Axes, members: xr.Dataset) -> None:
    """The root mean square and, for Gaussian linear nets, the largest singular value at initialization, where known."""
    config, depths = members.attrs["config"], values(members, "depth")
    profile = [profile_of(members, depth) for depth in depths]
    # The mean of λ = s² is the factor by which a random gradient's square grows.
    known = [(depth, float(np.sqrt(p[0]))) for depth, p in zip(depths, profile, strict=True) if p is not None]
    if not known:
        return
    line = {"color": style.THEORY, "linewidth": 1}
    panel.plot(*zip(*known, strict=True), linestyle="--", label="theory: root mean square at start", **line)
    net, norm = str(members.net.values[0]), str(members.norm.values[0])
    source = theory.gradient_source(net, norm)
    if (net, norm, config["activation"], config["init"]) == ("plain", "none", "linear", "normal"):
        scale = float(members.weight_std.values[0])
        largest = [scale**depth * fuss_catalan_largest(depth) ** 0.5 for depth in depths]
        panel.plot(depths, largest, linestyle=":", label="theory: largest at start", **line)
        source += "; Pennington et al. 2017"
    style.remark(panel, source)


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """Both readings, as far as the run has them."""
    drawn = {"spectra": draw(results, "frozen"), "spectra-coupled": draw(results, "coupled")}
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


if __name__ == "__main__":
    main(figures, __doc__)

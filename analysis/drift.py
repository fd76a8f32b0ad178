"""Activation drift over training: how the input of one unit's activation moves (Ioffe & Szegedy 2015, figure 1)."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import style
from analysis.command import main
from analysis.drawing import Drawing, listed, number
from analysis.load import kind, values


@style.styled
def draw(results: xr.Dataset, depth: int | None = None) -> Drawing:
    """One panel a kind of net: the 15th, 50th and 85th percentile of the last block's first unit, by training step.

    `depth` picks the members; by default the middle one of the run's depths.
    """
    depths = values(results, "depth")
    depth = depths[(len(depths) - 1) // 2] if depth is None else depth
    nets, norms = values(results, "net"), values(results, "norm")
    parts: list[str] = []
    figure, axes = style.panels(len(norms), len(nets), sharex=True)
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            panel.set_title(style.name(net, norm))
            _panel(panel, kind(results, net, norm, depth), style.colour(net, norm))
            parts.append(f"{style.name(net, norm)} {number(drift_of(kind(results, net, norm, depth)))}")
    for panel in axes[-1]:
        panel.set_xlabel("training step")
    figure.supylabel("pre-activation: 15th, 50th, 85th percentile")
    figure.suptitle(f"Drift of one unit's input in the last block at depth {depth}, a line a seed")
    return Drawing(
        figure, listed(f"how far the median moved at depth {depth}, in widths of the band at the start", parts)
    )


def drift_of(members: xr.Dataset) -> np.ndarray:
    """How far the median of the last block's first unit moved from where it began, at most, by member.

    In widths of the band between the 15th and the 85th percentile at the start; NaN where it is not finite.
    """
    found = members.unit_preactivation.isel(layer=int(members.blocks[0])).values.astype(float)
    low, middle, high = np.moveaxis(found, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.abs(middle - middle[:, :1]).max(1) / (high - low)[:, 0]


def _panel(panel: Axes, members: xr.Dataset, colour: str) -> None:
    steps = members.probe_step.values
    found = members.unit_preactivation.isel(layer=int(members.blocks[0])).values.astype(float)
    for seed, (low, middle, high) in enumerate(np.moveaxis(found, -1, 1)):
        style_of_seed = ("-", "--", ":", "-.")[seed % 4]
        panel.fill_between(steps, low, high, color=colour, alpha=0.2, linewidth=0)
        panel.plot(steps, middle, color=colour, linestyle=style_of_seed, marker="o", markersize=3)
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(0, steps[-1])
    if not np.isfinite(found).all():
        style.remark(panel, "ends where a member diverged", top=False)


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """One figure, where signals were measured."""
    if "unit_preactivation" not in results:
        return {}
    return {"drift": draw(results)}


if __name__ == "__main__":
    main(figures, __doc__)

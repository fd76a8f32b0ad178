"""Squared gradient norm against layer, one line a depth, with the theory's slope where one is known."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import style, theory
from analysis.command import main
from analysis.drawing import Drawing, geometric_mean, joined, number
from analysis.load import kind, values
from analysis.profile import profile_of


@style.styled
def draw(results: xr.Dataset, step: int = 0) -> Drawing:
    """One panel a kind of net: the gradient by every layer's output, relative to the last layer's.

    `step` indexes the measured steps: 0 the first, -1 the last. Theory is drawn at the first only.
    """
    nets, norms, depths = (values(results, name) for name in ("net", "norm", "depth"))
    colours, compared = style.depth_colours(depths), False
    figure, axes = style.panels(len(norms), len(nets), sharex=True, sharey=True)
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            panel.set_title(style.name(net, norm))
            missing: list[str] = []
            for depth in depths:
                if not _line(panel, kind(results, net, norm, depth), depth, colours[depth], step):
                    missing.append(str(depth))
            if missing:
                style.remark(panel, f"not finite, or 0: depth {', '.join(missing)}", top=False)
            if step == 0 and profile_of(kind(results, net, norm), depths[0]) is not None:
                style.remark(panel, f"theory: {theory.gradient_source(net, norm)}")
                compared = True
            style.log_values(panel)
            panel.axhline(1, color="#666666", linewidth=0.8, zorder=0)
    for panel in axes[-1]:
        panel.set_xlabel("layer (0 is the first hidden state)")
    figure.supylabel("squared gradient, relative to the last layer")
    style.depth_legend(figure, axes[0, 0], depths, compared=compared)
    when = f"step {int(results.probe_step[step])}"
    figure.suptitle(f"Gradient of the loss by each layer's output, {when}")
    return Drawing(figure, _finding(results, step))


def _finding(results: xr.Dataset, step: int) -> str:
    """The factor a layer towards the input, over all layers of the deepest nets, and what the theory says it is."""
    deepest, parts = values(results, "depth")[-1], []
    for norm in values(results, "norm"):
        for net in values(results, "net"):
            members = kind(results, net, norm, deepest)
            blocks = int(members.blocks[0])
            squared = members.output_gradient.isel(probe_step=step).values.astype(float)
            with np.errstate(divide="ignore", invalid="ignore"):
                growth = (squared[:, 0] / squared[:, blocks]) ** (1 / blocks)
            found = f"{number(growth, geometric_mean)} in {style.name(net, norm)}"
            profile = profile_of(members, deepest) if step == 0 else None
            if profile is not None:
                found += f" (theory {profile[0] ** (1 / blocks):.3g})"
            parts.append(found)
    when = f"step {int(results.probe_step[step])}"
    opening = f"at {when} and depth {deepest} the squared gradient changes towards the input by a factor a layer of "
    return joined([opening + ", ".join(parts)])


def _line(panel: Axes, members: xr.Dataset, depth: int, colour: Any, step: int) -> bool:
    """Draws one depth; returns whether all its members had a gradient to draw."""
    squared = members.output_gradient.isel(probe_step=step, layer=slice(int(members.blocks[0]) + 1)).values.astype(
        float
    )
    finite = np.isfinite(squared).all(1) & (squared[:, -1] > 0)
    if finite.any():
        # A geometric mean over seeds: gradients differ by factors, not by differences.
        relative = squared[finite] / squared[finite, -1:]
        with np.errstate(divide="ignore"):
            panel.plot(np.exp(np.log(relative).mean(0)), color=colour)
    profile = profile_of(members, depth) if step == 0 else None
    if profile is not None:
        panel.plot(profile, color=style.THEORY, linestyle="--", linewidth=1)
    return bool(finite.all())


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """At initialization and after training, where gradients were measured."""
    if "output_gradient" not in results:
        return {}
    return {"gradients": draw(results, 0), "gradients-end": draw(results, -1)}


if __name__ == "__main__":
    main(figures, __doc__)

"""What trains where: a heat map of depth against a swept number, with the depth that mean field theory allows."""

from typing import Any

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import meanfield, style
from analysis.activations import ACTIVATIONS
from analysis.command import main
from analysis.drawing import Drawing, listed
from analysis.load import kind, values

# Numbers that a sweep may have many of, and how an axis is labelled with them.
LABELS = {"weight_std": "weight scale σ_w", "learning_rate": "learning rate", "bias_std": "bias scale σ_b"}
_LEAST = 3  # values from which on a map shows more than lines do


def accuracy_grid(members: xr.Dataset, name: str) -> np.ndarray:
    """Final test accuracy `[depth, value]`, mean over all else; members that diverged count as if they guessed."""
    accuracy = members.test_accuracy.isel(probe_step=-1).values.astype(float)
    accuracy = np.where(np.isfinite(accuracy), accuracy, chance(members))
    return np.asarray(
        [
            [accuracy[(members.depth.values == d) & (members[name].values == v)].mean() for v in values(members, name)]
            for d in values(members, "depth")
        ]
    )


def chance(results: xr.Dataset) -> float:
    """The accuracy of guessing: the least that any member has, at most a tenth."""
    accuracy = results.test_accuracy.values.astype(float)
    return float(min(np.nanmin(accuracy), 0.1)) if np.isfinite(accuracy).any() else 0.1


def trained_accuracy(results: xr.Dataset) -> float:
    """Half of the way from guessing to the best accuracy of any member."""
    accuracy = results.test_accuracy.values.astype(float)
    best = float(np.nanmax(accuracy)) if np.isfinite(accuracy).any() else chance(results)
    return (chance(results) + best) / 2


def allowed_depth(members: xr.Dataset, weight_std: float) -> float | None:
    """`6 ξ_c` of plain nets without norm of this weight scale; None where there is no theory."""
    config = members.attrs["config"]
    plain = set(members.net.values) == {"plain"} and set(members.norm.values) == {"none"}
    one = len(set(members.bias_std.values)) == 1
    if not plain or not one or config["arch"] != "mlp" or config["activation"] not in ACTIVATIONS:
        return None
    return meanfield.trainable_depth(config["activation"], weight_std, float(members.bias_std.values[0]))


@style.styled
def draw(results: xr.Dataset, name: str) -> Drawing:
    """One panel a kind of net: test accuracy after training by depth and the swept number `name`; `6 ξ_c` over it."""
    nets, norms = values(results, "net"), values(results, "norm")
    figure, axes = style.panels(len(norms), len(nets), height=3.0, sharex=True, sharey=True)
    averaged = [label for other, label in LABELS.items() if other != name and len(values(results, other)) > 1]
    opening, findings = f"trained, which is half of the way from guessing to the best, by {LABELS[name]}", list[str]()
    threshold = trained_accuracy(results)
    image: Any = None
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            members = kind(results, net, norm)
            panel.set_title(style.name(net, norm))
            image = _panel(panel, members, name)
            findings.append(_deepest(members, name, style.name(net, norm), threshold))
    for panel in axes[-1]:
        panel.set_xlabel(LABELS[name])
    for panel in axes[:, 0]:
        panel.set_ylabel(style.depth_label(results.attrs["config"]))
    figure.colorbar(image, ax=axes, label="test accuracy")
    over = f", mean over every {' and '.join(averaged)}" if averaged else ""
    figure.suptitle(f"What trains, after {int(results.probe_step[-1])} steps{over}")
    return Drawing(figure, listed(opening, findings))


def _panel(panel: Axes, members: xr.Dataset, name: str) -> Any:
    depths, numbers = values(members, "depth"), values(members, name)
    panel.grid(False)
    edges = [_edges(np.asarray(axis, float), log=log) for axis, log in ((numbers, _is_log(numbers)), (depths, True))]
    image = panel.pcolormesh(*edges, accuracy_grid(members, name), cmap="viridis", vmin=0, vmax=1)
    panel.set_yscale("log")
    panel.set_xscale("log" if _is_log(numbers) else "linear")
    panel.set_yticks(depths, [str(depth) for depth in depths])
    panel.minorticks_off()
    if name == "weight_std":
        scales = np.linspace(edges[0][0], edges[0][-1], 200)
        theory = [allowed_depth(members, float(scale)) for scale in scales]
        if theory[0] is not None:
            limits = panel.get_ylim()
            panel.plot(scales, np.minimum(np.asarray(theory, float), 10 * limits[1]), color="#FFFFFF", linewidth=2)
            panel.set_ylim(limits)
            panel.text(
                0.02, 0.97, "white: 6 ξ_c, Schoenholz et al. 2017", transform=panel.transAxes, va="top",
                fontsize=8, color="#FFFFFF",
            )  # fmt: skip
    return image


def _is_log(numbers: list[float]) -> bool:
    """Whether the numbers are spaced by factors rather than by differences."""
    return min(numbers) > 0 and max(numbers) / min(numbers) > 8


def _edges(centres: np.ndarray, log: bool) -> np.ndarray:
    """Boundaries of cells around these centres."""
    centres = np.log(centres) if log else centres
    middle = (centres[1:] + centres[:-1]) / 2
    ends = [2 * centres[0] - middle[0], 2 * centres[-1] - middle[-1]] if len(centres) > 1 else centres[0] + [-0.5, 0.5]
    edges = np.concatenate([[ends[0]], middle, [ends[1]]])
    return np.exp(edges) if log else edges


def _deepest(members: xr.Dataset, name: str, title: str, threshold: float) -> str:
    grid, depths, numbers = accuracy_grid(members, name), values(members, "depth"), values(members, name)
    rows = np.flatnonzero((grid > threshold).any(1))
    if not rows.size:
        return f"{title} at no depth"
    at = [number for number, good in zip(numbers, grid[rows[-1]] > threshold, strict=True) if good]
    return f"{title} to depth {depths[rows[-1]]}, at {at[0]:g}" + (f" to {at[-1]:g}" if len(at) > 1 else "")


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """A map for each number with at least three values, where there are several depths."""
    if len(values(results, "depth")) < 2:
        return {}
    return {
        f"grid-{name.replace('_', '-')}": draw(results, name) for name in LABELS if len(values(results, name)) >= _LEAST
    }


if __name__ == "__main__":
    main(figures, __doc__, whole=True)

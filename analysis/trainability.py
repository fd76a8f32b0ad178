"""Which depths train: test accuracy and training loss against depth, for every kind of net."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import style
from analysis.command import main
from analysis.drawing import Drawing, listed
from analysis.load import kind, values

_LAST_STEPS = 10


@style.styled
def draw(results: xr.Dataset) -> Drawing:
    """Test accuracy after training, and the training loss of the last steps; a band spans the seeds, × diverged."""
    depths = values(results, "depth")
    figure, axes = style.panels(1, 2, height=3.0)
    accuracy, loss = axes[0]
    losses = results.train_loss.isel(step=slice(-_LAST_STEPS, None)).mean("step", skipna=False)
    for norm in values(results, "norm"):
        for net in values(results, "net"):
            members = kind(results, net, norm)
            final = losses.isel(member=(results.net.values == net) & (results.norm.values == norm)).values
            _curve(accuracy, members, members.test_accuracy.isel(probe_step=-1).values, net, norm, True)
            _curve(loss, members, final, net, norm, False)
    for panel, label in ((accuracy, "test accuracy"), (loss, "training loss (nats)")):
        style.depth_axis(panel, depths)
        panel.set_xlabel(style.depth_label(results.attrs["config"]))
        panel.set_ylabel(label)
    accuracy.set_ylim(-0.03, 1.03)
    style.log_values(loss)
    handles, labels = accuracy.get_legend_handles_labels()
    if np.isfinite(results.diverged_step.values).any():
        handles.append(accuracy.plot([], [], color="#666666", marker="x", linestyle="none")[0])
        labels.append("diverged (NaN or inf)")
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False)
    steps = int(results.probe_step[-1])
    figure.suptitle(f"What trains, after {steps} steps on {results.attrs['config']['dataset']}")
    return Drawing(figure, _finding(results))


def _finding(results: xr.Dataset) -> str:
    """The deepest nets of every kind that got at least nine tenths of the best accuracy of all."""
    accuracy = results.test_accuracy.isel(probe_step=-1).values.astype(float)
    if not np.isfinite(accuracy).any():
        return "No network has a test accuracy."
    best, parts = np.nanmax(accuracy), []
    for norm in values(results, "norm"):
        for net in values(results, "net"):
            good = []
            for depth in values(results, "depth"):
                found = kind(results, net, norm, depth).test_accuracy.isel(probe_step=-1).values.astype(float)
                if found.mean() >= 0.9 * best:
                    good.append(depth)
            parts.append(f"{style.name(net, norm)} {f'to depth {max(good)}' if good else 'at no depth'}")
    return listed(f"nine tenths of the best test accuracy, {best:.3f}, are reached by", parts)


def _curve(panel: Axes, members: xr.Dataset, numbers: np.ndarray, net: str, norm: str, higher_is_better: bool) -> None:
    """Mean and range over the seeds that did not diverge; a cross wherever a seed did."""
    colour = style.colour(net, norm)
    alive = ~np.isfinite(members.diverged_step.values) & np.isfinite(numbers)
    depths = [d for d in values(members, "depth") if alive[members.depth.values == d].any()]
    by_depth = [numbers[alive & (members.depth.values == depth)] for depth in depths]
    panel.plot(
        depths,
        [found.mean() for found in by_depth],
        color=colour,
        marker=style.MARKERS.get(net, "^"),
        markersize=4,
        label=style.name(net, norm),
    )
    panel.fill_between(
        depths, [f.min() for f in by_depth], [f.max() for f in by_depth], color=colour, alpha=0.2, linewidth=0
    )
    lost = sorted({int(d) for d in members.depth.values[np.isfinite(members.diverged_step.values)]})
    height = 0.03 if higher_is_better else 0.97
    panel.plot(
        lost,
        [height] * len(lost),
        color=colour,
        marker="x",
        linestyle="none",
        transform=panel.get_xaxis_transform(),
    )


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """One figure."""
    return {"trainability": draw(results)}


if __name__ == "__main__":
    main(figures, __doc__)

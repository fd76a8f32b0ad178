"""Quantities without a figure of their own kind: by layer, a line a depth; over training, a line a kind of net."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import xarray as xr

from analysis import style
from analysis.command import main
from analysis.drawing import Drawing, listed
from analysis.load import kind, values
from analysis.profile import profile_of, residual_variance_of

Theory = Callable[[xr.Dataset, int], np.ndarray | None]


@dataclass(frozen=True)
class Curve:
    """How a variable is drawn.

    Attributes:
      variable: its name in a run's results, `[member, probe_step, layer]`, or `[member, probe_step]` over training.
      title, label: the figure's, and that of its vertical axis.
      log: whether that axis is logarithmic.
      nets: those it says something of; all if empty.
      theory, source: the closed form for members of one kind and one of their depths, by layer or None; whose it is.
      reduced: turns what is stored into one number a member and step, for curves over training.
    """

    variable: str
    title: str
    label: str
    log: bool = False
    nets: tuple[str, ...] = ()
    theory: Theory | None = None
    source: str = ""
    reduced: Callable[[xr.DataArray], xr.DataArray] = lambda found: found


def _branch_share(members: xr.Dataset, depth: int) -> np.ndarray | None:
    """`slope / v_l`: what a block adds of what is there after it, if the variance grows by the same at every block."""
    config = members.attrs["config"]
    if (config["arch"], config["order"], str(members.norm.values[0])) != ("mlp", "pre", "batch"):
        return None
    variance = residual_variance_of(members, depth)
    return None if variance is None else np.append(np.nan, np.diff(variance) / variance[1:])


def _jacobian_norm(members: xr.Dataset, depth: int) -> np.ndarray | None:
    """A plain net's gradient profile the other way round: `J_l` is the growth from layer l to layer 0."""
    if str(members.net.values[0]) != "plain" or str(members.norm.values[0]) != "none":
        return None
    profile = profile_of(members, depth)
    return None if profile is None else profile[0] / profile


def _largest(values: str, averaged: str | None = None) -> Callable[[xr.DataArray], xr.DataArray]:
    """The first along a dimension of values in falling order, and its mean over another dimension, if one is named."""
    return lambda found: (
        found.isel({values: 0}) if averaged is None else found.isel({values: 0}).mean(averaged, skipna=False)
    )


def _median_of_samples(found: xr.DataArray) -> xr.DataArray:
    return found.median("sample")


BY_LAYER = {
    "jacobian-norms": Curve(
        "jacobian_norm",
        "Averaged partial Jacobian norm, from the first hidden state",
        "‖∂h_l/∂h_0‖² by entry of h_l",
        log=True,
        theory=_jacobian_norm,
        source="Doshi et al. 2023; Poole et al. 2016",
    ),
    "branches": Curve(
        "branch_share",
        "Share of the residual branch in a block's variance",
        "branch's share of the variance",
        nets=("residual",),
        theory=_branch_share,
        source="from De & Smith 2020",
    ),
    "effective-rank": Curve("effective_rank", "Effective rank of the hidden states of a batch", "effective rank"),
    "correlation": Curve("correlation", "Correlation of two inputs' hidden states", "mean cosine"),
    "shattering": Curve("gradient_correlation", "Correlation of two inputs' gradients", "mean cosine"),
    "shift": Curve("shift_cosine", "Covariate shift: a layer's gradient before and after the steps below it", "cosine"),
    "shift-distance": Curve(
        "shift_distance", "Covariate shift: distance between these gradients", "‖G_l - G'_l‖", log=True
    ),
    "weight-gradients": Curve(
        "weight_gradient", "Squared gradient of the loss by each layer's weights", "‖∂loss/∂W_l‖²", log=True
    ),
}
OVER_TRAINING = {
    "condition-number": Curve(
        "frozen_condition_number",
        "Condition number of the Jacobian, median of the samples",
        "largest over smallest singular value",
        log=True,
        reduced=_median_of_samples,
    ),
    "isometry": Curve(
        "frozen_isometry_distance",
        "The Jacobian's distance from isometry, median of the samples",
        "variance of log σ",
        log=True,
        reduced=_median_of_samples,
    ),
    "input-spectrum": Curve(
        "input_spectrum",
        "Largest singular value from input to logits, mean of the samples",
        "singular value",
        log=True,
        reduced=_largest("input_singular_value", "sample"),
    ),
    "first-half": Curve(
        "first_half_spectrum",
        "Largest singular value of the first half of the layers, mean of the samples",
        "singular value",
        log=True,
        reduced=_largest("singular_value", "sample"),
    ),
    "second-half": Curve(
        "second_half_spectrum",
        "Largest singular value of the second half of the layers, mean of the samples",
        "singular value",
        log=True,
        reduced=_largest("singular_value", "sample"),
    ),
    "surface-loss": Curve(
        "surface_loss",
        "Variation of the loss along its gradient, step sizes 1/2 to 4 learning rates",
        "max - min of the loss (nats)",
        log=True,
        reduced=lambda found: found.max("step_size", skipna=False) - found.min("step_size", skipna=False),
    ),
    "surface-gradient": Curve(
        "surface_gradient_change",
        "Change of the gradient along itself, at 4 learning rates",
        "‖∇L(θ - ηg) - g‖",
        log=True,
        reduced=lambda found: found.isel(step_size=-1),
    ),
    "surface-smoothness": Curve("surface_smoothness", "Effective smoothness", "max ‖Δ∇‖/‖Δθ‖", log=True),
    "hessian": Curve(
        "hessian_top",
        "Largest eigenvalue of the loss's Hessian",
        "eigenvalue",
        log=True,
        reduced=_largest("top_eigenvalue"),
    ),
    "hessian-trace": Curve("hessian_trace", "Trace of the loss's Hessian, estimated", "trace"),
    "hessian-smallest": Curve("hessian_smallest", "Smallest eigenvalue of the loss's Hessian", "eigenvalue"),
    "gauss-newton": Curve(
        "gauss_newton_top",
        "Largest eigenvalue of the Gauss-Newton matrix",
        "eigenvalue",
        log=True,
        reduced=_largest("top_eigenvalue"),
    ),
    "tangent-spectrum": Curve(
        "tangent_spectrum",
        "Largest eigenvalue of the tangent kernel",
        "eigenvalue",
        log=True,
        reduced=_largest("kernel_eigenvalue"),
    ),
    "tangent": Curve("tangent_alignment", "Alignment of the tangent kernel with the labels", "cosine"),
}


def _kinds(results: xr.Dataset, curve: Curve) -> list[tuple[str, str]]:
    return [
        (net, norm)
        for norm in values(results, "norm")
        for net in values(results, "net")
        if not curve.nets or net in curve.nets
    ]


def _mean(numbers: np.ndarray, log: bool) -> np.ndarray:
    """Mean over members, geometric for what differs by factors; NaN where any member has none."""
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.exp(np.log(numbers).mean(0)) if log else numbers.mean(0)


@style.styled
def by_layer(results: xr.Dataset, curve: Curve, step: int = 0) -> Drawing | None:
    """One panel a kind of net: the quantity by layer, a line a depth, at one of the measured steps."""
    kinds = _kinds(results, curve)
    if curve.variable not in results or not kinds:
        return None
    depths = values(results, "depth")
    colours = style.depth_colours(depths)
    columns = min(2, len(kinds))
    figure, axes = style.panels(-(-len(kinds) // columns), columns, sharex=True, sharey=True)
    findings: list[str] = []
    sourced: set[tuple[str, str]] = set()
    for panel, (net, norm) in zip(axes.flat, kinds, strict=False):
        panel.set_title(style.name(net, norm))
        for depth in depths:
            members = kind(results, net, norm, depth)
            blocks = int(members.blocks[0])
            found = members[curve.variable].isel(probe_step=step, layer=slice(blocks + 1)).values.astype(float)
            line = _mean(found, curve.log)
            panel.plot(line, color=colours[depth], marker="o" if np.isfinite(line).sum() < 3 else None, markersize=3)
            expected = curve.theory(members, depth) if curve.theory is not None and step == 0 else None
            if expected is not None:
                panel.plot(expected, color=style.THEORY, linestyle="--", linewidth=1)
                sourced.add((net, norm))
            if depth == depths[-1]:
                findings.append(_of_line(line, net, norm, depth))
        if (net, norm) in sourced:
            style.remark(panel, f"theory: {curve.source}")
        if curve.log:
            style.log_values(panel)
    for panel in axes.flat[len(kinds) :]:
        panel.set_axis_off()
    for panel in axes[-1]:
        panel.set_xlabel("layer (0 is the first hidden state)")
    figure.supylabel(curve.label)
    style.depth_legend(figure, axes[0, 0], depths, compared=bool(sourced))
    when = int(results.probe_step[step])
    figure.suptitle(f"{curve.title}, step {when}")
    return Drawing(figure, listed(f"{curve.title}, at step {when}", findings))


def _of_line(line: np.ndarray, net: str, norm: str, depth: int) -> str:
    known = np.flatnonzero(np.isfinite(line))
    name = f"{style.name(net, norm)} (depth {depth})"
    if not known.size:
        return f"{name} is not finite"
    return f"{name} goes from {line[known[0]]:.3g} at layer {known[0]} to {line[known[-1]]:.3g} at layer {known[-1]}"


@style.styled
def over_training(results: xr.Dataset, curve: Curve, depth: int | None = None) -> Drawing | None:
    """The quantity by training step, a line a kind of net with a band over the seeds, at one depth (the middle one)."""
    if curve.variable not in results:
        return None
    depths = values(results, "depth")
    depth = depths[(len(depths) - 1) // 2] if depth is None else depth
    figure, axes = style.panels(1, 1, height=3.2)
    panel, findings = axes[0, 0], []
    steps = results.probe_step.values
    for net, norm in _kinds(results, curve):
        members = kind(results, net, norm, depth)
        found = curve.reduced(members[curve.variable]).values.astype(float)
        colour, mean = style.colour(net, norm), _mean(found, curve.log)
        panel.plot(
            steps, mean, color=colour, marker=style.MARKERS.get(net, "^"), markersize=4, label=style.name(net, norm)
        )
        panel.fill_between(steps, found.min(0), found.max(0), color=colour, alpha=0.2, linewidth=0)
        known = np.flatnonzero(np.isfinite(mean))
        if known.size:
            first, last = known[0], known[-1]
            findings.append(
                f"{style.name(net, norm)} {mean[first]:.3g} at step {steps[first]}, "
                f"{mean[last]:.3g} at step {steps[last]}"
            )
    panel.set_xscale("symlog", linthresh=1)
    panel.set_xlim(0, max(steps[-1], 1))
    panel.set_xlabel("training step")
    panel.set_ylabel(curve.label)
    if curve.log:
        style.log_values(panel)
    handles, labels = panel.get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=2, frameon=False)
    figure.suptitle(f"{curve.title}, depth {depth}")
    return Drawing(figure, listed(f"{curve.title}, at depth {depth}", findings))


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """Every one whose probe was run; by layer at initialization and after training."""
    drawn: dict[str, Drawing | None] = {}
    for name, curve in BY_LAYER.items():
        drawn[name] = by_layer(results, curve)
        if results.sizes["probe_step"] > 1:
            drawn[f"{name}-end"] = by_layer(results, curve, -1)
    for name, curve in OVER_TRAINING.items():
        drawn[name] = over_training(results, curve)
    return {name: drawing for name, drawing in drawn.items() if drawing is not None}


if __name__ == "__main__":
    main(figures, __doc__)

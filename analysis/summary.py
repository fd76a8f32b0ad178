"""A run in one table: net and norm by depth."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich import box
from rich.console import Group
from rich.table import Table

from analysis.load import kind, largest_and_mean_square, settings, values


@dataclass(frozen=True)
class Row:
    """One line of the table: what it is of, and a cell a depth."""

    quantity: str
    setting: str
    net: str
    norm: str
    cells: tuple[str, ...]


# What each is computed from: runs without it have no such rows.
QUANTITIES = {
    "test accuracy, end": ("test_accuracy",),
    "squared gradient, first layer / last, start": ("output_gradient",),
    "largest singular value, start": ("frozen_spectrum", "frozen_top"),
}
_ACCURACY, _GRADIENT, _ = QUANTITIES


def quantities(results: xr.Dataset) -> list[str]:
    """Those that the run has."""
    return [name for name, variables in QUANTITIES.items() if set(variables) & set(results)]


def rows(results: xr.Dataset) -> list[Row]:
    """Test accuracy at the end; gradient ratio first/last layer and largest singular value at the start.

    Cells are means over the seeds that did not diverge, geometric ones for the last two.
    """
    return [
        Row(
            quantity,
            label,
            net,
            norm,
            tuple(_cell(kind(part, net, norm, d), quantity) for d in values(part, "depth")),
        )
        for quantity in quantities(results)
        for label, part in settings(results)
        for norm in values(part, "norm")
        for net in values(part, "net")
    ]


def divergences(results: xr.Dataset) -> list[str]:
    """One line for every kind of member that diverged: how many, and when first."""
    lines = []
    for label, part in settings(results):
        for norm in values(part, "norm"):
            for net in values(part, "net"):
                lost = []
                for depth in values(part, "depth"):
                    steps = kind(part, net, norm, depth).diverged_step.values
                    count = int(np.isfinite(steps).sum())
                    if count:
                        lost.append(f"depth {depth} ({count} of {steps.size}, first at step {np.nanmin(steps):.0f})")
                if lost:
                    name = f"{net}, norm {norm}{f', {label}' if label else ''}"
                    lines.append(f"diverged: {name}: {'; '.join(lost)}")
    return lines


def _cell(members: xr.Dataset, quantity: str) -> str:
    if quantity == _ACCURACY:
        diverged = np.isfinite(members.diverged_step.values)
        accuracy = members.test_accuracy.isel(probe_step=-1).values[~diverged]
        if not np.isfinite(accuracy).any():
            return "diverged" if diverged.all() else "-"
        return f"{accuracy.mean():.3f}{'*' if diverged.any() else ''}"
    if quantity == _GRADIENT:
        gradient = members.output_gradient.isel(probe_step=0).values.astype(float)
        with np.errstate(divide="ignore", invalid="ignore"):
            return _geometric(gradient[:, 0] / gradient[:, int(members.blocks[0])])
    return _geometric(largest_and_mean_square(members, "frozen", 0)[0].astype(float).max(1))


def _geometric(numbers: np.ndarray) -> str:
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return "-"
    with np.errstate(divide="ignore"):
        return f"{np.exp(np.log(numbers).mean()):.2g}"


def summary_table(results: xr.Dataset) -> Group:
    """A table a quantity, and the divergences, for the terminal."""
    tables, depths = [], [str(depth) for depth in values(results, "depth")]
    for quantity in quantities(results):
        table = Table(title=quantity, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD, pad_edge=False)
        for name in ("net", "norm"):
            table.add_column(name, no_wrap=True)
        for depth in depths:
            table.add_column(depth, justify="right", no_wrap=True)
        for row in rows(results):
            if row.quantity == quantity:
                table.add_row(f"{row.net} {row.setting}".strip(), row.norm, *row.cells)
        tables.append(table)
    return Group(*tables, *divergences(results))

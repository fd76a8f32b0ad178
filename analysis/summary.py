"""A run in one table: net and norm by depth."""

from dataclasses import dataclass

import numpy as np
import xarray as xr
from rich.table import Table

from analysis.load import kind, settings, values

COLUMNS = ("net", "norm", "quantity")


@dataclass(frozen=True)
class Row:
    """One line of the table: what it is of, and a cell a depth."""

    setting: str
    net: str
    norm: str
    quantity: str
    cells: tuple[str, ...]


def rows(results: xr.Dataset) -> list[Row]:
    """Test accuracy at the end; gradient ratio first/last layer and largest singular value at the start.

    Cells are means over seeds, geometric ones for the last two. An accuracy says how many members diverged.
    """
    found = []
    for label, part in settings(results):
        for norm in values(part, "norm"):
            for net in values(part, "net"):
                cells = [_cells(kind(part, net, norm, depth), depth) for depth in values(part, "depth")]
                for quantity, by_depth in zip(
                    ("test accuracy", "gradient first/last", "largest singular value"),
                    zip(*cells, strict=True),
                    strict=True,
                ):
                    found.append(Row(label, net, norm, quantity, by_depth))
    return found


def _cells(members: xr.Dataset, depth: int) -> tuple[str, str, str]:
    diverged = np.isfinite(members.diverged_step.values)
    accuracy = members.test_accuracy.isel(probe_step=-1).values[~diverged]
    text = f"{accuracy.mean():.3f}" if np.isfinite(accuracy).any() else ""
    if diverged.any():
        first = int(np.nanmin(members.diverged_step.values))
        text = f"{text} {diverged.sum()}/{diverged.size} diverged at {first}".strip()
    gradient = members.output_gradient.isel(probe_step=0).values.astype(float)
    largest = members.frozen_spectrum.isel(probe_step=0, singular_value=0).max("sample").values.astype(float)
    return text, _geometric(gradient[:, 0] / gradient[:, depth]), _geometric(largest)


def _geometric(numbers: np.ndarray) -> str:
    numbers = numbers[np.isfinite(numbers)]
    if not numbers.size:
        return "not finite"
    with np.errstate(divide="ignore"):
        return f"{np.exp(np.log(numbers).mean()):.2g}"


def summary_table(results: xr.Dataset) -> Table:
    """The rows as a table for the terminal."""
    depths = values(results, "depth")
    table = Table(
        title="accuracy after training; gradient ratio and largest singular value at step 0",
        caption="columns: depth",
        show_edge=False,
    )
    for name in ("net", "norm", ""):
        table.add_column(name, no_wrap=True)
    for depth in depths:
        table.add_column(str(depth), justify="right")
    last = None
    for row in rows(results):
        group = (row.setting, row.norm, row.net)
        if last is not None and group != last:
            table.add_section()
        shown = (row.net, row.norm) if group != last else (row.setting.replace("_", " ") if row.setting else "", "")
        table.add_row(*shown, row.quantity, *row.cells)
        last = group
    return table

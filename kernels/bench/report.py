"""What the benchmark prints, writes and draws."""

import csv
import json
import os
import platform
from collections.abc import Sequence
from dataclasses import asdict, fields
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.console import Console
from rich.table import Table

from kernels.bench.timing import Result


def environment() -> dict[str, str]:
    """Device, versions and date."""
    versions = {}
    for name in ("jax", "jaxlib", "flax", "torch"):
        try:
            versions[name] = version(name)
        except PackageNotFoundError:
            versions[name] = ""
    now = datetime.now(UTC).strftime("%Y-%m-%d")
    device = jax.devices()[0].device_kind
    if jax.default_backend() == "cpu":
        device = f"{os.cpu_count()} CPU cores"
    return {"date": now, "device": device, "python": platform.python_version(), **versions}


def _ours(results: Sequence[Result]) -> list[str]:
    """Which of this project's fused implementations took part."""
    return [name for name in ("xla", "pallas") if any(result.contestant == name for result in results)]


def table(results: Sequence[Result], part: str) -> Table:
    """One part's times, bandwidths and ratios, a row for each workload and contestant."""
    ours = _ours(results)
    columns = ["workload", "", "median ms", "quartiles", "GB/s", "of copy", *(f"{name} is" for name in ours), "temp MB"]
    faster = f"; how fast {' and '.join(ours)} is, times it" if ours else ""
    drawn = Table(*columns, title=f"{part}: GB/s of the traffic that is needed at least{faster}")
    last = None
    for result in results:
        if result.part != part and result.contestant != "copy":
            continue
        drawn.add_row(
            result.workload if result.workload != last else "",
            result.contestant,
            f"{1e3 * result.median:.3f}",
            f"{1e3 * result.lower_quartile:.3f} - {1e3 * result.upper_quartile:.3f}",
            f"{result.gigabytes_per_second:.1f}",
            f"{result.share_of_copy:.0%}",
            *(_ratio(_of(results, result.workload, name, part), result) for name in ours),
            "" if np.isnan(result.temporary_bytes) else f"{result.temporary_bytes / 1e6:.1f}",
        )
        last = result.workload
    return drawn


def _ratio(ours: Result | None, theirs: Result) -> str:
    if ours is None or theirs.contestant in (ours.contestant, "copy"):
        return ""
    return f"{theirs.median / ours.median:.2f}x"


def _of(results: Sequence[Result], workload: str, contestant: str, part: str) -> Result | None:
    wanted = (workload, contestant, part)
    return next((r for r in results if (r.workload, r.contestant, r.part) == wanted), None)


def summary(results: Sequence[Result], part: str = "both") -> list[str]:
    """How much faster each of `xla` and `pallas` is than every other: geometric mean and worst case over workloads."""
    lines = []
    for our_name in _ours(results):
        for name in dict.fromkeys(r.contestant for r in results):
            ratios = [
                theirs.median / ours.median
                for theirs in results
                if theirs.contestant == name and theirs.part == part
                if (ours := _of(results, theirs.workload, our_name, part)) is not None
            ]
            if ratios and name not in (our_name, "copy"):
                mean = float(np.exp(np.mean(np.log(ratios))))
                worst = min(ratios)
                lines.append(f"{part}: {our_name} against {name}: {mean:.2f}x in geometric mean, {worst:.2f}x at worst")
    return lines


def show(results: Sequence[Result], console: Console) -> None:
    """Prints the tables."""
    for part in dict.fromkeys(result.part for result in results):
        console.print(table(results, part))
    for line in summary(results):
        console.print(line, highlight=False)


def write_json(results: Sequence[Any], path: Path) -> None:
    """Environment and results, dataclasses, as one JSON object; what was not measured is null."""

    def plain(result: Any) -> dict[str, Any]:
        return {key: None if value != value else value for key, value in asdict(result).items()}

    path.write_text(json.dumps({"environment": environment(), "results": list(map(plain, results))}, indent=2) + "\n")


def append_csv(results: Sequence[Any], path: Path) -> None:
    """Appends a line for each result, a dataclass, environment included; a new file gets a header."""
    where = environment()
    new = not path.exists()
    with path.open("a", newline="") as file:
        writer = csv.DictWriter(file, [*where, *(field.name for field in fields(results[0]))], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(where | asdict(result) for result in results)


def plot(results: Sequence[Result], path: Path) -> None:
    """A roofline: bandwidth reached on the traffic needed, forward and backward together, below the copy's."""
    names = [name for name in dict.fromkeys(r.contestant for r in results) if name != "copy"]
    workloads = list(dict.fromkeys(r.workload for r in results))
    colours = ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9"]  # Okabe and Ito's
    figure, axes = plt.subplots(figsize=(7, 1.2 + 0.34 * len(workloads)), layout="constrained")
    for i, workload in enumerate(workloads):
        copy = _of(results, workload, "copy", "forward")
        if copy is not None:
            label = "device copy: the limit" if i == 0 else None
            axes.plot([copy.gigabytes_per_second] * 2, [i - 0.4, i + 0.4], color="black", label=label)
        for name, colour in zip(names, colours, strict=False):
            found = _of(results, workload, name, "both")
            if found is not None:
                axes.plot(found.gigabytes_per_second, i, "o", color=colour, label=name if i == 0 else None)
    axes.set_yticks(range(len(workloads)), workloads, fontsize=8)
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("GB/s of the traffic forward and backward need at least")
    figure.legend(loc="outside upper center", ncols=4, frameon=False, fontsize=8)
    where = environment()
    axes.set_title(f"{where['device']}, jax {where['jax']}, {where['date']}", fontsize=8, loc="right")
    figure.savefig(path, dpi=160)
    plt.close(figure)

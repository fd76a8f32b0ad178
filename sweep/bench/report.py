"""What the benchmark prints and draws."""

from collections.abc import Sequence
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.ticker import LogLocator, NullFormatter
from rich.console import Console
from rich.table import Table

from kernels.bench.report import environment
from sweep.bench.compare import Result
from sweep.bench.ways import LIMIT, OURS

_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's


def show(results: Sequence[Result], console: Console) -> None:
    """Prints a table a workload, and how much faster fathom is over all of them."""
    for workload in dict.fromkeys(result.workload for result in results):
        found = [result for result in results if result.workload == workload]
        ours = next((result for result in found if result.way == OURS), None)
        drawn = Table(
            "",
            "step, ms",
            "quartiles",
            "times ours",
            "compile, s",
            f"cold, {found[0].steps} steps, s",
            "times ours",
            "peak, GB",
            "GFLOP/s",
            "of limit",
            title=workload,
        )
        for r in found:
            is_limit = r.way == LIMIT
            drawn.add_row(
                r.way,
                f"{1e3 * r.step:.1f}",
                f"{1e3 * r.lower_quartile:.1f} - {1e3 * r.upper_quartile:.1f}",
                f"{r.step / ours.step:.2f}" if ours else "",
                f"{r.compile_seconds:.1f}",
                "" if is_limit else f"{r.cold_seconds:.1f}",
                f"{r.cold_seconds / ours.cold_seconds:.2f}" if ours and not is_limit else "",
                "" if is_limit else f"{r.peak_bytes / 1e9:.2f}",
                f"{r.gigaflops:.0f}",
                "" if np.isnan(r.share_of_limit) else f"{r.share_of_limit:.0%}",
            )
        console.print(drawn)
    for line in summary(results):
        console.print(line, highlight=False)


def summary(results: Sequence[Result]) -> list[str]:
    """fathom against every other way: geometric means over workloads."""
    ours = {result.workload: result for result in results if result.way == OURS}
    lines = []
    for name in dict.fromkeys(result.way for result in results if result.workload in ours):
        pairs = [(ours[r.workload], r) for r in results if r.way == name and r.workload in ours]
        step, cold = (
            float(np.exp(np.mean([np.log(getattr(their, what) / getattr(our, what)) for our, their in pairs])))
            for what in ("step", "cold_seconds")
        )
        if name == LIMIT:
            lines.append(f"fathom's step runs at {step:.0%} of the speed of its matrix products alone")
        elif name != OURS:
            lines.append(f"{name} takes {step:.2f} times as long a step, and {cold:.2f} times from a cold start")
    return lines


def plot(results: Sequence[Result], path: Path) -> None:
    """Milliseconds a step, and seconds from a cold start, by way and workload."""
    names = list(dict.fromkeys(result.way for result in results))
    workloads = list(dict.fromkeys(result.workload for result in results))
    figure, axes = plt.subplots(1, 2, figsize=(8, 1.3 + 0.36 * len(names)), layout="constrained", sharey=True)
    for k, (workload, colour) in enumerate(zip(workloads, _COLOURS, strict=False)):
        for i, name in enumerate(names):
            r = next((r for r in results if (r.workload, r.way) == (workload, name)), None)
            if r is None:
                continue
            place = i + 0.16 * (k - (len(workloads) - 1) / 2)
            spread = [[r.step - r.lower_quartile], [r.upper_quartile - r.step]]
            label = workload if i == 0 else None
            axes[0].errorbar(1e3 * r.step, place, xerr=1e3 * np.array(spread), fmt="o", ms=4, color=colour, label=label)
            if name != LIMIT:
                axes[1].plot(r.cold_seconds, place, "o", ms=4, color=colour)
    for axis, label in zip(
        axes, ("ms a step of all members", f"s from a cold start, {results[0].steps} steps"), strict=True
    ):
        axis.set_xscale("log")
        axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.xaxis.set_major_formatter("{x:.0f}")
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(label)
        axis.grid(axis="x", alpha=0.25)
    axes[0].set_yticks(range(len(names)), names)
    axes[0].invert_yaxis()
    figure.legend(loc="outside upper left", ncols=4, frameon=False, fontsize=8)
    where = environment()
    axes[1].set_title(f"{where['device']}, jax {where['jax']}, {where['date']}", fontsize=8, loc="right")
    figure.savefig(path, dpi=160)
    plt.close(figure)

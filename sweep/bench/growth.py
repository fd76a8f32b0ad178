"""How fathom's cost grows with a sweep: a step's with its layers, members and width, compiling's with its depths."""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import jax
import matplotlib.pyplot as plt
import numpy as np
from rich.table import Table

from kernels.bench.report import environment
from sweep.bench.ensemble import ensemble
from sweep.bench.way import Trainer, Workload
from sweep.config import Config
from sweep.data import Dataset
from sweep.plan import members_of

# Seconds that a turn lasts, in whole steps.
_TURN = 0.5


@dataclass(frozen=True)
class Point:
    """A sweep of some size.

    Attributes:
      grows: what of it varies, and is the figure's horizontal axis.
      size: how large that is.
      step, lower_quartile, upper_quartile: seconds a step of all members, median and quartiles.
      compile_seconds: median.
    """

    grows: str
    size: int
    step: float
    lower_quartile: float
    upper_quartile: float
    compile_seconds: float


def _powers(most: int) -> tuple[int, ...]:
    return tuple(2**k for k in range(1, most + 1))


def sweeps(config: Config, quick: bool) -> list[tuple[str, int, Config]]:
    """What is measured: what grows, its size, and the sweep."""
    by_depths = [replace(config, depths=_powers(count)) for count in range(2, 8)]
    by_seeds = [replace(config, seeds=tuple(range(seeds))) for seeds in (1, 2, 4, 8, 16)]
    grown = {
        "layers of all members": [(sum(m.depth for m in members_of(sweep)), sweep) for sweep in by_depths],
        "members": [(len(members_of(sweep)), sweep) for sweep in by_seeds],
        "width": [(width, replace(config, width=width)) for width in (16, 32, 64, 128, 256)],
        "deepest": [(deepest, replace(config, depths=(2, deepest))) for deepest in (4, 16, 64, 256, 1024)],
        "distinct depths": [(count, replace(config, depths=_powers(count))) for count in range(1, 9)],
    }
    return [(name, size, sweep) for name, found in grown.items() for size, sweep in found[: 2 if quick else None]]


def measure(config: Config, dataset: Dataset, rounds: int, quick: bool) -> Iterator[str | list[Point]]:
    """Measures sweeps of growing size in alternation; yields what it is doing, and at last the points."""
    compiling: dict[tuple[str, int], list[float]] = {}
    trainers: dict[tuple[str, int], Trainer] = {}
    asked = sweeps(config, quick)
    kept = jax.config.jax_enable_compilation_cache  # pyright: ignore[reportAttributeAccessIssue]
    jax.config.update("jax_enable_compilation_cache", False)  # what is found there was not compiled
    try:
        for repeat in range(1 if quick else 2):
            for name, size, sweep in asked:
                yield f"compiling: {name}, {size} (repeat {repeat + 1})"
                jax.clear_caches()
                trainers[name, size] = ensemble(Workload.of(sweep, dataset))()
                compiling.setdefault((name, size), []).append(trainers[name, size].compile_seconds)
    finally:
        jax.config.update("jax_enable_compilation_cache", kept)
    times: dict[tuple[str, int], list[float]] = {key: [] for key in trainers}
    counts = {}
    for key, trainer in trainers.items():
        seconds(trainer, 1)
        counts[key] = int(np.clip(_TURN / seconds(trainer, 1), 1, 64))
    for turn in range(rounds):
        yield f"turn {turn + 1} of {rounds}"
        for key, trainer in trainers.items():
            times[key].append(seconds(trainer, counts[key]) / counts[key])
    points = []
    for (name, size), found in times.items():
        lower, median, upper = np.percentile(found, (25, 50, 75)).tolist()
        points.append(Point(name, size, median, lower, upper, float(np.median(compiling[name, size]))))
    yield points


def seconds(trainer: Trainer, steps: int) -> float:
    """How long so many steps take."""
    started = time.perf_counter()
    trainer.take(0, steps)
    return time.perf_counter() - started


def _curve(points: Sequence[Point], grows: str, what: str) -> tuple[np.ndarray, np.ndarray]:
    found = [point for point in points if point.grows == grows]
    return np.array([p.size for p in found], float), np.array([getattr(p, what) for p in found])


def slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """The line through the origin at the points' median ratio y/x, and their largest relative distance from it."""
    found = float(np.median(y / x))
    return found, float(np.abs(y / (found * x) - 1).max())


def summary(points: Sequence[Point]) -> list[str]:
    """What the points say of the growth."""
    layers, steps = _curve(points, "layers of all members", "step")
    each, off = slope(layers, steps)
    deepest, compiling = _curve(points, "deepest", "compile_seconds")
    distinct, by_count = _curve(points, "distinct depths", "compile_seconds")
    more, first = np.polyfit(distinct, by_count, 1)
    return [
        f"a step takes {1e6 * each:.1f} us a layer of a member, within {off:.0%} of that line through the origin",
        f"compiling depths 2 and {deepest[-1]:.0f} takes {compiling[-1] / compiling[0]:.2f} times as long as 2 and "
        f"{deepest[0]:.0f}",
        f"compiling takes {first:.2f} s, and {more:.2f} s for every distinct depth",
    ]


def table(points: Sequence[Point]) -> Table:
    """Every point, a row."""
    drawn = Table("", "", "step, ms", "quartiles", "compile, s")
    for i, p in enumerate(points):
        drawn.add_row(
            p.grows if i == 0 or points[i - 1].grows != p.grows else "",
            str(p.size),
            f"{1e3 * p.step:.2f}",
            f"{1e3 * p.lower_quartile:.2f} - {1e3 * p.upper_quartile:.2f}",
            f"{p.compile_seconds:.2f}",
        )
    return drawn


def plot(points: Sequence[Point], path: Path) -> None:
    """Step time against layers, members and width; compile time against the deepest and the number of depths."""
    panels = [(grows, "step") for grows in ("layers of all members", "members", "width")]
    panels += [(grows, "compile_seconds") for grows in ("deepest", "distinct depths")]
    names = {"deepest": "depths 2 and ...", "distinct depths": "number of distinct depths"}
    figure, axes = plt.subplots(1, len(panels), figsize=(13, 2.9), layout="constrained")
    for axis, (grows, what) in zip(axes, panels, strict=True):
        x, y = _curve(points, grows, what)
        scale = 1e3 if what == "step" else 1
        axis.plot(x, scale * y, "o", color="#0072B2", ms=4)
        if grows == "layers of all members":
            each, _ = slope(x, y)
            axis.plot([0, x[-1]], [0, scale * each * x[-1]], color="black", lw=1, label=f"{1e6 * each:.1f} us a layer")
            axis.legend(frameon=False, fontsize=8)
        if grows in ("width", "deepest"):
            axis.set_xscale("log", base=2)
            axis.set_xticks(x, [f"{size:.0f}" for size in x])
        axis.set_ylim(0, 1.15 * scale * y.max())
        axis.set_xlabel(names.get(grows, grows))
        axis.set_ylabel("ms a step" if what == "step" else "s to compile")
    where = environment()
    axes[-1].set_title(f"{where['device']}, jax {where['jax']}, {where['date']}", fontsize=8, loc="right")
    figure.savefig(path, dpi=160)
    plt.close(figure)

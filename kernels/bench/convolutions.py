"""Times convolutions with a member axis against what one would write instead.

`python -m kernels.bench.convolutions`: forward and both gradients together, in turns, on the same inputs. `loop` is a
program with every member's convolution and its derivatives by XLA one after the other, what a loop over networks runs;
`vmap` is XLA's convolution under `vmap`. In `scan` rows four layers follow each other inside `lax.scan`, and times are
a layer's.
"""

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, lax
from rich.console import Console
from rich.table import Table

from kernels import ensemble_conv
from kernels.bench.command import Parser
from kernels.bench.report import append_csv, environment

_LAYERS = 4
# What takes longer than this once is not run again.
_PATIENCE = 1.0


@dataclass(frozen=True)
class Workload:
    """`members` networks, each with a 3x3 convolution of its own of `batch` images."""

    members: int
    batch: int
    size: int
    channels: int
    channels_out: int
    stride: int = 1

    @property
    def name(self) -> str:
        """Like 8x64x16x16x32, and where they change, stride and channels after it."""
        shape = f"{self.members}x{self.batch}x{self.size}x{self.size}x{self.channels}"
        return shape if self.stride == 1 else f"{shape} to {self.channels_out} by {self.stride}"

    @property
    def operations(self) -> float:
        """Additions and multiplications of the three maps."""
        pixels = (self.size // self.stride) ** 2
        return 3 * 2 * 9.0 * self.members * self.batch * pixels * self.channels * self.channels_out


WORKLOADS = [
    Workload(8, 64, 16, 32, 32),
    Workload(8, 64, 8, 64, 64),
    Workload(16, 32, 32, 16, 16),
    Workload(12, 64, 32, 16, 16),
    Workload(12, 64, 32, 16, 32, 2),
    Workload(12, 64, 16, 32, 64, 2),
]
QUICK = [Workload(4, 8, 8, 16, 16), Workload(4, 8, 8, 16, 32, 2)]


@dataclass(frozen=True)
class Result:
    """One contestant on one workload; seconds a layer, forward and both gradients."""

    workload: str
    contestant: str
    median: float
    lower_quartile: float
    upper_quartile: float
    gigaflops: float
    compile_seconds: float


def _loop(stride: int, x: Array, w: Array) -> Array:
    layout = ("NHWC", "HWIO", "NHWC")
    one = partial(lax.conv_general_dilated, window_strides=(stride, stride), padding="SAME", dimension_numbers=layout)
    return jnp.stack([one(x[i], w[i]) for i in range(len(x))])


def _contestants(workload: Workload) -> dict[str, Callable[[Array, Array], Array]]:
    stride = workload.stride
    found: dict[str, Callable[[Array, Array], Array]] = {
        "fathom": partial(ensemble_conv, stride=stride),
        "fathom matmul": partial(ensemble_conv, stride=stride, implementation="matmul"),
        "loop": partial(_loop, stride),
        "vmap": partial(ensemble_conv, stride=stride, implementation="grouped"),
    }
    return found


def _both(function: Callable[..., Array], *args: Array) -> Any:
    *primals, cotangent = args
    y, pull = jax.vjp(function, *primals)
    return y, pull(cotangent)


def _in_scan(function: Callable[[Array, Array], Array], x: Array, ws: Array) -> Array:
    return lax.scan(lambda h, w: (function(h, w), None), x, ws)[0]


def compare(workload: Workload, rounds: int) -> list[Result]:
    """Every contestant in turns."""
    keys = jax.random.split(jax.random.key(0), 3)
    w = workload
    x = jax.random.normal(keys[0], (w.members, w.batch, w.size, w.size, w.channels))
    kernels = jax.random.normal(keys[1], (w.members, 3, 3, w.channels, w.channels_out)) / (9 * w.channels) ** 0.5
    functions = _contestants(workload)
    runs = {name: (functions[name], (x, kernels), 1) for name in functions}
    if w.stride == 1:
        stacked = jnp.stack([kernels] * _LAYERS)
        runs["fathom in scan"] = (partial(_in_scan, functions["fathom"]), (x, stacked), _LAYERS)
        runs["loop in scan"] = (partial(_in_scan, functions["loop"]), (x, stacked), _LAYERS)
    ready, times, compiling = {}, {}, {}
    for name, (function, args, layers) in runs.items():
        cotangent = jax.random.normal(keys[2], jax.eval_shape(function, *args).shape)
        started = time.perf_counter()
        program = jax.jit(partial(_both, function)).lower(*args, cotangent).compile()
        compiling[name] = time.perf_counter() - started
        ready[name] = program, (*args, cotangent), layers
        started = time.perf_counter()
        jax.block_until_ready(program(*args, cotangent))
        times[name] = [(time.perf_counter() - started) / layers]
    quick = [name for name, found in times.items() if found[0] * ready[name][2] < _PATIENCE]
    for name in quick:
        times[name] = []
    for _ in range(rounds):
        for name in quick:
            program, args, layers = ready[name]
            started = time.perf_counter()
            jax.block_until_ready(program(*args))
            times[name].append((time.perf_counter() - started) / layers)

    def result(name: str) -> Result:
        lower, median, upper = np.percentile(times[name], (25, 50, 75)).tolist()
        return Result(w.name, name, median, lower, upper, w.operations / median / 1e9, compiling[name])

    return [result(name) for name in runs]


def ratios(results: list[Result], name: str, against: str) -> list[float]:
    """How many times as long `name` takes as `against`, on every workload that has both."""
    found = {(r.workload, r.contestant): r.median for r in results}
    return [
        found[workload, name] / median
        for (workload, contestant), median in found.items()
        if contestant == against and (workload, name) in found
    ]


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark as the command line says."""
    parser = Parser(prog="python -m kernels.bench.convolutions", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=int, default=9, help="turns of every contestant (default: 9)")
    parser.add_argument("--quick", action="store_true", help="two small workloads, three turns")
    parser.add_argument("--csv", type=Path, help="append the results there")
    asked: argparse.Namespace = parser.parse_args(arguments)
    parser.check(asked, Result)
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print("  ".join(f"{key} {value}" for key, value in environment().items() if value), highlight=False)
    columns = ["workload", "", "median ms", "quartiles", "GFLOP/s", "times fathom", "compile s"]
    drawn = Table(*columns, title="forward and both gradients, a layer")
    results: list[Result] = []
    for workload in QUICK if asked.quick else WORKLOADS:
        with console.status(workload.name):
            found = compare(workload, 3 if asked.quick else asked.rounds)
        if asked.csv:
            append_csv(found, asked.csv)
        for i, r in enumerate(found):
            quartiles = f"{1e3 * r.lower_quartile:.1f} - {1e3 * r.upper_quartile:.1f}"
            numbers = [f"{1e3 * r.median:.1f}", quartiles, f"{r.gigaflops:.0f}"]
            drawn.add_row(
                "" if i else r.workload,
                r.contestant,
                *numbers,
                f"{r.median / found[0].median:.2f}",
                f"{r.compile_seconds:.1f}",
            )
        results += found
    console.print(drawn)
    for name, against in (
        ("loop", "fathom"),
        ("vmap", "fathom"),
        ("fathom in scan", "fathom"),
        ("loop in scan", "fathom in scan"),
    ):
        found = ratios(results, name, against)
        if found:
            mean = float(np.exp(np.mean(np.log(found))))
            least, most = min(found), max(found)
            line = f"{name} takes {mean:.2f} times as long as {against} in geometric mean, {least:.2f} to {most:.2f}"
            console.print(line, highlight=False)


if __name__ == "__main__":
    main()

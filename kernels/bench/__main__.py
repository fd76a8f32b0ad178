"""The benchmark's command."""

import argparse
import sys
from dataclasses import replace
from pathlib import Path

from rich.console import Console

from kernels.bench.command import Parser, save, taking_part
from kernels.bench.contestants import CONTESTANTS, missing
from kernels.bench.report import append_csv, environment, plot, show
from kernels.bench.timing import Result, compare
from kernels.bench.workloads import QUICK, WORKLOADS, Workload


def _shape(text: str) -> Workload:
    of_members = text.startswith("members:")
    try:
        shape = tuple(int(size) for size in text.removeprefix("members:").split("x"))
    except ValueError:
        shape = ()
    if len(shape) < 2 + of_members or min(shape) < 1:
        raise argparse.ArgumentTypeError(
            f"expected sizes, features last, like 256x16x16x128 or members:24x128x64, got {text!r}"
        )
    return Workload(shape, members=of_members)


def _parser() -> Parser:
    parser = Parser(prog="python -m kernels.bench", description="Times batch norm against what one would use instead.")
    parser.add_argument("--only", nargs="+", choices=list(CONTESTANTS), metavar="NAME", help=", ".join(CONTESTANTS))
    parser.add_argument(
        "--shapes",
        nargs="+",
        type=_shape,
        help="256x16x16x128 or members:24x128x64 instead of the usual",
    )
    parser.add_argument("--dtype", choices=["float32", "bfloat16", "float16"], help="of the inputs")
    parser.add_argument("--rounds", type=int, default=15, help="turns of every contestant (default: 15)")
    parser.add_argument("--quick", action="store_true", help="two small workloads, three turns")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--csv", type=Path, help="append the results there")
    parser.add_argument("--plot", type=Path, help="draw a roofline there")
    return parser


def main(arguments: list[str] | None = None) -> None:
    """Runs the benchmark as the command line says."""
    parser = _parser()
    asked = parser.parse_args(arguments)
    parser.check(asked, Result)
    reasons = {name: missing(name) for name in asked.only or CONTESTANTS}
    for name, reason in reasons.items():
        if reason and asked.only:
            parser.error(f"argument --only: {name} cannot run: {reason}")
    console = Console(width=None if sys.stdout.isatty() else 120)
    console.print("  ".join(f"{key} {value}" for key, value in environment().items() if value), highlight=False)
    names = list(dict.fromkeys(["copy", *taking_part(reasons, console)]))
    workloads = asked.shapes or (QUICK if asked.quick else WORKLOADS)
    if asked.dtype:
        workloads = list(dict.fromkeys(replace(workload, dtype=asked.dtype) for workload in workloads))
    results = []
    for workload in workloads:
        with console.status(workload.name):
            found = list(compare(workload, names, 3 if asked.quick else asked.rounds))
        results += found
        if asked.csv:  # as it is measured: an interrupt loses one workload, not all
            append_csv(found, asked.csv)
    show(results, console)
    save(results, asked, plot)


if __name__ == "__main__":
    main()

"""`python -m sweep.bench`: fathom's ensembles beside every other way to train many depths.

All ways start from the same weights and see the same batches, and that they train to the same losses is checked. Each
has a process of its own. The flags of `train.py` say what is trained.
"""

import os
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from shutil import which

from rich.console import Console

from kernels.bench.command import Parser, save, taking_part
from kernels.bench.report import append_csv, environment
from sweep.bench import growth
from sweep.bench.compare import Result, compare
from sweep.bench.report import plot, show
from sweep.bench.way import ComparisonError, Workload
from sweep.bench.ways import LIMIT, OURS, WAYS
from sweep.cli import parse
from sweep.config import Config
from sweep.data import Dataset, load
from sweep.devices import use_every_core
from sweep.errors import UserError
from sweep.prepare import check_sizes

_FULL = Config(nets=("residual",), norms=("batch",), seeds=(0, 1, 2, 3))
_QUICK = replace(_FULL, depths=(2, 4, 8), seeds=(0, 1), steps=20)


def _parser() -> Parser:
    parser = Parser(
        prog="python -m sweep.bench",
        description="Times fathom's training of many depths against what one would use instead.",
        epilog="Other flags are train.py's (python train.py --help) and say what is trained; by default residual MLPs "
        "with batch norm of the quickstart's depths, four seeds.",
        allow_abbrev=False,
    )
    parser.add_argument("--only", nargs="+", choices=list(WAYS), metavar="NAME", help=", ".join(WAYS))
    parser.add_argument("--width", nargs="+", type=int, help="a comparison for each (default: 64 128)")
    parser.add_argument("--rounds", type=int, help="turns of every way (default: 7)")
    parser.add_argument("--quick", action="store_true", help="three depths, two seeds, one width, three turns")
    parser.add_argument("--growth", action="store_true", help="instead: how fathom's cost grows with a sweep's size")
    parser.add_argument("--json", type=Path, help="write the results there")
    parser.add_argument("--csv", type=Path, help="append the results there")
    parser.add_argument("--plot", type=Path, help="draw the results there")
    return parser


def missing(name: str, config: Config) -> str:
    """Why a way is not measured unless it is asked for by name; empty if it is."""
    if name == OURS:
        return ""
    if config.arch != "mlp" and name not in ("unrolled", "torch", "torch compiled", LIMIT):
        return "XLA's vmapped and scanned convolutions take minutes on CPUs"
    return impossible(name, config)


def impossible(name: str, config: Config) -> str:
    """Why a way cannot be measured; empty if it can."""
    if name in ("torch", "torch compiled", LIMIT, "padded") and config.arch != "mlp":
        return "it is written for MLPs only"
    if name.startswith("torch") and find_spec("torch") is None:
        return "PyTorch is not installed"
    if name == "torch compiled" and not any(map(which, ("c++", "g++", "clang++"))):
        return "there is no C++ compiler"
    return ""


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as the command line says.

    Returns:
      The exit code: 0 done, 1 a way failed or trains something else, 2 a mistake in what was asked, 130 interrupted.
    """
    # Several processes will share an accelerator; each would otherwise take most of its memory.
    os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    parser = _parser()
    asked, others = parser.parse_known_args(arguments)
    asked.rounds = asked.rounds if asked.rounds is not None else 3 if asked.quick else 7
    parser.check(asked, growth.Point if asked.growth else Result)
    console = Console(width=None if sys.stdout.isatty() else 140)
    try:
        config = parse(others, _QUICK if asked.quick else _FULL)
        dataset = load(config.dataset, config.data_dir)
        check_sizes(config, dataset)
        widths = asked.width or ([64] if asked.quick else [64, 128])
        workloads = {f"width {width}": Workload.of(replace(config, width=width), dataset) for width in widths}
        if asked.growth and (config.arch != "mlp" or asked.only or len(asked.width or ()) > 1):
            raise UserError("--growth is of fathom's MLPs of one width; drop --arch, --only and further widths")
        for name in asked.only or ():
            if reason := impossible(name, config):
                raise UserError(f"--only: {name} cannot run: {reason}")
    except UserError as error:
        parser.error(str(error))
    use_every_core()  # before JAX is asked what devices there are
    console.print("  ".join(f"{key} {value}" for key, value in environment().items() if value), highlight=False)
    try:
        if asked.growth:
            _growth(replace(config, width=widths[0]), dataset, asked, console)
        else:
            _comparison(config, workloads, asked, console)
    except ComparisonError as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


def _comparison(config: Config, workloads: dict[str, Workload], asked: Namespace, console: Console) -> None:
    reasons = {name: "" if asked.only else missing(name, config) for name in asked.only or WAYS}
    names = taking_part(reasons, console)
    results: list[Result] = []
    for label, workload in workloads.items():
        found = _watched(compare(workload, label, names, asked.rounds), console)
        results += found
        if asked.csv:  # as it is measured: an interrupt loses one workload, not all
            append_csv(found, asked.csv)
    show(results, console)
    save(results, asked, plot)


def _growth(config: Config, dataset: Dataset, asked: Namespace, console: Console) -> None:
    points = _watched(growth.measure(config, dataset, asked.rounds, asked.quick), console)
    console.print(growth.table(points))
    for line in growth.summary(points):
        console.print(line, highlight=False)
    if asked.csv:
        append_csv(points, asked.csv)
    save(points, asked, growth.plot)


def _watched(measuring: Iterator[str | list], console: Console) -> list:
    """What a measurement yields last; what it yields before shows what it is at."""
    found: list = []
    with console.status("") as status:
        for doing in measuring:
            if isinstance(doing, str):
                status.update(doing)
            else:
                found = doing
    return found


if __name__ == "__main__":
    sys.exit(main())

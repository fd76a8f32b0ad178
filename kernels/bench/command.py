"""What the benchmarks' command lines share."""

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

from matplotlib.backend_bases import FigureCanvasBase
from rich.console import Console

from kernels.bench.report import write_json


class Parser(argparse.ArgumentParser):
    """Tells a mistake in one line, exit code 2."""

    def error(self, message: str) -> NoReturn:
        """One line for a person."""
        self.exit(2, f"{self.prog}: error: {message}\n")

    def check(self, asked: argparse.Namespace, kind: type) -> None:
        """Ends the program if there are no rounds, or results of this kind, a dataclass, cannot be written as asked."""
        if asked.rounds < 1:
            self.error(f"argument --rounds: expected at least 1, got {asked.rounds}")
        for name in ("json", "csv", "plot"):
            path = getattr(asked, name, None)
            if path is not None and not path.absolute().parent.is_dir():
                self.error(f"argument --{name}: there is no folder {path.parent}")
            if path is not None and path.is_dir():
                self.error(f"argument --{name}: {path} is a folder; give a file's name")
        if (path := getattr(asked, "csv", None)) is not None and path.exists():
            with path.open() as file:
                header = file.readline().strip()
            if not header.endswith(",".join(field.name for field in fields(kind))):
                self.error(f"argument --csv: {path} holds other columns than these results; give a new file's name")
        if (path := getattr(asked, "plot", None)) is not None:
            known = FigureCanvasBase.filetypes
            if path.suffix[1:].lower() not in known:
                self.error(f"argument --plot: expected one of .{', .'.join(sorted(known))}, got {path.name}")


def taking_part(reasons: Mapping[str, str | None], console: Console) -> list[str]:
    """The names that have no reason to stay away; the others' reasons are printed."""
    for name, reason in reasons.items():
        if reason:
            console.print(f"without {name}: {reason}", highlight=False)
    return [name for name, reason in reasons.items() if not reason]


def save(results: Sequence[Any], asked: argparse.Namespace, plot: Callable[[Sequence[Any], Path], None]) -> None:
    """Writes and draws the results, dataclasses, where the command line asks for it."""
    if asked.json:
        write_json(results, asked.json)
    if asked.plot:
        plot(results, asked.plot)

"""What the analysis scripts share: a run directory in, figures into its folder `figures`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr
from matplotlib.figure import Figure

from analysis.load import NotARunError, load, settings

Figures = Callable[[xr.Dataset], dict[str, Figure]]


def save(run: Path, figures: Figures, results: xr.Dataset, out: Path | None = None) -> list[Path]:
    """Draws and saves figures, one set for every setting swept; returns the files."""
    folder = out or run / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for label, part in settings(results):
        for name, figure in figures(part).items():
            paths.append(folder / f"{'-'.join([name, *label.split()])}.png")
            if label:
                figure.text(0.995, 0.995, label.replace("_", " "), ha="right", va="top", fontsize=8)
            figure.savefig(paths[-1])
    return paths


def arguments(description: str | None, argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line that every analysis script has."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("run", type=Path, help="a run directory, as train.py writes it")
    parser.add_argument("--out", type=Path, help="folder for the files (default: inside the run)")
    return parser.parse_args(argv)


def exit_with(work: Callable[[], Sequence[Path]]) -> None:
    """Runs a script's work, prints the files it wrote, and tells a user's mistake in one line with exit code 2."""
    try:
        for path in work():
            print(path)
    except (NotARunError, OSError) as error:
        print(f"analysis: error: {error}", file=sys.stderr)
        sys.exit(2)


def main(figures: Figures, description: str | None, argv: Sequence[str] | None = None) -> None:
    """The whole of a script that draws one kind of figure."""
    given = arguments(description, argv)
    exit_with(lambda: save(given.run, figures, load(given.run), given.out))

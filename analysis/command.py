"""What the analysis scripts share: a run directory in, figures into its folder `figures`."""

import argparse
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import xarray as xr

from analysis.drawing import Drawing
from analysis.load import NotARunError, load_now, settings

Figures = Callable[[xr.Dataset], dict[str, Drawing]]

# Settings that figures are drawn of, at most; more, such as a grid's, are told apart in a heat map only.
MOST_SETTINGS = 6


def save(
    run: Path, figures: Figures, results: xr.Dataset, out: Path | None = None, *, whole: bool = False
) -> dict[Path, str]:
    """Draws and saves figures, one set for every setting swept; returns the files, each with what it shows.

    Args:
      run: the run directory.
      figures: what draws them.
      results: the run's.
      out: another folder for the files.
      whole: whether they are of the run as a whole and not of each setting.
    """
    folder = out or run / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    found = {}
    parts = [("", results)] if whole else settings(results)
    # The ends, and evenly spaced ones between them.
    chosen = {round(i * (len(parts) - 1) / (MOST_SETTINGS - 1)) for i in range(MOST_SETTINGS)}
    for label, part in (part for i, part in enumerate(parts) if i in chosen or len(parts) <= MOST_SETTINGS):
        for name, (figure, finding) in figures(part).items():
            path = folder / f"{'-'.join([name, *label.split()])}.png"
            if label:
                figure.text(0.995, 0.995, label.replace("_", " "), ha="right", va="top", fontsize=8)
            figure.savefig(path)
            found[path] = f"{label.replace('_', ' ')}: {finding}" if label and finding else finding
    return found


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


def main(figures: Figures, description: str | None, argv: Sequence[str] | None = None, *, whole: bool = False) -> None:
    """The whole of a script that draws one kind of figure."""
    given = arguments(description, argv)
    exit_with(lambda: list(save(given.run, figures, load_now(given.run), given.out, whole=whole)))

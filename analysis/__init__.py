"""Scripts that read a run directory and nothing else: `load` it, draw it, report on it."""

from pathlib import Path

from analysis.load import NotARunError, load
from analysis.summary import summary_table

__all__ = ["NotARunError", "load", "summary_table", "write_report"]


def write_report(run: str | Path, out: Path | None = None) -> list[Path]:
    """Draws every figure of a run and writes `report.html` beside them; returns the files.

    Raises:
      NotARunError: no run is there.
    """
    # Here, not above: `python -m analysis.spectra` would otherwise find itself imported before it starts, and warn.
    from analysis.report import write

    return write(Path(run), out)

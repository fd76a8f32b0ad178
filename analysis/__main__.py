"""Draws every figure of a run and writes its report: `python -m analysis RUN`."""

from analysis import report
from analysis.command import arguments, exit_with

if __name__ == "__main__":
    given = arguments(__doc__, None)
    exit_with(lambda: report(given.run, given.out))

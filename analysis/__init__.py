"""Scripts that read a run directory and nothing else: `load` it, draw it, report on it."""

from analysis.load import NotARunError, load
from analysis.report import report
from analysis.summary import summary_table

__all__ = ["NotARunError", "load", "report", "summary_table"]

"""Data sets, whole and in memory; adding one is adding a function to `DATASETS`."""

from sweep.data.dataset import Dataset
from sweep.data.registry import DATASETS, load

__all__ = ["DATASETS", "Dataset", "load"]

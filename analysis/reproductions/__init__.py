"""The experiments of the literature, each judged by what its preset measures."""

from analysis.reproductions import (
    balduzzi2017,
    bjorck2018,
    desmith2020,
    he2016,
    ioffe2015,
    pennington2018,
    santurkar2018,
    schoenholz2017,
    xiao2018,
    yang2019,
)
from analysis.reproductions.claim import Claim, Experiment

_MODULES = (
    yang2019,
    pennington2018,
    schoenholz2017,
    ioffe2015,
    bjorck2018,
    santurkar2018,
    desmith2020,
    balduzzi2017,
    he2016,
    xiao2018,
)
EXPERIMENTS: dict[str, Experiment] = {module.EXPERIMENT.preset: module.EXPERIMENT for module in _MODULES}

__all__ = ["EXPERIMENTS", "Claim", "Experiment"]

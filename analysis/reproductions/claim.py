"""What a reproduction is: runs of a preset, and published statements that are held against them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import numpy as np
import xarray as xr
from scipy.stats import t as student

# How often chance alone may make a claim fail that is true.
CHANCE = 0.01


class Estimate(NamedTuple):
    """A measured number.

    Attributes:
      value: the number.
      error: its standard error; 0 of a number that has none.
      freedom: degrees of freedom that the error was estimated with.
    """

    value: float
    error: float = 0.0
    freedom: int = 1

    @property
    def room(self) -> float:
        """What chance may add or take away: the error times Student's t."""
        return self.error * float(student.ppf(1 - CHANCE / 2, self.freedom)) if self.error else 0.0


@dataclass(frozen=True)
class Claim:
    """One statement, and what became of it.

    Attributes:
      statement: what is claimed.
      source: who says so, or what it is derived from.
      relation: how measured and expected values are to relate.
      expected: the published or derived value.
      measured: ours; its error is over seeds unless the statement says otherwise.
      tolerance: what is allowed of an equality beyond chance, as a share of the expected value.
      reason: what for.
    """

    statement: str
    source: str
    relation: Literal["=", "<", ">"]
    expected: float
    measured: Estimate
    tolerance: float = field(default=0.0, kw_only=True)
    reason: str = field(default="", kw_only=True)

    @property
    def verdict(self) -> Literal["holds", "fails", "undecided"]:
        """An equality holds within chance and tolerance, an inequality if chance does not explain it.

        Undecided is an equality whose value is known no better than to half of what is expected, and an inequality that
        is seen, but may be chance. What is not finite fails.
        """
        value, room = self.measured.value, self.measured.room
        if not np.isfinite([value, room]).all():
            return "fails"
        if self.relation == "=":
            if abs(value - self.expected) > room + self.tolerance * abs(self.expected):
                return "fails"
            return "undecided" if room > abs(self.expected) / 2 else "holds"
        excess = value - self.expected if self.relation == ">" else self.expected - value
        return "holds" if excess > room else "undecided" if excess > 0 else "fails"


@dataclass(frozen=True)
class Experiment:
    """A reproduction.

    Attributes:
      preset: the name of the preset, and its own.
      title: what it is about.
      judge: the claims, from the results of the runs by label.
      runs: what to run, by label: flags beside the preset.
      quick: further flags for a minute's version, smaller than the published setting.
    """

    preset: str
    title: str
    judge: Callable[[Mapping[str, xr.Dataset]], list[Claim]]
    quick: tuple[str, ...]
    runs: Mapping[str, tuple[str, ...]]


def estimated(samples: np.ndarray) -> Estimate:
    """The mean of independent numbers, and its standard error, NaN if there is only one."""
    samples = np.asarray(samples, float).ravel()
    if samples.size < 2:
        return Estimate(float(samples.mean()), float("nan"))
    return Estimate(float(samples.mean()), float(samples.std(ddof=1) / np.sqrt(samples.size)), samples.size - 1)


def growth_by_layer(squared: np.ndarray, skipped: int = 2) -> np.ndarray:
    """The factor a layer by which `[member, layer]` grows towards layer 0, by member, the ends left out."""
    logs = np.log(squared.astype(float))[:, skipped : squared.shape[1] - skipped]
    return np.exp((logs[:, 0] - logs[:, -1]) / (logs.shape[1] - 1))


def slope(x: np.ndarray, y: np.ndarray) -> Estimate:
    """Slope of the least squares line `y[i] = a + b x[i]`; its error is from the residuals, and NaN of two points."""
    x, y = np.asarray(x, float), np.asarray(y, float)
    centred, freedom = x - x.mean(), len(x) - 2
    found = centred @ y / (centred @ centred)
    if freedom < 1:
        return Estimate(float(found), float("nan"))
    residual = y - y.mean() - found * centred
    return Estimate(float(found), float(np.sqrt(residual @ residual / freedom / (centred @ centred))), freedom)

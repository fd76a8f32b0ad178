"""What batch norm buys is the larger step (Bjorck et al. 2018)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.grid import trained_accuracy
from analysis.load import kind, values
from analysis.reproductions.claim import Claim, Estimate, Experiment, estimated

_SOURCE = "Bjorck et al. 2018, section 3"
_LAST_STEPS = 10


def _rates(members: xr.Dataset) -> np.ndarray:
    """Log10 of the largest rate that trains, by seed: no divergence, and a lower loss in the end than at the start.

    NaN where none does.
    """
    loss = members.train_loss.values.astype(float)
    good = ~np.isfinite(members.diverged_step.values) & (loss[:, -_LAST_STEPS:].mean(1) < loss[:, 0])
    rates = np.where(good, np.log10(members.learning_rate.values), -np.inf)
    found = np.asarray([rates[members.seed.values == seed].max() for seed in values(members, "seed")])
    return np.where(np.isfinite(found), found, np.nan)


def _steps(members: xr.Dataset, threshold: float) -> np.ndarray:
    """Log of the measured steps to an accuracy above the threshold, at the best of the rates, by seed.

    Where it is never reached, of all steps, which is less than it would take.
    """
    found, steps = [], members.probe_step.values
    for seed in values(members, "seed"):
        above = members.isel(member=members.seed.values == seed).test_accuracy.values > threshold
        found.append(min((steps[row.argmax()] for row in above if row.any()), default=steps[-1]))
    return np.log(np.asarray(found, float))


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    rates = np.log10(values(results, "learning_rate"))
    # What lies between two rates is not seen: the standard error of a number known to lie between them.
    spacing = float(np.diff(rates).max() / np.sqrt(12))
    threshold, claims = trained_accuracy(results), []
    for depth in values(results, "depth"):
        without, with_norm = (kind(results, "residual", norm, depth) for norm in ("none", "batch"))
        largest, largest_with = _rates(without), _rates(with_norm)
        gain = estimated(largest_with - largest)
        least = "at least, " if (largest_with == rates[-1]).any() else ""
        claims.append(
            Claim(
                f"depth {depth}: log10 of the largest rate that trains, with less without batch norm "
                f"({least}error with the rates' spacing)",
                _SOURCE,
                ">",
                0.0,
                gain._replace(error=float(np.hypot(gain.error, spacing))),
            )
        )
        saved = estimated(_steps(without, threshold) - _steps(with_norm, threshold))
        name = f"depth {depth}: log of steps to accuracy {threshold:.2f} at the best rate, without less with batch norm"
        claims.append(Claim(name, _SOURCE, ">", 0.0, saved))
        if np.isfinite(largest).all():
            claims.append(_at_the_same_rate(with_norm, float(10 ** largest.min()), threshold, depth))
    return claims


def _at_the_same_rate(with_norm: xr.Dataset, rate: float, threshold: float, depth: int) -> Claim:
    """At the largest rate that trains without batch norm, it is slower than at its own best rate."""
    chosen = with_norm.isel(member=np.isclose(with_norm.learning_rate.values, rate))
    more: Estimate = estimated(_steps(chosen, threshold) - _steps(with_norm, threshold))
    return Claim(
        f"depth {depth}: batch norm's log of steps to accuracy {threshold:.2f}, at rate {rate:.1g} less at its best",
        _SOURCE,
        ">",
        0.0,
        more,
    )


_PROBE_STEPS = ("2", "5", "10", "15", "20", "30", "50", "75", "100")

EXPERIMENT = Experiment(
    "bjorck2018-learning-rates",
    "The larger step",
    _judge,
    quick=("--depths", "4", "12", "--seeds", "0", "1", "2", "--steps", "150", "--probe-steps", *_PROBE_STEPS),
    runs={"": ()},
)

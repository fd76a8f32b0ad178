"""Batch norm smooths the loss, and does not reduce covariate shift (Santurkar et al. 2018)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.curves import OVER_TRAINING
from analysis.load import kind
from analysis.reproductions.claim import Claim, Estimate, Experiment, estimated

_SOURCE = "Santurkar et al. 2018, figure 4"
_QUANTITIES = {
    "surface-loss": "the variation of the loss along the gradient",
    "surface-gradient": "the change of the gradient, at the largest step",
    "surface-smoothness": "the effective smoothness β",
}


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    without, with_norm = (kind(results, "plain", norm) for norm in ("none", "batch"))

    def ratio(name: str) -> Estimate:
        """Mean over seeds of the log ratio, itself a mean over the measured steps after the first ones."""
        curve = OVER_TRAINING[name]
        quantity, other = (
            curve.reduced(members[curve.variable]).values.astype(float)[:, 2:] for members in (without, with_norm)
        )
        return estimated(np.log(quantity / other).mean(1))

    claims = [
        Claim(f"log ratio of {what}, without over with batch norm", _SOURCE, ">", 0.0, ratio(name))
        for name, what in _QUANTITIES.items()
    ]

    def shift(members: xr.Dataset) -> np.ndarray:
        return (
            members.shift_cosine.isel(probe_step=slice(2, None), layer=slice(1, None))
            .mean(("probe_step", "layer"))
            .values
        )

    claims.append(
        Claim(
            "cosine between gradients before and after the steps of earlier layers, with less without batch norm",
            "Santurkar et al. 2018, figure 2",
            "<",
            0.0,
            estimated(shift(with_norm) - shift(without)),
        )
    )
    return claims


EXPERIMENT = Experiment(
    "santurkar2018-smoothness",
    "The smoothness of the loss",
    _judge,
    quick=("--steps", "100", "--seeds", "0", "1", "2", "3", "--probe-steps", "3", "10", "30", "60"),
    runs={"": ()},
)

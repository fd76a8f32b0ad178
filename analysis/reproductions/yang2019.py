"""Batch norm makes the gradients of plain nets explode (Yang et al. 2019)."""

from collections.abc import Mapping

import xarray as xr

from analysis.batchnorm import plain_growth, plain_growth_at
from analysis.load import values
from analysis.reproductions.claim import Claim, Experiment, estimated, growth_by_layer

_LARGE = {"relu": "Yang et al. 2019, corollary 3.6: π/(π - 1)", "linear": "Yang et al. 2019: (B - 2)/(B - 3)"}


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    claims = []
    for activation, results in runs.items():
        batch = results.attrs["config"]["probe_batch_size"]
        source = _LARGE.get(activation, "derived here: E φ'² / Var φ")
        for scale in values(results, "weight_std"):
            members = results.isel(member=results.weight_std.values == scale)
            squared = members.output_gradient.isel(probe_step=0).values
            claims.append(
                Claim(
                    f"{activation}, σ_w = {scale:g}: growth of the squared gradient by a layer, batch {batch}",
                    source,
                    "=",
                    plain_growth_at(activation, batch),
                    estimated(growth_by_layer(squared)),
                    tolerance=0.01,
                    reason="finite width",
                )
            )
        limit = plain_growth(activation)
        claims.append(
            Claim(
                f"{activation}: the same, any σ_w, large batch",
                source,
                "=",
                limit,
                estimated(growth_by_layer(results.output_gradient.isel(probe_step=0).values)),
                tolerance=0.01 + 3 / batch,
                reason="finite width and batch",
            )
        )
    return claims


EXPERIMENT = Experiment(
    "yang2019-explosion",
    "Batch norm alone makes gradients explode",
    _judge,
    quick=("--width", "256", "--probe-batch-size", "256", "--depths", "12", "--weight-std", "1", "2"),
    runs={"relu": (), "tanh": ("--activation", "tanh"), "linear": ("--activation", "linear")},
)

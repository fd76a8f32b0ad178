"""Batch norm steadies a unit's input (Ioffe & Szegedy 2015)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.drift import drift_of
from analysis.load import kind
from analysis.reproductions.claim import Claim, Experiment, estimated


def _width_change(members: xr.Dataset) -> np.ndarray:
    """The largest change of the log width of the band between the 15th and the 85th percentile, by member."""
    found = members.unit_preactivation.isel(layer=int(members.blocks[0])).values.astype(float)
    width = np.log(found[..., 2] - found[..., 0])
    return np.abs(width - width[:, :1]).max(1)


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    without, with_norm = (kind(results, "plain", norm) for norm in ("none", "batch"))
    source = "Ioffe & Szegedy 2015, figure 1"
    claims = []
    for what, of in (
        ("movement of the median, in widths of the band", drift_of),
        ("change of the log width", _width_change),
    ):
        # The same seed has the same data in the same order.
        more = of(without) - of(with_norm)
        claims.append(Claim(f"{what}: without less with batch norm", source, ">", 0.0, estimated(more)))
    for step, name in ((0, "first"), (-1, "last")):
        cosine_without, cosine_with = (
            m.shift_cosine.isel(probe_step=step, layer=slice(1, None)).mean("layer").values
            for m in (without, with_norm)
        )
        claims.append(
            Claim(
                f"cosine between gradients before and after the steps of earlier layers, {name} step: "
                "with less without batch norm",
                "Ioffe & Szegedy 2015, as a hypothesis; denied by Santurkar et al. 2018",
                ">",
                0.0,
                estimated(cosine_with - cosine_without),
            )
        )
    return claims


EXPERIMENT = Experiment(
    "ioffe2015-drift",
    "The drift of a unit's input",
    _judge,
    quick=("--steps", "400", "--seeds", "0", "1", "2", "3"),
    runs={"": ()},
)

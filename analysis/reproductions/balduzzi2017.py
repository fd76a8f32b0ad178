"""Gradients at two inputs come apart with depth (Balduzzi et al. 2017)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.load import kind, values
from analysis.reproductions.claim import Claim, Estimate, Experiment, estimated, slope

_SOURCE = "Balduzzi et al. 2017, section 3"


def _by_depth(members: xr.Dataset) -> tuple[np.ndarray, np.ndarray]:
    """Depths, and the correlation of gradients by the first hidden state, each of every member."""
    return members.depth.values.astype(float), members.gradient_correlation.isel(layer=0).values.astype(float)


def _derived(members: xr.Dataset) -> np.ndarray:
    """By member `Π (π - θ_l)/π`, θ_l the angle between two samples' h_l.

    Each factor is the share of units active at both among those active at one (Cho & Saul 2009). Gradients of a plain
    net go back through these; were states orthogonal, all angles were π/2, and the product the paper's 1/2 a layer.
    Order is `pre`, so that h_0 to h_L are all activated; the angle is that of the mean cosine over pairs.
    """
    found = []
    for one in range(members.sizes["member"]):
        blocks = int(members.blocks[one])
        cosine = members.correlation.isel(member=one).values[: blocks + 1].astype(float)
        found.append(np.prod(1 - np.arccos(np.clip(cosine, -1, 1)) / np.pi))
    return np.asarray(found)


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    results = results.isel(probe_step=0)
    claims = []
    for net, norm, expected in (("plain", "none", 0.5), ("residual", "none", 0.75)):
        depth, correlation = _by_depth(kind(results, net, norm))
        found = slope(depth, np.log(np.maximum(correlation, 1e-12)))
        factor = float(np.exp(found.value))
        name = f"{net}, no norm: the correlation's factor a layer (error of the fit)"
        claims.append(Claim(name, _SOURCE, "=", expected, Estimate(factor, factor * found.error, found.freedom)))
    depth, correlation = _by_depth(kind(results, "residual", "batch"))
    power = slope(np.log(depth), np.log(np.maximum(correlation, 1e-12)))
    name = "residual, batch norm: the power of depth (error of the fit)"
    claims.append(Claim(name, _SOURCE, "=", -0.5, power, tolerance=0.1, reason="few depths"))
    deepest = values(results, "depth")[-1]
    plain, residual = (
        kind(results, net, "batch", deepest).gradient_correlation.isel(layer=0).values for net in ("plain", "residual")
    )
    name = f"batch norm, depth {deepest}: correlation in residual less in plain nets"
    claims.append(Claim(name, _SOURCE, ">", 0.0, estimated(residual - plain)))
    # Deeper, what all samples have in common by chance at a finite width is more than what the angles leave.
    for depth in values(results, "depth")[:3]:
        members = kind(results, "plain", "none", depth)
        ratio = members.gradient_correlation.isel(layer=0).values.astype(float) / _derived(members)
        claims.append(
            Claim(
                f"plain, no norm, depth {depth}: correlation over the product of shares of common active units",
                "derived here from Cho & Saul 2009",
                "=",
                1.0,
                estimated(ratio),
                tolerance=0.1,
                reason="the mean angle stands for all",
            )
        )
    return claims


EXPERIMENT = Experiment(
    "balduzzi2017-shattering",
    "Shattered gradients",
    _judge,
    quick=("--depths", "2", "4", "8", "16"),
    runs={"": ()},
)

"""Batch norm makes deep residual blocks tend to the identity (De & Smith 2020)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.batchnorm import residual_growth, residual_variance
from analysis.load import kind
from analysis.reproductions.claim import Claim, Experiment, estimated


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    results = results.isel(probe_step=0)
    without, with_norm = (kind(results, "residual", norm) for norm in ("none", "batch"))
    blocks, scale = int(results.depth.values[0]), float(results.weight_std.values[0])
    variance = with_norm.batch_variance.values.astype(float)
    expected = np.asarray([residual_variance(blocks, scale, float(first)) for first in variance[:, 0]])
    share = with_norm.branch_share.values.astype(float)
    middle, last = blocks // 2, blocks
    claims = []
    for layer in (middle, last):
        derived = (expected[:, layer] - expected[:, layer - 1]) / expected[:, layer]
        claims.append(
            Claim(
                f"batch norm: the branch's share of block {layer}'s variance",
                "De & Smith 2020, section 3",
                "=",
                float(derived.mean()),
                estimated(share[:, layer]),
                tolerance=0.03,
                reason="finite width and batch",
            )
        )
    ratio = variance[:, last] / expected[:, last]
    claims.append(
        Claim(
            f"batch norm: variance after {last} blocks, over 1 + l (π - 1)/π",
            "De & Smith 2020, section 3",
            "=",
            1.0,
            estimated(ratio),
            tolerance=0.03,
            reason="finite width and batch",
        )
    )
    gradient = with_norm.output_gradient.values.astype(float)
    product = np.asarray([residual_growth(blocks, scale, float(first)).prod() for first in variance[:, 0]])
    measured = estimated(np.log(gradient[:, 0] / gradient[:, last]) / np.log(product))
    claims.append(
        Claim(
            f"batch norm: log growth of the squared gradient over {last} blocks, over that of Π (1 + 1/v_l)",
            "derived from De & Smith 2020 and Yang et al. 2019",
            "=",
            1.0,
            measured,
            tolerance=0.03,
            reason="finite width and batch",
        )
    )
    # The mean square, and not the variance about the batch's mean, of which ReLUs without norm lose a part.
    second = without.second_moment.values.astype(float)
    doubling = (second[:, last] / second[:, 0]) ** (1 / last)
    name = "no norm: growth of the mean square by a block"
    source, reason = "De & Smith 2020, section 3", "finite width"
    claims.append(Claim(name, source, "=", 2.0, estimated(doubling), tolerance=0.01, reason=reason))
    return claims


EXPERIMENT = Experiment(
    "desmith2020-identity",
    "Residual blocks tend to the identity",
    _judge,
    quick=("--width", "192", "--probe-batch-size", "192", "--depths", "16"),
    runs={"": ()},
)

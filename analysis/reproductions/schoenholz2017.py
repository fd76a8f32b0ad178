"""Nets train as deep as correlations reach (Schoenholz et al. 2017)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.grid import accuracy_grid, trained_accuracy
from analysis.load import values
from analysis.meanfield import critical_weight_std, gradient_growth, trainable_depth
from analysis.reproductions.claim import Claim, Estimate, Experiment, slope

_SOURCE = "Schoenholz et al. 2017, figure 5"


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    activation, bias_std = results.attrs["config"]["activation"], float(results.bias_std.values[0])
    depths, scales = (np.asarray(values(results, name)) for name in ("depth", "weight_std"))
    grid = accuracy_grid(results, "weight_std")
    trained = grid > trained_accuracy(results)
    limit = np.asarray([trainable_depth(activation, float(scale), bias_std) for scale in scales])
    deep, shallow = depths[:, None] > 2 * limit, depths[:, None] < limit / 2
    deepest = np.asarray([max(depths[column], default=0) for column in trained.T])
    told = limit < depths[-1]  # where the deepest net is deep enough to see the limit
    # Where on the axis the deepest trained nets are, weighted by how much deeper than the shallowest they train.
    weights = np.log(np.maximum(deepest, depths[0]) / depths[0]) ** 4
    centre = float((weights * scales).sum() / weights.sum()) if weights.any() else float("nan")
    critical = critical_weight_std(activation, bias_std)
    spacing = float(scales[1] - scales[0])
    counts = Estimate(float(trained[deep].mean())), Estimate(float(trained[shallow].mean()))
    fit = slope(np.log(limit[told]), np.log(np.maximum(deepest[told], 1)))
    return [
        Claim(f"share of the {deep.sum()} nets deeper than 12 ξ_c that train", _SOURCE, "<", 0.1, counts[0]),
        Claim(f"share of the {shallow.sum()} nets of less than 3 ξ_c that train", _SOURCE, ">", 0.9, counts[1]),
        Claim("log of the deepest that trains by log of 6 ξ_c, slope (error of the fit)", _SOURCE, "=", 1.0, fit),
        Claim(
            "weight scale around which the deepest nets train",
            "Schoenholz et al. 2017: χ₁ = 1",
            "=",
            critical,
            Estimate(centre),
            tolerance=spacing / critical + 0.05,
            reason="the grid's spacing, and 5 %",
        ),
        _gradients(results, activation, bias_std),
    ]


def _gradients(results: xr.Dataset, activation: str, bias_std: float) -> Claim:
    """Measured and predicted growth of the gradient over all layers, of nets of the middle depth, by weight scale."""
    depths = values(results, "depth")
    depth = depths[len(depths) // 2]
    members = results.isel(member=results.depth.values == depth)
    squared = members.output_gradient.isel(probe_step=0).values.astype(float)
    first = members.second_moment.isel(probe_step=0, layer=0).values.astype(float)
    scales = members.weight_std.values
    derived = np.asarray(
        [
            np.log(gradient_growth(depth, float(s**2 * q + bias_std**2), activation, float(s), bias_std)[0]) / depth
            for s, q in zip(scales, first, strict=True)
        ]
    )
    measured = np.log(squared[:, 0] / squared[:, depth]) / depth
    return Claim(
        f"log growth of the gradient by a layer against mean field's, depth {depth}, slope (error of the fit)",
        "Schoenholz et al. 2017, section 4",
        "=",
        1.0,
        slope(derived, measured),
        tolerance=0.1,
        reason="finite width",
    )


EXPERIMENT = Experiment(
    "schoenholz2017-depth-scale",
    "What trains: 6 ξ_c",
    _judge,
    quick=(
        "--depths",
        "2",
        "8",
        "16",
        "32",
        "64",
        "--steps",
        "300",
        "--weight-std",
        *(f"{1 + 0.1 * i:.1f}" for i in range(11)),
    ),
    runs={"": ()},
)

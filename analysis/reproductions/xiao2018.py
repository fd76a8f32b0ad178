"""A plain net of ten thousand layers that trains (Xiao et al. 2018)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.jacobian import eigenvalue_variance
from analysis.meanfield import chi_1, gradient_growth
from analysis.reproductions.claim import Claim, Estimate, Experiment


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    config = results.attrs["config"]
    depth, scale, bias = (results[name].values[0].item() for name in ("depth", "weight_std", "bias_std"))
    settings = (config["activation"], scale, bias)
    squared = results.output_gradient.isel(probe_step=0, member=0).values.astype(float)
    first = scale**2 * float(results.second_moment.isel(probe_step=0, layer=0).values[0]) + bias**2
    derived = np.log10(gradient_growth(depth, first, *settings))
    measured = np.log10(squared / squared[-1])
    losses = results.train_loss.isel(member=0).values.astype(float)
    tenth = max(len(losses) // 10, 1)
    start, end = losses[:tenth], losses[-tenth:]
    later = results.output_gradient.isel(member=0).values.astype(float)
    ratios = np.log10(later[:, 0] / later[:, depth])
    return [
        Claim(
            f"largest distance between measured and derived log10 of the gradient by layer, depth {depth}",
            "Schoenholz et al. 2017; Xiao et al. 2018",
            "<",
            0.5,
            Estimate(float(np.abs(measured - derived).max())),
        ),
        _spectrum(results, depth, settings),
        Claim(
            f"training loss, mean of the last {tenth} steps less the first {tenth} (error from their spread)",
            "Xiao et al. 2018, figure 1",
            "<",
            0.0,
            Estimate(
                float(end.mean() - start.mean()),
                float(np.hypot(start.std(), end.std()) / np.sqrt(tenth)),
                2 * tenth - 1,
            ),
        ),
        Claim(
            "log10 of the squared gradient, first over last layer: the farthest from 0 over all measured steps",
            "Xiao et al. 2018: gradients neither vanish nor explode",
            "<",
            2.5,
            Estimate(float(np.abs(ratios).max())),
        ),
    ]


def _spectrum(results: xr.Dataset, depth: int, settings: tuple[str, float, float]) -> Claim:
    """Of the second half of the layers, where the signal's variance has come to its fixed point."""
    values = results.second_half_spectrum.isel(probe_step=0, member=0).values.astype(float) ** 2
    spread = values.var(1) / values.mean(1) ** 2
    half = depth // 2
    expected = eigenvalue_variance(half, settings[0], settings[1], "orthogonal", settings[2])
    return Claim(
        f"variance of λ over its squared mean, of the last {half} layers",
        "Pennington et al. 2018, equation 22",
        "=",
        expected / chi_1(*settings) ** (2 * half),
        Estimate(float(spread.mean())),
        tolerance=0.5,
        reason="one net, finite width",
    )


EXPERIMENT = Experiment(
    "xiao2018-ten-thousand-layers",
    "Ten thousand layers",
    _judge,
    quick=("--depths", "1000", "--steps", "40", "--learning-rates", "1e-3", "--probe-steps", "10"),
    runs={"": ()},
)

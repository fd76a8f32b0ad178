"""How singular values of the Jacobian spread with depth (Pennington et al. 2017, 2018)."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.density import eigenvalues
from analysis.fuss_catalan import fuss_catalan_distribution, fuss_catalan_largest
from analysis.load import values
from analysis.reproductions.claim import Claim, Estimate, Experiment, estimated
from analysis.theory import critical_relu_variance


def _spread(members: xr.Dataset) -> np.ndarray:
    """`Var λ / (E λ)²` by member: the mean of λ fluctuates from net to net, its square with it."""
    found = eigenvalues(members).reshape(members.sizes["member"], -1)
    return found.var(1) / found.mean(1) ** 2


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    claims = []
    for label, results in runs.items():
        width, (activation, init) = results.attrs["config"]["width"], label.split("-")
        for depth in values(results, "depth"):
            members = results.isel(member=results.depth.values == depth)
            of = f"{activation}, {init} weights, depth {depth}"
            if activation == "relu":
                expected = critical_relu_variance(depth, init)
                source, reason = "Pennington et al. 2018, table 1", "moments of a finite width"
                allowed = 0.1 + 4 * depth / width
                name = f"{of}: variance of λ over its squared mean"
                found = estimated(_spread(members))
                claims.append(Claim(name, source, "=", expected, found, tolerance=allowed, reason=reason))
            elif init == "orthogonal":
                worst = float(np.abs(np.sqrt(eigenvalues(members)) - 1).max())
                claims.append(Claim(f"{of}: largest |σ - 1|", "Saxe et al. 2014", "<", 1e-4, Estimate(worst)))
            else:
                claims += _fuss_catalan(members, depth, width, of)
    return claims


def _fuss_catalan(members: xr.Dataset, depth: int, width: int, of: str) -> list[Claim]:
    # All samples have the same Jacobian.
    found = eigenvalues(members)[:, 0]
    ranks = (np.arange(found.shape[1]) + 0.5) / found.shape[1]
    distances = [np.abs(fuss_catalan_distribution(np.sort(one), depth) - ranks).max() for one in found]
    largest = fuss_catalan_largest(depth)
    source = "Penson & Zyczkowski 2011; Pennington et al. 2017"
    edge = 4 * width ** (-2 / 3)
    return [
        Claim(
            f"{of}: largest λ",
            source,
            "=",
            largest,
            estimated(found.max(1)),
            tolerance=edge,
            reason="the edge at finite width",
        ),
        # Eigenvalues repel: their distribution function is off by a few of them, and not by their square root.
        Claim(
            f"{of}: distance of the distribution of λ from Fuss-Catalan's, of all but a few eigenvalues a layer",
            source,
            "<",
            3.0 * (depth + 1) / width,
            estimated(np.asarray(distances)),
        ),
    ]


EXPERIMENT = Experiment(
    "pennington2018-spectra",
    "The spread of the Jacobian's singular values",
    _judge,
    quick=("--width", "192", "--depths", "2", "4", "--seeds", "0", "1", "2"),
    runs={
        "relu-normal": (),
        "relu-orthogonal": ("--init", "orthogonal"),
        "linear-normal": ("--activation", "linear", "--weight-std", "1"),
        "linear-orthogonal": ("--activation", "linear", "--weight-std", "1", "--init", "orthogonal"),
    },
)

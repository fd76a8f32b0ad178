"""Density of the Jacobian's squared singular values at initialization, with the Fuss-Catalan law where it is known."""

import numpy as np
import xarray as xr
from matplotlib.axes import Axes

from analysis import style
from analysis.command import main
from analysis.drawing import Drawing, listed
from analysis.fuss_catalan import fuss_catalan_density, fuss_catalan_largest
from analysis.load import kind, values

_BINS = 40
# Squared singular values this much smaller than the largest are zero to rounding, and not drawn.
_FLOOR = 1e-12


def eigenvalues(members: xr.Dataset, step: int = 0) -> np.ndarray:
    """All squared singular values of members of one depth, `[member, sample, value]`, that are finite."""
    found = np.square(members.frozen_spectrum.isel(probe_step=step).values.astype(float))
    return found[np.isfinite(found).all((1, 2))]


@style.styled
def draw(results: xr.Dataset, step: int = 0) -> Drawing | None:
    """One panel a kind of net: density of log10 λ over seeds and samples, a line a depth; exact zeros are left out."""
    if "frozen_spectrum" not in results:
        return None
    nets, norms, depths = (values(results, name) for name in ("net", "norm", "depth"))
    colours = style.depth_colours(depths)
    figure, axes = style.panels(len(norms), len(nets), sharex=True, sharey=True)
    parts: list[str] = []
    compared = False
    for row, norm in enumerate(norms):
        for column, net in enumerate(nets):
            panel: Axes = axes[row, column]
            panel.set_title(style.name(net, norm))
            for depth in depths:
                members = kind(results, net, norm, depth)
                found = _positive(eigenvalues(members, step))
                if not found.size:
                    continue
                height, edges = np.histogram(np.log10(found), _BINS, density=True)
                panel.stairs(height, edges, color=colours[depth])
                if step == 0 and _is_fuss_catalan(members):
                    compared = True
                    _theory(panel, depth, edges, float(members.weight_std.values[0]))
                    style.remark(panel, "theory: Pennington et al. 2017")
                if depth == depths[-1]:
                    parts.append(f"{style.name(net, norm)} {np.log(found).var():.3g}")
    for panel in axes[-1]:
        panel.set_xlabel("log10 of the squared singular value λ")
    figure.supylabel("density")
    style.depth_legend(figure, axes[0, 0], depths, compared=compared)
    figure.suptitle(f"Spectral density of the Jacobian, step {int(results.probe_step[step])}")
    return Drawing(figure, listed(f"variance of log λ at depth {depths[-1]}, zeros left out", parts))


def _positive(found: np.ndarray) -> np.ndarray:
    return found[found > _FLOOR * found.max(initial=0)]


def _is_fuss_catalan(members: xr.Dataset) -> bool:
    """Whether the Jacobian is a product of Gaussian matrices."""
    config = members.attrs["config"]
    settings = (str(members.net.values[0]), str(members.norm.values[0]), config["activation"], config["init"])
    return config["arch"] == "mlp" and settings == ("plain", "none", "linear", "normal")


def _theory(panel: Axes, depth: int, edges: np.ndarray, weight_std: float) -> None:
    scale = weight_std ** (2 * depth)
    largest = np.log10(fuss_catalan_largest(depth))
    exponents = np.linspace(max(edges[0] - np.log10(scale), largest - 8), largest, 400)[:-1]
    unit = 10**exponents
    density = fuss_catalan_density(unit, depth) * unit * np.log(10)
    panel.plot(exponents + np.log10(scale), density, color=style.THEORY, linestyle="--", linewidth=1)


def figures(results: xr.Dataset) -> dict[str, Drawing]:
    """One figure, where all singular values were measured."""
    drawing = draw(results)
    return {} if drawing is None else {"density": drawing}


if __name__ == "__main__":
    main(figures, __doc__)

"""The probes a sweep can run, by the name they are asked for with: add one here, and it is run and stored."""

from probes.entries import by_layer, jacobians, loss
from probes.probe import Probe

# Some have parts of which each network gets those that suit it.
PROBES: dict[str, tuple[Probe, ...]] = {
    "signals": (by_layer.SIGNALS,),
    "gradients": (by_layer.GRADIENTS,),
    "spectra": jacobians.SPECTRA,
    "input-spectra": (jacobians.INPUT,),
    "half-spectra": (jacobians.HALVES,),
    "jacobian-norms": (by_layer.JACOBIAN_NORMS,),
    "branches": (by_layer.BRANCHES,),
    "representation": (by_layer.REPRESENTATION,),
    "shattering": (by_layer.SHATTERING,),
    "shift": (by_layer.SHIFT,),
    "surface": (loss.SURFACE,),
    "curvature": loss.CURVATURE,
    "tangent": (loss.TANGENT,),
}

"""What is measured: pure functions of a network, a batch and a key. `PROBES` are those that a sweep can run."""

from probes.branches import branch_share
from probes.curvature import loss_curvature
from probes.gradients import gradient_flow, partial_jacobian_norms
from probes.probe import Batch, Probe, Subject, Variable
from probes.registry import PROBES
from probes.representation import representation
from probes.shattering import gradient_correlation
from probes.shift import covariate_shift
from probes.signals import forward_signals
from probes.spectra import (
    condition_number,
    hidden_map,
    isometry_distance,
    jacobian,
    jacobian_spectrum,
    leading_spectrum,
    smallest_spectrum,
)
from probes.surface import loss_surface
from probes.tangent import label_alignment, tangent_kernel, tangent_spectrum

__all__ = [
    "PROBES",
    "Batch",
    "Probe",
    "Subject",
    "Variable",
    "branch_share",
    "condition_number",
    "covariate_shift",
    "forward_signals",
    "gradient_correlation",
    "gradient_flow",
    "hidden_map",
    "isometry_distance",
    "jacobian",
    "jacobian_spectrum",
    "label_alignment",
    "leading_spectrum",
    "loss_curvature",
    "loss_surface",
    "partial_jacobian_norms",
    "representation",
    "smallest_spectrum",
    "tangent_kernel",
    "tangent_spectrum",
]

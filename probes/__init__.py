"""What is measured: pure functions of a network and a batch. `PROBES` is what a sweep runs."""

from probes.gradients import gradient_flow
from probes.registry import PROBES, Batch, Probe, Variable
from probes.signals import forward_signals
from probes.spectra import jacobian, jacobian_spectrum

__all__ = [
    "PROBES",
    "Batch",
    "Probe",
    "Variable",
    "forward_signals",
    "gradient_flow",
    "jacobian",
    "jacobian_spectrum",
]

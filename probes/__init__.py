"""What is measured: pure functions of a network and a batch. `PROBES` is what a sweep runs."""

from probes.gradients import gradient_flow
from probes.registry import PROBES, Batch, Probe, Subject, Variable
from probes.signals import forward_signals
from probes.spectra import hidden_map, jacobian, jacobian_spectrum, leading_spectrum

__all__ = [
    "PROBES",
    "Batch",
    "Probe",
    "Subject",
    "Variable",
    "forward_signals",
    "gradient_flow",
    "hidden_map",
    "jacobian",
    "jacobian_spectrum",
    "leading_spectrum",
]

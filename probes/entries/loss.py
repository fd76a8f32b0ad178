"""Probes of the loss as a function of all parameters."""

from functools import partial

from jax import Array

from nets import Network
from probes.curvature import STEPS, TOP, VECTORS, Matrix, loss_curvature
from probes.probe import Batch, Probe, Subject, Variable
from probes.surface import STEP_SIZES, loss_surface
from probes.tangent import tangent_spectrum

# Lanczos' recurrence keeps a vector of all parameters a step, in a gigabyte and a half.
_MOST_PARAMETERS = 10**7
# Rows of a tangent kernel, each of which takes two passes; its eigenvalues take rows³.
_MOST_ROWS = 1024


def _surface(network: Network, batch: Batch) -> dict[str, Array]:
    found = loss_surface(network, batch.inputs, batch.labels, batch.learning_rate)
    return {
        "surface_loss": found.loss,
        "surface_gradient_change": found.gradient_change,
        "surface_smoothness": found.smoothness,
    }


def _curvature(matrix: Matrix, network: Network, batch: Batch) -> dict[str, Array]:
    found = loss_curvature(network, batch.inputs, batch.labels, batch.key, matrix=matrix)
    return {
        f"{matrix}_top": found.top,
        f"{matrix}_top_error": found.top_errors,
        f"{matrix}_smallest": found.smallest,
        f"{matrix}_smallest_error": found.smallest_error,
        f"{matrix}_trace": found.trace,
        f"{matrix}_trace_error": found.trace_error,
        f"{matrix}_density_node": found.nodes,
        f"{matrix}_density_weight": found.weights,
    }


def _tangent(network: Network, batch: Batch) -> dict[str, Array]:
    found = tangent_spectrum(network, batch.inputs, batch.labels, batch.samples)
    return {"tangent_spectrum": found.values, "tangent_alignment": found.alignment}


def _too_many_parameters(subject: Subject) -> str | None:
    if subject.parameters <= _MOST_PARAMETERS:
        return None
    return f"it is for nets of up to {_MOST_PARAMETERS:,} parameters; the deepest has {subject.parameters:,}"


def _kernel_too_large(subject: Subject) -> str | None:
    rows = subject.samples * subject.classes
    if rows > _MOST_ROWS:
        return (
            f"the kernel of {subject.samples} samples and {subject.classes} classes has {rows:,} rows, more than "
            f"{_MOST_ROWS:,}; a smaller --spectrum-batch-size makes it smaller"
        )
    return _too_many_parameters(subject)


def _curvature_probe(matrix: Matrix, what: str) -> Probe:
    return Probe(
        partial(_curvature, matrix),
        {
            f"{matrix}_top": Variable(("top_eigenvalue",), f"largest eigenvalues of {what}"),
            f"{matrix}_top_error": Variable(("top_eigenvalue",), "a true eigenvalue lies within this of each"),
            f"{matrix}_smallest": Variable((), f"smallest eigenvalue of {what}"),
            f"{matrix}_smallest_error": Variable((), "a true eigenvalue lies within this of it"),
            f"{matrix}_trace": Variable((), f"estimate of the trace of {what}"),
            f"{matrix}_trace_error": Variable((), "its standard error"),
            f"{matrix}_density_node": Variable(("vector", "node"), f"Gauss rules of the eigenvalue density of {what}"),
            f"{matrix}_density_weight": Variable(("vector", "node"), "their weights, of sum 1 for each vector"),
        },
        sizes=lambda subject: {
            "top_eigenvalue": TOP,
            "vector": VECTORS,
            "node": min(STEPS, subject.parameters),
        },
        refusal=_too_many_parameters,
        one_at_a_time=True,
    )


CURVATURE = (
    _curvature_probe("hessian", "the loss's Hessian by all parameters"),
    _curvature_probe("gauss_newton", "the loss's Gauss-Newton matrix by all parameters"),
)
TANGENT = Probe(
    _tangent,
    {
        "tangent_spectrum": Variable(("kernel_eigenvalue",), "eigenvalues of the empirical tangent kernel"),
        "tangent_alignment": Variable((), "its alignment with the labels' kernel"),
    },
    sizes=lambda subject: {"kernel_eigenvalue": subject.samples * subject.classes},
    refusal=_kernel_too_large,
    one_at_a_time=True,
)
SURFACE = Probe(
    _surface,
    {
        "surface_loss": Variable(("step_size",), "loss after a step of so many learning rates along the gradient"),
        "surface_gradient_change": Variable(("step_size",), "change of the gradient by such a step"),
        "surface_smoothness": Variable((), "largest change of the gradient by distance: effective smoothness"),
    },
    sizes=lambda subject: {"step_size": len(STEP_SIZES)},
    coordinates={"step_size": STEP_SIZES},
)

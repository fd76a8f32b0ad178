"""Spectra of Jacobians: all singular values where the matrix can be formed, else what products with it tell."""

from functools import partial

import jax.numpy as jnp
from jax import Array

from nets import Network
from probes.hiddenmap import Layer, Reading
from probes.probe import Batch, Probe, Subject, Variable
from probes.spectra import (
    NODES,
    TOP,
    VECTORS,
    condition_number,
    isometry_distance,
    jacobian_spectrum,
    leading_spectrum,
)

# A network's Jacobians are formed if their singular values take fewer multiplications than this, each matrix rows x
# columns x the fewer of them.
_DENSE = 2**32
_WHAT: dict[Reading, str] = {
    "frozen": "d h_last / d h_0, batch statistics held fixed",
    "coupled": "d h_last / d h_0 of the spectrum batch as a whole, its own statistics included",
}


def _is_dense(reading: Reading, subject: Subject) -> bool:
    """Whether the Jacobian is small enough to be formed."""
    scale = subject.samples**3 if reading == "coupled" else subject.samples
    return scale * subject.first * subject.last * min(subject.first, subject.last) < _DENSE


def _refusal(reading: Reading, dense: bool, subject: Subject) -> str | None:
    if reading == "coupled" and subject.norm == "none":
        # Said once, whatever the size.
        return "without batch norm the coupled reading has the frozen one's values, and is not taken" if dense else ""
    return None if _is_dense(reading, subject) == dense else ""


def _spectrum(reading: Reading, network: Network, batch: Batch) -> dict[str, Array]:
    values = jacobian_spectrum(network, batch.inputs, reading, batch.samples)
    return {
        f"{reading}_spectrum": values,
        f"{reading}_condition_number": condition_number(values),
        f"{reading}_isometry_distance": isometry_distance(values),
    }


def _leading(reading: Reading, network: Network, batch: Batch) -> dict[str, Array]:
    found = leading_spectrum(network, batch.inputs, reading, batch.samples, key=batch.key)
    return {
        f"{reading}_top": found.values,
        f"{reading}_top_error": found.errors,
        f"{reading}_mean_square": found.mean_square,
        f"{reading}_mean_square_error": found.mean_square_error,
        f"{reading}_density_node": found.nodes,
        f"{reading}_density_weight": found.weights,
    }


def _all_values(reading: Reading) -> Probe:
    coupled = reading == "coupled"
    dims = ("coupled_singular_value",) if coupled else ("sample", "singular_value")

    def sizes(subject: Subject) -> dict[str, int]:
        values = min(subject.first, subject.last)
        lengths = (subject.samples * values,) if coupled else (subject.samples, values)
        return dict(zip(dims, lengths, strict=True))

    return Probe(
        partial(_spectrum, reading),
        {
            f"{reading}_spectrum": Variable(dims, f"singular values of {_WHAT[reading]}"),
            f"{reading}_condition_number": Variable(dims[:-1], "the largest of these over the smallest"),
            f"{reading}_isometry_distance": Variable(dims[:-1], "variance of their logarithms"),
        },
        sizes=sizes,
        refusal=partial(_refusal, reading, True),
        one_at_a_time=coupled,
    )


def _largest_values(reading: Reading) -> Probe:
    coupled, what = reading == "coupled", _WHAT[reading]
    dims = () if coupled else ("sample",)
    return Probe(
        partial(_leading, reading),
        {
            f"{reading}_top": Variable((*dims, "top"), f"largest singular values of {what}"),
            f"{reading}_top_error": Variable(
                (*dims, "top"), "a true singular value lies within this of each, up to rounding"
            ),
            f"{reading}_mean_square": Variable(dims, f"mean of the squared singular values of {what}"),
            f"{reading}_mean_square_error": Variable(dims, "its standard error"),
            f"{reading}_density_node": Variable(
                (*dims, "spectrum_vector", "spectrum_node"), f"Gauss rules of the density of singular values of {what}"
            ),
            f"{reading}_density_weight": Variable(
                (*dims, "spectrum_vector", "spectrum_node"), "their weights, of sum 1 for each random vector"
            ),
        },
        sizes=lambda subject: (
            {"top": TOP, "spectrum_vector": VECTORS, "spectrum_node": NODES}
            | ({} if coupled else {"sample": subject.samples})
        ),
        refusal=partial(_refusal, reading, False),
        one_at_a_time=coupled,
    )


SPECTRA = (
    _all_values("frozen"),
    _largest_values("frozen"),
    _all_values("coupled"),
    _largest_values("coupled"),
)


def _halves(network: Network, batch: Batch) -> dict[str, Array]:
    middle = (network.block_count + 1) // 2

    def values(first: Layer, last: Layer) -> Array:
        return jacobian_spectrum(network, batch.inputs, "frozen", batch.samples, between=(first, last))

    early = values(0, middle)
    # Of no layers the Jacobian is the identity.
    late = values(middle, None) if middle < network.block_count else jnp.ones_like(early)
    return {"first_half_spectrum": early, "second_half_spectrum": late}


def _no_halves(subject: Subject) -> str | None:
    if subject.first != subject.last:
        return "hidden states are of several sizes"
    return None if _is_dense("frozen", subject) else "Jacobians are too large to be formed; spectra has their largest"


def _from_input(network: Network, batch: Batch) -> dict[str, Array]:
    between: tuple[Layer, Layer] = ("input", "logits")
    return {"input_spectrum": jacobian_spectrum(network, batch.inputs, "frozen", batch.samples, between=between)}


HALVES = Probe(
    _halves,
    {
        "first_half_spectrum": Variable(
            ("sample", "singular_value"), "singular values of d h_m / d h_0, m the middle layer, statistics held fixed"
        ),
        "second_half_spectrum": Variable(
            ("sample", "singular_value"), "singular values of d h_last / d h_m, statistics held fixed"
        ),
    },
    sizes=lambda subject: {"sample": subject.samples, "singular_value": min(subject.first, subject.last)},
    refusal=_no_halves,
)
INPUT = Probe(
    _from_input,
    {
        "input_spectrum": Variable(
            ("sample", "input_singular_value"), "singular values of d logits / d input, batch statistics held fixed"
        )
    },
    sizes=lambda subject: {
        "sample": subject.samples,
        "input_singular_value": min(subject.inputs, subject.classes),
    },
)

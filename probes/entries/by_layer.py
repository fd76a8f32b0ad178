"""Probes that tell something of every layer."""

import jax.numpy as jnp
from jax import Array

from nets import Network
from probes.branches import branch_share
from probes.gradients import gradient_flow, partial_jacobian_norms
from probes.probe import Batch, Probe, Subject, Variable
from probes.representation import representation
from probes.shattering import gradient_correlation
from probes.shift import covariate_shift
from probes.signals import PERCENTILES, forward_signals

# A pass a layer: beyond so many blocks the probe would take longer than the training.
_MOST_BLOCKS = 256


def _with_stem(by_block: Array) -> Array:
    """Puts a NaN where the stem's number would stand: only blocks are asked for theirs."""
    return jnp.concatenate([jnp.full_like(by_block[:1], jnp.nan), by_block])


def _signals(network: Network, batch: Batch) -> dict[str, Array]:
    signals = forward_signals(network, batch.inputs)
    return {
        "second_moment": signals.second_moment,
        "batch_variance": signals.batch_variance,
        "preactivation": _with_stem(signals.percentiles),
        "unit_preactivation": _with_stem(signals.unit_percentiles),
    }


def _gradients(network: Network, batch: Batch) -> dict[str, Array]:
    flow = gradient_flow(network, batch.inputs, batch.labels)
    return {"output_gradient": flow.output, "weight_gradient": flow.weight}


def _jacobian_norms(network: Network, batch: Batch) -> dict[str, Array]:
    found = partial_jacobian_norms(network, batch.inputs, batch.key)
    return {"jacobian_norm": found.norm, "jacobian_norm_error": found.error}


def _branches(network: Network, batch: Batch) -> dict[str, Array]:
    return {"branch_share": _with_stem(branch_share(network, batch.inputs))}


def _representation(network: Network, batch: Batch) -> dict[str, Array]:
    found = representation(network, batch.inputs)
    return {"effective_rank": found.effective_rank, "correlation": found.correlation}


def _shattering(network: Network, batch: Batch) -> dict[str, Array]:
    return {"gradient_correlation": gradient_correlation(network, batch.inputs, batch.key)}


def _shift(network: Network, batch: Batch) -> dict[str, Array]:
    found = covariate_shift(network, batch.inputs, batch.labels, batch.learning_rate)
    return {"shift_distance": found.distance, "shift_cosine": found.cosine}


def _too_deep(subject: Subject) -> str | None:
    if subject.blocks <= _MOST_BLOCKS:
        return None
    return f"it takes a pass a layer, of {_MOST_BLOCKS} blocks at most; the deepest net has {subject.blocks}"


SIGNALS = Probe(
    _signals,
    {
        "second_moment": Variable(("layer",), "mean square of a layer's output"),
        "batch_variance": Variable(("layer",), "variance of a layer's output over the batch, mean over units"),
        "preactivation": Variable(("layer", "percentile"), "pre-activations of a layer, over batch and units"),
        "unit_preactivation": Variable(
            ("layer", "percentile"), "pre-activations of a layer's first unit, over the batch"
        ),
    },
    sizes=lambda subject: {"percentile": len(PERCENTILES)},
    coordinates={"percentile": PERCENTILES},
)
GRADIENTS = Probe(
    _gradients,
    {
        "output_gradient": Variable(("layer",), "squared norm of the loss's gradient by a layer's output"),
        "weight_gradient": Variable(("layer",), "squared norm of the loss's gradient by a layer's weights"),
    },
)
JACOBIAN_NORMS = Probe(
    _jacobian_norms,
    {
        "jacobian_norm": Variable(("layer",), "squared norm of d h_l / d h_0 of the whole batch, by entry of h_l"),
        "jacobian_norm_error": Variable(("layer",), "its standard error over random tangents"),
    },
)
BRANCHES = Probe(
    _branches,
    {"branch_share": Variable(("layer",), "share of the residual branch in a block's variance over the batch")},
    refusal=lambda subject: None if subject.residual else "no net has skip connections",
)
REPRESENTATION = Probe(
    _representation,
    {
        "effective_rank": Variable(("layer",), "effective rank of a layer's outputs over the batch"),
        "correlation": Variable(("layer",), "mean cosine between a layer's outputs at two inputs"),
    },
)
SHATTERING = Probe(
    _shattering,
    {"gradient_correlation": Variable(("layer",), "mean cosine between gradients by a layer's output at two inputs")},
)
SHIFT = Probe(
    _shift,
    {
        "shift_distance": Variable(("layer",), "change of a layer's gradient by the steps of all layers before it"),
        "shift_cosine": Variable(("layer",), "cosine between a layer's gradient before and after these steps"),
    },
    refusal=_too_deep,
)

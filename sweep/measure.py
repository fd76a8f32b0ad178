"""Runs the probes on an ensemble: every member as a whole network, one compiled program for all depths."""

from collections.abc import Mapping
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float, Int

from probes import PROBES, Batch, Probe
from sweep.config import Config
from sweep.engine import Data
from sweep.ensemble import Ensemble
from sweep.staircase import Parts


def applicable(norm: str) -> dict[str, Probe]:
    """The probes that have something to say of networks with this norm."""
    return {name: probe for name, probe in PROBES.items() if probe.applies(norm)}


def probe_rows(config: Config, samples: int) -> Int[Array, " probe"]:
    """The training samples the probes see: the same for every member, step and run."""
    return jax.random.permutation(jax.random.key(0), samples)[: config.probe_batch_size]


@partial(jax.jit, static_argnums=(0, 1, 2))
# Accelerators multiply float32 matrices in fewer bits by default, which would be noise in a spectrum.
@jax.default_matmul_precision("highest")
def measure(
    probes: tuple[str, ...],
    spectrum_samples: int,
    ensemble: Ensemble,
    params: Parts,
    rest: Parts,
    data: Data,
    rows: Int[Array, " probe"],
) -> Mapping[str, Float[Array, "member ..."]]:
    """What the named probes find in every member; entries past a member's own depth are NaN."""
    batch = Batch(data.train_inputs[rows], data.train_labels[rows], spectrum_samples)
    results = []
    for depth in ensemble.staircase.groups:
        graphdef, state = ensemble.networks(params, rest, depth)
        found: dict[str, Array] = {}
        for name in probes:
            found |= _measure(PROBES[name], graphdef, state, batch, deepest=ensemble.staircase.depths[0])
        results.append(found)
    return jax.tree.map(lambda *groups: jnp.concatenate(groups), *results)


def _measure(probe: Probe, graphdef: nnx.GraphDef, state: nnx.State, batch: Batch, deepest: int) -> dict[str, Array]:
    """One probe on all networks of one depth."""

    def one(state: nnx.State) -> dict[str, Array]:
        return probe.measure(nnx.merge(graphdef, state), batch)

    measured = lax.map(one, state) if probe.one_at_a_time else jax.vmap(one)(state)

    def padded(name: str, values: Array) -> Array:
        widths = [(0, 0)] + [
            (0, deepest + 1 - size if dim == "layer" else 0)
            for dim, size in zip(probe.variables[name].dims, values.shape[1:], strict=True)
        ]
        return jnp.pad(values, widths, constant_values=jnp.nan)

    return {name: padded(name, values) for name, values in measured.items()}

"""Runs the probes on an ensemble: every member as a whole network, one compiled program for all depths."""

from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float, Int

from probes import PROBES, Batch, Probe, Subject
from probes.signals import PERCENTILES
from probes.spectra import TOP
from sweep.config import Config
from sweep.devices import over_shards
from sweep.engine import Data
from sweep.ensemble import Ensemble, Parts


def applicable(ensemble: Ensemble, samples: int) -> dict[str, Probe]:
    """The probes that have something to say of these networks, with spectra taken at so many samples."""
    subject = Subject(ensemble.structure.norm, *ensemble.hidden_sizes, samples)
    return {name: probe for name, probe in PROBES.items() if probe.applies(subject)}


def dimensions(config: Config, ensembles: Sequence[Ensemble]) -> dict[str, int]:
    """The lengths of what probes measure, by dimension."""
    values = max(min(ensemble.hidden_sizes) for ensemble in ensembles)
    return {
        "layer": max(ensemble.deepest.block_count for ensemble in ensembles) + 1,
        "percentile": len(PERCENTILES),
        "sample": config.spectrum_batch_size,
        "singular_value": values,
        "coupled_singular_value": values * config.spectrum_batch_size,
        "top": TOP,
    }


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
) -> Mapping[str, Float[Array, "shard member ..."]]:
    """What the named probes find in every member of every shard; entries past a member's own depth are NaN."""

    layers = ensemble.deepest.block_count + 1

    def of_shard(parts: tuple[Parts, Parts], shared: tuple[Data, Array]) -> dict[str, Array]:
        data, rows = shared
        batch = Batch(data.inputs(data.train_images[rows]), data.train_labels[rows], spectrum_samples)
        results = []
        for depth in ensemble.groups:
            graphdef, state = ensemble.networks(*parts, depth)
            found: dict[str, Array] = {}
            for name in probes:
                probe = PROBES[name]
                found |= _measure(
                    probe, graphdef, state, batch, layers, one_at_a_time=ensemble.is_large or probe.one_at_a_time
                )
            results.append(found)
        return jax.tree.map(lambda *groups: jnp.concatenate(groups), *results)

    return over_shards(of_shard, ensemble.shards)((params, rest), (data, rows))


def _measure(
    probe: Probe, graphdef: nnx.GraphDef, state: nnx.State, batch: Batch, layers: int, one_at_a_time: bool
) -> dict[str, Array]:
    """One probe on all networks of one depth."""

    def one(state: nnx.State) -> dict[str, Array]:
        return probe.measure(nnx.merge(graphdef, state), batch)

    measured = lax.map(one, state) if one_at_a_time else jax.vmap(one)(state)

    def padded(name: str, values: Array) -> Array:
        widths = [(0, 0)] + [
            (0, layers - size if dim == "layer" else 0)
            for dim, size in zip(probe.variables[name].dims, values.shape[1:], strict=True)
        ]
        return jnp.pad(values, widths, constant_values=jnp.nan)

    return {name: padded(name, values) for name, values in measured.items()}

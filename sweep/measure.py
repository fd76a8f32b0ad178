"""Runs the probes on an ensemble: every member as a whole network, one compiled program for all depths."""

import math
from collections.abc import Mapping, Sequence
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.stages import Wrapped
from jaxtyping import Float, Int

from analysis.activations import ACTIVATIONS as THEORY_ACTIVATIONS
from probes import PROBES, Batch, Probe, Subject, Variable
from sweep.config import Config
from sweep.engine import Data
from sweep.ensemble import Ensemble, Parts
from sweep.errors import UserError
from sweep.members import Traits, probe_key


def subject_of(config: Config, ensemble: Ensemble) -> Subject:
    """What decides which probes have anything to say of an ensemble."""
    structure, deepest = ensemble.structure, ensemble.deepest
    first, last = ensemble.hidden_sizes
    return Subject(
        norm=structure.norm,
        residual=any(member.skip for member in ensemble.members),
        blocks=deepest.block_count,
        inputs=math.prod(structure.image_shape),
        first=first,
        last=last,
        classes=structure.out_features,
        parameters=sum(leaf.size for leaf in jax.tree.leaves(nnx.state(deepest, nnx.Param))),
        samples=config.spectrum_batch_size,
    )


def chosen(config: Config, ensemble: Ensemble) -> tuple[Probe, ...]:
    """The probes that were asked for and have something to say of these networks."""
    subject = subject_of(config, ensemble)
    return tuple(probe for name in config.probes for probe in PROBES[name] if probe.refusal(subject) is None)


def remarks(config: Config, ensembles: Sequence[Ensemble]) -> list[str]:
    """A line for everything that was asked for and is not measured.

    Raises:
      UserError: a probe has nothing to say of any network.
    """
    lines = []
    for name in config.probes:
        applies = False
        refusals: dict[str, list[str]] = {}
        for ensemble in ensembles:
            subject = subject_of(config, ensemble)
            reasons = [probe.refusal(subject) for probe in PROBES[name]]
            applies |= None in reasons
            for reason in filter(None, reasons):
                refusals.setdefault(reason, []).append(f"norm={ensemble.structure.norm}")
        if not applies:
            raise UserError(f"--probes {name} does not apply: {'; '.join(refusals)}")
        lines += [f"{name} of {', '.join(where)}: {reason}" for reason, where in refusals.items()]
    if config.activation not in THEORY_ACTIVATIONS:
        lines.append(f"no theory curves: analysis.activations has no {config.activation!r}")
    elif "signals" not in config.probes:
        lines.append("no theory curves of gradients and spectra: they begin with what --probes signals measures")
    return lines


def dimensions(config: Config, ensembles: Sequence[Ensemble]) -> dict[str, int]:
    """The lengths of what probes measure, by dimension."""
    found = {"layer": max(ensemble.deepest.block_count for ensemble in ensembles) + 1}
    for ensemble in ensembles:
        subject = subject_of(config, ensemble)
        for probe in chosen(config, ensemble):
            for dim, size in probe.sizes(subject).items():
                found[dim] = max(size, found.get(dim, 0))
    return found


def probe_rows(config: Config, samples: int) -> Int[Array, " probe"]:
    """The training samples the probes see: the same for every member, step and run."""
    return jax.random.permutation(jax.random.key(0), samples)[: config.probe_batch_size]


def measurement(probes: tuple[Probe, ...], spectrum_samples: int, ensemble: Ensemble) -> Wrapped:
    """The compiled program `measure(traits, params, rest, data, rows)`, forgotten when nobody holds it any more.

    It returns what the probes find in every member of every shard; entries past a member's own depth are NaN.
    """
    layers = ensemble.deepest.block_count + 1

    def of_shard(arrays: tuple[Traits, Parts, Parts], shared: tuple[Data, Array]) -> dict[str, Array]:
        (traits, params, rest), (data, rows) = arrays, shared
        inputs, labels = data.inputs(data.train_images[rows]), data.train_labels[rows]
        rates, seeds = jnp.asarray(traits.learning_rate, inputs.dtype), jnp.asarray(traits.seed)
        results = []
        for depth, group in ensemble.groups.items():
            graphdef, state = ensemble.networks(params, rest, depth)

            def one(probe: Probe, graphdef: nnx.GraphDef, member: tuple[nnx.State, Array, Array]) -> dict[str, Array]:
                state, rate, seed = member
                batch = Batch(inputs, labels, spectrum_samples, rate, probe_key(seed))
                return probe.measure(nnx.merge(graphdef, state), batch)

            members = state, rates[group], seeds[group]
            found: dict[str, Array] = {}
            for probe in probes:
                run = partial(one, probe, graphdef)
                one_at_a_time = ensemble.is_large or probe.one_at_a_time
                runs = partial(lax.map, run) if one_at_a_time else jax.vmap(run)
                measured = ensemble.grid.divided(runs, members, group.stop - group.start)
                found |= {name: _padded(values, probe.variables[name], layers) for name, values in measured.items()}
            results.append(found)
        return jax.tree.map(lambda *groups: jnp.concatenate(groups), *results)

    @jax.jit
    # Accelerators multiply float32 matrices in fewer bits by default, which would be noise in a spectrum.
    @jax.default_matmul_precision("highest")
    def measure(
        traits: Traits, params: Parts, rest: Parts, data: Data, rows: Int[Array, " probe"]
    ) -> Mapping[str, Float[Array, "shard member ..."]]:
        return ensemble.grid.over_shards(of_shard)((traits, params, rest), (data, rows))

    return measure


def _padded(values: Array, variable: Variable, layers: int) -> Array:
    """Values `[member, ...]` with NaN for layers that only deeper members have."""
    missing = [
        (0, layers - size if dim == "layer" else 0) for dim, size in zip(variable.dims, values.shape[1:], strict=True)
    ]
    return jnp.pad(values, [(0, 0), *missing], constant_values=jnp.nan)

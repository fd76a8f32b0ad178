"""What a config becomes before anything is compiled: a sweep's programs, and its data on the devices."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from sweep.augmentations import PAD
from sweep.compiling import keep_programs
from sweep.config import Config
from sweep.data import Dataset, load
from sweep.devices import Grid, use_every_core
from sweep.engine import Data, put
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.measure import remarks
from sweep.memory import available_bytes
from sweep.mesh import grid_for
from sweep.plan import structures_of
from sweep.processes import all_or_none, count
from sweep.waves import fewest_waves, waves


class Prepared(NamedTuple):
    """A sweep that can begin.

    Attributes:
      ensembles: its programs, in their order.
      data: on every device.
      grid: the devices.
      remarks: a line for everything that was asked for and is not measured.
      split: what decided how members are split, for the run's provenance.
    """

    ensembles: list[Ensemble]
    data: Data
    grid: Grid
    remarks: list[str]
    split: dict[str, Any]


def prepare(config: Config, split: Mapping[str, Any] | None = None) -> Prepared:
    """The programs of a sweep and its data.

    Args:
      config: the sweep's.
      split: of a run that is gone on with, how its members were split: checkpoints are of its programs.

    Raises:
      UserError: it cannot be run as asked, or not on these devices.
    """
    with all_or_none():
        dataset = load(config.dataset, config.data_dir)
        check_sizes(config, dataset)
        use_every_core()
        if jax.process_count() > count():
            raise UserError(f"JAX sees {jax.process_count()} processes here; give --distributed to each of them")
        keep_programs()
        structures = structures_of(config, dataset.image_shape, dataset.classes)
        grid = grid_for(config.mesh, list(structures.values()), jax.device_count(), jax.process_count())
        if split is not None:
            _check_split(split, grid)
    data, available = put(dataset, grid), available_bytes(grid.size)
    with all_or_none():
        by_structure = [
            fewest_waves(config, structure, members, grid, data, available)
            if split is None
            else waves(structure, members, grid, split["waves"][place])
            for place, (structure, members) in enumerate(structures.items())
        ]
        ensembles = [wave for found in by_structure for wave in found]
        not_measured = remarks(config, ensembles)
    facts = {
        "members": grid.members,
        "batch": grid.batch,
        "processes": jax.process_count(),
        "waves": [len(found) for found in by_structure],
    }
    return Prepared(ensembles, data, grid, not_measured, facts)


def _check_split(split: Mapping[str, Any], grid: Grid) -> None:
    """Refuses devices that a run's checkpoints and results do not fit.

    Raises:
      UserError: says which are needed.
    """
    if (before := split["processes"]) != (now := jax.process_count()):
        raise UserError(
            f"the run is one of {before} processes, and here are {now}; as many must go on, nothing was changed"
        )
    then, here = f"members={split['members']},batch={split['batch']}", f"members={grid.members},batch={grid.batch}"
    if then != here:
        raise UserError(f"the run is split as {then}, and would be as {here} here; go on with --mesh {then}")


def check_sizes(config: Config, dataset: Dataset) -> None:
    """Refuses what does not fit the data set, in one line.

    Raises:
      UserError: batches larger than the training set, or images too small for what is to be done to them.
    """
    height, width, _ = dataset.image_shape
    if min(height, width) < 2 and config.arch != "mlp":
        raise UserError(f"--arch {config.arch} needs images, got {height} x {width} pixels of {config.dataset}")
    if min(height, width) <= PAD and config.augment == "crop-flip":
        raise UserError(f"--augment crop-flip needs images larger than {PAD} pixels, got {height} x {width}")
    samples = len(dataset.train_labels)
    for flag, size in (("--batch-size", config.batch_size), ("--probe-batch-size", config.probe_batch_size)):
        if size > samples:
            raise UserError(f"{flag} must be at most the {samples} training samples of {config.dataset}, got {size}")

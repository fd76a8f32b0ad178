"""A run's directory: config, provenance, and labelled results that are on disk as soon as they are measured."""

import dataclasses
import json
import os
import shutil
import socket
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import xarray as xr
import yaml
import zarr

from sweep.config import Config
from sweep.engine import CAUSES, STEPS_PER_CALL
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.measure import chosen, dimensions
from sweep.members import Member
from sweep.plan import members_of

RESULTS, CONFIG, PROVENANCE = "results.zarr", "config.yaml", "provenance.json"


def directory_of(config: Config) -> Path:
    """The folder of a new run.

    Raises:
      UserError: it is there already.
    """
    path = config.out / (config.name or f"{config.dataset}-{config.arch}-{datetime.now():%Y%m%d-%H%M%S}")
    if path.exists():
        what = "already holds a run" if (path / CONFIG).exists() else "already exists"
        raise UserError(f"{path} {what}; choose another --name or --out, nothing was changed")
    return path


def _write(path: Path, text: str) -> None:
    """Replaces a file in one step, so that a reader never sees half of it."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


def results_of(process: int) -> str:
    """The name of the results that a process writes."""
    return RESULTS if process == 0 else f"results-{process}.zarr"


def create(path: Path, config: Config, ensembles: Sequence[Ensemble], provenance: Mapping[str, Any]) -> None:
    """Makes a new run directory, whole at once: with config, provenance, and every result of all processes still NaN.

    Raises:
      UserError: it cannot be made.
    """
    partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        write_config(partial, config)
        for process in range(jax.process_count()):
            if _members(config, ensembles, process):  # one whose devices only fill up the grid has none
                _write_dataset(_template(config, ensembles, process), partial / results_of(process), config)
        write_provenance(partial, provenance)
        partial.rename(path)
    except OSError as error:
        shutil.rmtree(partial, ignore_errors=True)
        raise UserError(f"cannot make {path}: {error.strerror}") from error


class Store:
    """What this process writes of one run's results; every write is complete on disk when the call returns.

    Variables have a `member` dimension with the members' fields as coordinates. Numbers never measured are NaN. A
    number has one place: what is measured again, after an interruption, is written where it was. Of several processes
    each has the members of its own devices, in a file of its own.

    Args:
      path: the run directory.
      config: the run's.
      ensembles: its programs.

    Raises:
      UserError: there are no such results.
    """

    def __init__(self, path: Path, config: Config, ensembles: Sequence[Ensemble]):
        self.path, self._config = path, config
        self._file = path / results_of(jax.process_index())
        self.members = _members(config, ensembles, jax.process_index())
        try:
            self._results = zarr.open_group(self._file, mode="r+") if self.members else {}
        except FileNotFoundError as error:
            raise UserError(
                f"process {jax.process_index()} on {socket.gethostname()} does not see {self._file}; --out must be a "
                "folder that all processes share"
            ) from error

    @classmethod
    def of_run(cls, path: Path, config: Config, ensembles: Sequence[Ensemble]) -> "Store":
        """The store of a run that is there, whose results have all been read once.

        Raises:
          UserError: they are not there, or cannot be read.
        """
        file = path / results_of(jax.process_index())
        if not _members(config, ensembles, jax.process_index()):
            return cls(path, config, ensembles)
        _finish_growing(file)
        try:
            stored = xr.open_zarr(file, consolidated=False, chunks=None).load()
        except Exception as error:  # whatever it is, of a damaged file
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{file} is damaged: {reason}; nothing was changed") from error
        store = cls(path, config, ensembles)
        if stored.place.values.tolist() != _places(config, store.members):
            raise UserError(f"{file} holds other members than this process would train here; nothing was changed")
        return store

    def grow(self, config: Config, ensembles: Sequence[Ensemble]) -> "Store":
        """The store with room for the steps of a config that has more of them; everything stored keeps its place."""
        if not self.members:
            return Store(self.path, config, ensembles)
        stored = xr.open_zarr(self._file, consolidated=False, chunks=None).load()
        template = _template(config, ensembles, jax.process_index())
        grown = stored.reindex({dim: template[dim] for dim in ("step", "probe_step")}).drop_encoding()
        _write_dataset(grown, _beside(self._file, "growing"), config)
        _beside(self._file, "growing").rename(_beside(self._file, "grown"))
        _finish_growing(self._file)
        return Store(self.path, config, ensembles)

    def block(self, ensemble: Ensemble) -> slice:
        """Where this process's members of an ensemble stand, side by side."""
        places = [place for place, member in enumerate(self.members) if member in ensemble.owners]
        return slice(places[0], places[-1] + 1) if places else slice(0, 0)

    def _array(self, name: str) -> zarr.Array:
        return cast(zarr.Array, self._results[name])

    def write_losses(self, members: slice, first_step: int, losses: np.ndarray) -> None:
        """Stores `[member, step]` training losses from `first_step` on."""
        if len(losses):
            self._array("train_loss")[members, first_step : first_step + losses.shape[1]] = losses

    def write_probes(self, members: slice, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Stores what was measured at a step, each `[member, ...]`."""
        index = self._config.measured_steps.index(step)
        for name, array in values.items():
            if len(array):
                # A wave's deepest network may have fewer layers than the sweep's.
                self._array(name)[(members, index, *(slice(0, size) for size in array.shape[1:]))] = array

    def write_diverged(self, members: slice, steps: np.ndarray, causes: np.ndarray) -> None:
        """Stores each member's first step at which something was not finite, -1 if there is none, and what it was."""
        if len(steps):
            self._array("diverged_step")[members] = np.where(steps < 0, np.nan, steps)
            self._array("diverged_cause")[members] = np.asarray([CAUSES[cause] for cause in causes], object)


def write_config(path: Path, config: Config) -> None:
    """Stores a run's config."""
    _write(path / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))


def write_provenance(path: Path, provenance: Mapping[str, Any]) -> None:
    """Stores versions, devices, command and times."""
    _write(path / PROVENANCE, json.dumps(provenance, indent=2) + "\n")


def _write_dataset(dataset: xr.Dataset, path: Path, config: Config) -> None:
    shutil.rmtree(path, ignore_errors=True)  # half of one, of a process that was killed
    dataset.to_zarr(path, mode="w-", consolidated=False, encoding=_encoding(dataset, config))


def _beside(file: Path, state: str) -> Path:
    return file.with_name(f"{file.name}.{state}")


def _finish_growing(file: Path) -> None:
    """Puts results with room for more steps, once they are whole, in the place of the others."""
    if (grown := _beside(file, "grown")).exists():
        if file.exists():
            file.rename(_beside(file, "old"))
        grown.rename(file)
    shutil.rmtree(_beside(file, "old"), ignore_errors=True)


def _members(config: Config, ensembles: Sequence[Ensemble], process: int) -> tuple[Member, ...]:
    """The members whose results a process has, in the sweep's order."""
    owners = {member: owner for ensemble in ensembles for member, owner in ensemble.owners.items()}
    return tuple(member for member in members_of(config) if owners[member] == process)


def _places(config: Config, members: Sequence[Member]) -> list[int]:
    """Where members stand in the sweep's order."""
    order = {member: place for place, member in enumerate(members_of(config))}
    return [order[member] for member in members]


def _template(config: Config, ensembles: Sequence[Ensemble], process: int) -> xr.Dataset:
    """The dataset a process fills in: every array in place, every number NaN."""
    members, sizes = _members(config, ensembles, process), dimensions(config, ensembles)
    blocks = {depth: outline.block_count for ensemble in ensembles for depth, outline in ensemble.outlines.items()}
    precision = jnp.zeros(()).dtype  # of everything measured: double where JAX computes in double

    def empty(dims: tuple[str, ...], long_name: str) -> tuple[tuple[str, ...], np.ndarray, dict[str, str]]:
        lengths = {
            "member": len(members),
            "step": config.steps,
            "probe_step": len(config.measured_steps),
            **sizes,
        }
        blank = np.broadcast_to(np.asarray(np.nan, precision), [lengths[dim] for dim in dims])
        return dims, blank, {"long_name": long_name}

    variables = {
        "train_loss": empty(("member", "step"), "mean cross-entropy of a step's batch, before the step"),
        "test_loss": empty(("member", "probe_step"), "mean cross-entropy of the test set"),
        "test_accuracy": empty(("member", "probe_step"), "share of the test set classified correctly"),
        "diverged_step": empty(("member",), "first step at which something was not finite"),
        "diverged_cause": (
            ("member",),
            np.full(len(members), "", np.dtypes.StringDType()),
            {"long_name": f"what it was: {', '.join(CAUSES[1:])}"},
        ),
    }
    labels: dict[str, np.ndarray] = {}
    for ensemble in ensembles:
        for probe in chosen(config, ensemble):
            labels |= {dim: np.asarray(values) for dim, values in probe.coordinates.items()}
            for name, variable in probe.variables.items():
                variables[name] = empty(("member", "probe_step", *variable.dims), variable.long_name)
    coordinates = {
        field.name: ("member", _coordinate([getattr(member, field.name) for member in members]))
        for field in dataclasses.fields(Member)
    }
    coordinates["place"] = ("member", np.asarray(_places(config, members), int))
    coordinates["blocks"] = ("member", np.asarray([blocks[member.depth] for member in members], int))
    return xr.Dataset(
        variables,
        coordinates
        | labels
        | {
            "step": np.arange(config.steps),
            "probe_step": np.asarray(config.measured_steps),
            "layer": np.arange(sizes["layer"]),
        },
    )


def _coordinate(values: list) -> np.ndarray:
    """Text as variable-length strings: Zarr has no specification for NumPy's fixed-length ones."""
    return np.asarray(values, np.dtypes.StringDType() if isinstance(values[0], str) else None)


def _encoding(dataset: xr.Dataset, config: Config) -> dict[str, dict[str, Any]]:
    """One chunk for what one program writes at one time."""
    block = max(dataset.sizes["member"] // len(config.norms), 1)
    lengths = {"member": block, "probe_step": 1, "step": min(config.steps, 16 * STEPS_PER_CALL)}
    return {
        str(name): {"chunks": [lengths.get(str(dim), dataset.sizes[dim]) for dim in variable.dims]}
        for name, variable in dataset.data_vars.items()
    }

"""A run's directory: config, provenance, and labelled results that are on disk as soon as they are measured."""

import dataclasses
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, cast

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
_GROWING, _GROWN = "results.zarr.growing", "results.zarr.grown"


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


class Store:
    """The results of one run; every write is complete on disk when the call returns.

    Variables have a `member` dimension with the members' fields as coordinates. Numbers never measured are NaN. A
    number has one place: what is measured again, after an interruption, is written where it was.
    """

    def __init__(self, path: Path, config: Config):
        self.path = path
        self.probe_steps = config.measured_steps
        self._results = zarr.open_group(path / RESULTS, mode="r+")

    @classmethod
    def of_run(cls, path: Path, config: Config) -> "Store":
        """The store of a run that is there, whose results have all been read once.

        Raises:
          UserError: they are not there, or cannot be read.
        """
        _finish_growing(path)
        try:
            xr.open_zarr(path / RESULTS, consolidated=False, chunks=None).load()
            return cls(path, config)
        except Exception as error:  # whatever it is, of a damaged file
            reason = " ".join(str(error).split())[:200]
            raise UserError(f"{path / RESULTS} is damaged: {reason}; nothing was changed") from error

    @classmethod
    def create(
        cls, path: Path, config: Config, ensembles: Sequence[Ensemble], provenance: Mapping[str, Any]
    ) -> "Store":
        """Makes a new run directory, whole at once: with config, provenance, and every result still NaN.

        Raises:
          UserError: it cannot be made.
        """
        template = _template(config, ensembles)
        partial = path.with_name(f".{path.name}.partial-{os.getpid()}")
        try:
            partial.mkdir(parents=True)
            _write(partial / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))
            _write_dataset(template, partial / RESULTS, config)
            _write(partial / PROVENANCE, json.dumps(provenance, indent=2) + "\n")
            partial.rename(path)
        except OSError as error:
            shutil.rmtree(partial, ignore_errors=True)
            raise UserError(f"cannot make {path}: {error.strerror}") from error
        return cls(path, config)

    def grow(self, config: Config, ensembles: Sequence[Ensemble]) -> "Store":
        """The store with room for the steps of a config that has more of them; everything stored keeps its place."""
        stored = xr.open_zarr(self.path / RESULTS, consolidated=False, chunks=None).load()
        template = _template(config, ensembles)
        grown = stored.reindex({dim: template[dim] for dim in ("step", "probe_step")}).drop_encoding()
        _write_dataset(grown, self.path / _GROWING, config)
        (self.path / _GROWING).rename(self.path / _GROWN)
        _finish_growing(self.path)
        # Last: the old config finds its steps in the new results, but not the other way round.
        _write(self.path / CONFIG, yaml.safe_dump(config.to_dict(), sort_keys=False))
        return Store(self.path, config)

    def _array(self, name: str) -> zarr.Array:
        return cast(zarr.Array, self._results[name])

    def write_losses(self, members: slice, first_step: int, losses: np.ndarray) -> None:
        """Stores `[member, step]` training losses from `first_step` on."""
        self._array("train_loss")[members, first_step : first_step + losses.shape[1]] = losses

    def write_probes(self, members: slice, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Stores what was measured at a step, each `[member, ...]`."""
        index = self.probe_steps.index(step)
        for name, array in values.items():
            # A wave's deepest network may have fewer layers than the sweep's.
            self._array(name)[(members, index, *(slice(0, size) for size in array.shape[1:]))] = array

    def write_diverged(self, members: slice, steps: np.ndarray, causes: np.ndarray) -> None:
        """Stores each member's first step at which something was not finite, -1 if there is none, and what it was."""
        self._array("diverged_step")[members] = np.where(steps < 0, np.nan, steps)
        self._array("diverged_cause")[members] = np.asarray([CAUSES[cause] for cause in causes], object)

    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Stores versions, devices, command and times."""
        _write(self.path / PROVENANCE, json.dumps(provenance, indent=2) + "\n")


def _write_dataset(dataset: xr.Dataset, path: Path, config: Config) -> None:
    shutil.rmtree(path, ignore_errors=True)  # half of one, of a process that was killed
    dataset.to_zarr(path, mode="w-", consolidated=False, encoding=_encoding(dataset, config))


def _finish_growing(path: Path) -> None:
    """Puts results with room for more steps, once they are whole, in the place of the others."""
    if (path / _GROWN).exists():
        shutil.rmtree(path / RESULTS, ignore_errors=True)
        (path / _GROWN).rename(path / RESULTS)


def _template(config: Config, ensembles: Sequence[Ensemble]) -> xr.Dataset:
    """The dataset a run fills in: every array in place, every number NaN."""
    members, sizes = members_of(config), dimensions(config, ensembles)
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
    coordinates["blocks"] = ("member", np.asarray([blocks[member.depth] for member in members]))
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
    block = dataset.sizes["member"] // len(config.norms)
    lengths = {"member": block, "probe_step": 1, "step": min(config.steps, 16 * STEPS_PER_CALL)}
    return {
        str(name): {"chunks": [lengths.get(str(dim), dataset.sizes[dim]) for dim in variable.dims]}
        for name, variable in dataset.data_vars.items()
    }

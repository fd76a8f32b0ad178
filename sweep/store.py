"""A run's directory: config, provenance, and labelled results that are on disk as soon as they are measured."""

import dataclasses
import json
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any, cast

import jax.numpy as jnp
import numpy as np
import xarray as xr
import yaml
import zarr

from sweep.config import Config
from sweep.engine import STEPS_PER_CALL
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.measure import chosen, dimensions
from sweep.members import Member
from sweep.plan import members_of

RESULTS = "results.zarr"


@contextmanager
def uninterrupted() -> Iterator[None]:
    """Holds Ctrl-C back until the work inside is complete, so that it is never half done."""
    if threading.current_thread() is not threading.main_thread():
        yield  # only the main thread hears of signals
        return
    received: list[int] = []
    previous = signal.signal(signal.SIGINT, lambda number, frame: received.append(number))
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, previous)
    if received:
        raise KeyboardInterrupt


def _new_directory(config: Config) -> Path:
    """Makes the folder of a run, which must be new.

    Raises:
      UserError: the folder is there already, or cannot be made.
    """
    name = config.name or f"{config.dataset}-{config.arch}-{datetime.now():%Y%m%d-%H%M%S}"
    path = config.out / name
    try:
        path.mkdir(parents=True)
    except FileExistsError:
        what = "already holds a run" if (path / "config.yaml").exists() else "already exists"
        raise UserError(f"{path} {what}; choose another --name or --out, nothing was changed") from None
    except OSError as error:
        raise UserError(f"cannot make {path}: {error.strerror}") from error
    return path


def _write(path: Path, text: str) -> None:
    """Replaces a file in one step, so that a reader never sees half of it."""
    partial = path.with_suffix(path.suffix + ".partial")
    partial.write_text(text)
    os.replace(partial, path)


class Store:
    """The results of one run; every write is complete on disk when the call returns.

    Variables have a `member` dimension with the members' fields as coordinates. Numbers never measured are NaN.
    """

    def __init__(self, path: Path, config: Config):
        self.path = path
        self.probe_steps = config.measured_steps
        self._results = zarr.open_group(path / RESULTS, mode="r+")

    @classmethod
    @uninterrupted()
    def create(cls, config: Config, ensembles: Sequence[Ensemble], provenance: Mapping[str, Any]) -> "Store":
        """Makes a new run directory, whole at once: with config, provenance, and every result still NaN.

        Raises:
          UserError: the folder is there already, or cannot be made.
        """
        template = _template(config, ensembles)
        path = _new_directory(config)
        _write(path / "config.yaml", yaml.safe_dump(config.to_dict(), sort_keys=False))
        template.to_zarr(path / RESULTS, mode="w-", consolidated=False, encoding=_encoding(template, config))
        store = cls(path, config)
        store.write_provenance(provenance)
        return store

    def _array(self, name: str) -> zarr.Array:
        return cast(zarr.Array, self._results[name])

    @uninterrupted()
    def write_losses(self, members: slice, first_step: int, losses: np.ndarray) -> None:
        """Stores `[member, step]` training losses from `first_step` on."""
        self._array("train_loss")[members, first_step : first_step + losses.shape[1]] = losses

    @uninterrupted()
    def write_probes(self, members: slice, step: int, values: Mapping[str, np.ndarray]) -> None:
        """Stores what was measured at a step, each `[member, ...]`."""
        index = self.probe_steps.index(step)
        for name, array in values.items():
            self._array(name)[members, index] = array

    @uninterrupted()
    def write_diverged(self, members: slice, steps: np.ndarray) -> None:
        """Stores each member's first step with a loss that was not finite; -1 becomes NaN, never."""
        self._array("diverged_step")[members] = np.where(steps < 0, np.nan, steps)

    @uninterrupted()
    def write_provenance(self, provenance: Mapping[str, Any]) -> None:
        """Stores versions, devices, command and times."""
        _write(self.path / "provenance.json", json.dumps(provenance, indent=2) + "\n")


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
        "diverged_step": empty(("member",), "first step whose loss was not finite"),
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

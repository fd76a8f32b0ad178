"""A run directory as labelled data."""

import json
import math
from pathlib import Path

import numpy as np
import xarray as xr
import yaml


class NotARunError(ValueError):
    """The folder holds no run; the message is one line for a person."""


def load(run: str | Path) -> xr.Dataset:
    """Everything a run measured, read as it is asked for.

    Dimensions: `member` (coordinates net, norm, depth, blocks, seed, learning_rate, weight_std, bias_std), `step`,
    `probe_step`, `layer` (0 the stem) and those of single probes. Numbers never measured are NaN. `attrs["config"]`
    and `attrs["provenance"]` hold the run's `config.yaml` and `provenance.json`.

    Raises:
      NotARunError: no run is there, or it cannot be read.
    """
    path = Path(run)
    for name in ("config.yaml", "provenance.json", "results.zarr"):
        if not (path / name).exists():
            raise NotARunError(f"{path} is not a run directory: it has no {name}")
    try:
        # Of a run of several processes each has written its own members.
        parts = [
            xr.open_zarr(part, consolidated=False, chunks=None)
            for part in (path / "results.zarr", *sorted(path.glob("results-*.zarr")))
        ]
        results = parts[0]
        if len(parts) > 1:
            results = xr.concat(parts, "member", data_vars="minimal", join="outer").sortby("place")
        results = results.drop_vars("place", errors="ignore")
        config = yaml.safe_load((path / "config.yaml").read_text())
        provenance = json.loads((path / "provenance.json").read_text())
    except (OSError, ValueError, KeyError, yaml.YAMLError) as error:
        raise NotARunError(f"{path} cannot be read: {' '.join(str(error).split())}") from error
    swept = ("norms", "nets", "depths", "seeds", "learning_rates", "weight_std", "bias_std")
    if results.sizes["member"] < (members := math.prod(len(config[name]) for name in swept)):
        raise NotARunError(
            f"{path} has the results of {results.sizes['member']} of {members} members; a process's are not there"
        )
    if "blocks" not in results.coords:
        raise NotARunError(f"{path} was written by an older version, which did not store the number of blocks")
    return results.assign_attrs(config=config, provenance=provenance)


def load_now(run: str | Path) -> xr.Dataset:
    """`load`, and all of it read.

    Raises:
      NotARunError: no run is there, or some of it cannot be read.
    """
    results = load(run)
    try:
        return results.load().assign_attrs(results.attrs)
    except Exception as error:  # whatever it is, of a damaged file
        raise NotARunError(f"{run} cannot be read: {' '.join(str(error).split())[:200]}") from error


def settings(results: xr.Dataset) -> list[tuple[str, xr.Dataset]]:
    """Splits a run by the swept numbers that figures have no axis for; each part with its label, "" if there is one.

    Figures show net, norm, depth and seed; learning rates and scales each get figures of their own.
    """
    swept = [name for name in ("learning_rate", "weight_std", "bias_std") if len(set(results[name].values)) > 1]
    parts = [("", results)]
    for name in swept:
        parts = [
            (f"{label} {name}={value:g}".strip(), part.isel(member=part[name].values == value))
            for label, part in parts
            for value in sorted(set(part[name].values))
        ]
    return parts


def kind(results: xr.Dataset, net: str, norm: str, depth: int | None = None) -> xr.Dataset:
    """The members of one net kind and norm, and of one depth if it is given."""
    chosen = (results.net.values == net) & (results.norm.values == norm)
    if depth is not None:
        chosen &= results.depth.values == depth
    return results.isel(member=chosen)


def values(results: xr.Dataset, name: str) -> list:
    """A member coordinate's distinct values: numbers in order, names in order of appearance."""
    found = list(dict.fromkeys(results[name].values.tolist()))
    return found if isinstance(found[0], str) else sorted(found)


def largest_and_mean_square(members: xr.Dataset, reading: str, step: int) -> tuple[np.ndarray, np.ndarray]:
    """The largest singular value and the mean of the squared ones, `[member, matrix]`, at one of the measured steps.

    `reading` is `"frozen"` (a matrix a sample) or `"coupled"` (one). All singular values were measured where that was
    possible, else the largest ones and an estimate of the mean.
    """
    if f"{reading}_spectrum" in members:
        found = members[f"{reading}_spectrum"].isel(probe_step=step).values
        largest, mean_square = found[..., 0], np.square(found.astype(float)).mean(-1)
    else:
        largest = members[f"{reading}_top"].isel(probe_step=step, top=0).values
        mean_square = members[f"{reading}_mean_square"].isel(probe_step=step).values
    return largest.reshape(len(largest), -1), mean_square.reshape(len(mean_square), -1)

"""What a run directory says of its run, read again and checked when it is gone on with."""

import json
from pathlib import Path
from typing import Any

import yaml

from sweep.config import Config, flag_name
from sweep.errors import UserError
from sweep.store import CONFIG, PROVENANCE

# What may differ between a run and the command that goes on with it.
_FREE = {"out", "name", "report", "mesh", "probe_steps", "steps", "checkpoint_minutes", "keep_checkpoints"}


def config_of(directory: Path) -> Config:
    """The config of a run.

    Raises:
      UserError: no run is there, or its config cannot be read.
    """
    try:
        read = yaml.safe_load((directory / CONFIG).read_text())
        if not isinstance(read, dict):
            raise UserError(f"{directory / CONFIG} is no config")
        return Config.from_dict(read)
    except UserError as error:
        raise UserError(f"{directory / CONFIG}: {error}") from None
    except OSError as error:
        raise UserError(f"--resume needs a run directory, and {directory} has no {CONFIG}: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise UserError(f"{directory / CONFIG} cannot be read: {' '.join(str(error).split())}") from error


def record_of(directory: Path, config: Config) -> dict[str, Any]:
    """The run's provenance, whose config must be the file's, which is given."""
    try:
        record = json.loads((directory / PROVENANCE).read_text())
        own = record["config"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory / PROVENANCE} cannot be read: {' '.join(str(error).split())}") from error
    if "split" not in record:
        raise UserError(f"{directory} was written by an older version, which did not store how members were split")
    stored = config.to_dict()
    # A run that was killed as it grew has the new config, and not yet the new provenance.
    changed = [name for name in stored if stored[name] != own.get(name) and name not in _FREE]
    if changed:
        differences = ", ".join(
            f"{flag_name(name)} {_told(own.get(name))}, now {_told(stored[name])}" for name in changed
        )
        raise UserError(f"{directory / CONFIG} was changed since the run began: {differences}; nothing was changed")
    return record


def check_same(directory: Path, before: Config, config: Config) -> None:
    """Refuses a config that would be another run.

    Raises:
      UserError: names the fields that differ.
    """
    old, new = before.to_dict(), config.to_dict()
    differences = [
        f"{flag_name(name)} is {_told(old[name])} there, {_told(new[name])} was asked for"
        for name in old
        if old[name] != new[name] and name not in _FREE
    ]
    if config.steps < before.steps:
        differences.append(f"--steps is {before.steps} there, and cannot shrink to {config.steps}")
    if config.probe_steps != before.probe_steps and config.steps == before.steps:
        differences.append("--probe-steps is another")
    if differences:
        raise UserError(f"{directory} is another run: {'; '.join(differences)}")


def _told(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

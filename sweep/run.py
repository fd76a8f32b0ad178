"""One sweep from config to run directory, and on from where it was interrupted."""

import json
import signal
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax
import yaml
from rich.console import Console

from sweep.augmentations import PAD
from sweep.checkpoints import Checkpoints
from sweep.compiling import keep_programs
from sweep.config import Config, flag_name
from sweep.data import Dataset, load
from sweep.devices import use_every_core
from sweep.engine import Data, put
from sweep.ensemble import Ensemble
from sweep.errors import StorageError, UserError
from sweep.forecast import forecast, show
from sweep.interrupts import Interrupts, Stop
from sweep.lock import only_writer
from sweep.measure import remarks
from sweep.memory import available_bytes
from sweep.mesh import grid_for
from sweep.plan import members_of, structures_of
from sweep.progress import RunProgress
from sweep.provenance import provenance
from sweep.store import CONFIG, PROVENANCE, RESULTS, Store, directory_of
from sweep.training import train
from sweep.waves import waves

# What may differ between a run and the command that goes on with it.
_FREE = {"out", "name", "report", "mesh", "probe_steps", "steps", "checkpoint_minutes", "keep_checkpoints"}


class Interrupted(KeyboardInterrupt):
    """The run was told to stop; what had been measured is in `directory`, and `signal` is what told it."""

    def __init__(self, directory: Path, number: int):
        super().__init__(f"interrupted; what was measured is in {directory}, and --resume {directory} goes on")
        self.directory = directory
        self.signal = number


def run(config: Config, console: Console | None = None) -> Path:
    """Trains and measures a sweep, writes its run directory, draws its figures, and prints its table.

    Returns:
      The run directory.

    Raises:
      UserError: the sweep cannot be run as asked; raised before anything is compiled, with nothing written.
      Interrupted: on SIGINT or SIGTERM, within seconds; all up to there is on disk, and `resume` goes on.
      StorageError: the run directory cannot be written any more.
    """
    started, console = time.perf_counter(), console or Console()
    directory = directory_of(config)
    ensembles, data = _prepared(config)
    not_measured = remarks(config, ensembles)
    record = provenance() | {"status": "running", "config": config.to_dict(), "programs": []}
    with Interrupts() as interrupts:
        store = Store.create(directory, config, ensembles, record)
        with only_writer(directory):
            grid = ensembles[0].grid
            devices = f"{grid.size} device{'s' if grid.size > 1 else ''}"
            if grid.batch > 1:
                devices += f", {grid.batch} to a batch"
            samples = f"{len(data.train_labels):,} training and {len(data.test_labels):,} test samples"
            console.print(
                f"{len(members_of(config))} members on {devices}, {samples}, writing to {directory}", highlight=False
            )
            if len(ensembles) > len(config.norms):
                console.print(f"in {len(ensembles)} waves, for the memory there is", highlight=False)
            for line in not_measured:
                console.print(line, highlight=False)
            _train(config, ensembles, data, store, record, interrupts, console, started)
    _present(directory, config.report, console)
    return directory


def plan(config: Config, console: Console | None = None) -> None:
    """Prints what a sweep would take: members, programs, work, memory and time; nothing is written.

    Raises:
      UserError: the sweep cannot be run as asked.
    """
    console = console or Console()
    directory_of(config)
    ensembles, data = _prepared(config)
    for line in remarks(config, ensembles):
        console.print(line, highlight=False)
    with console.status("compiling and timing a few steps"):
        forecasts = [forecast(config, ensemble, data) for ensemble in ensembles]
    show(forecasts, config.steps, available_bytes(ensembles[0].grid.size), console)


def resume(directory: Path, config: Config, console: Console | None = None) -> Path:
    """Goes on with a run from its newest checkpoints, and as if it had not been interrupted.

    Args:
      directory: the run's.
      config: what is asked for: the run's own (`config_of`), or the same with more steps.
      console: where to print.

    Raises:
      UserError: no run is there, another process is writing it, its config is another one or was changed by hand, or
        its results are damaged; nothing was changed.
      Interrupted, StorageError: as `run`.
    """
    started, console = time.perf_counter(), console or Console()
    before = config_of(directory)
    _check_same(directory, before, config)
    record = _record_of(directory, before)
    config = replace(
        before,
        steps=config.steps,
        report=config.report,
        mesh=config.mesh,
        checkpoint_minutes=config.checkpoint_minutes,
        keep_checkpoints=config.keep_checkpoints,
    )
    if config.steps > before.steps:
        later = (step for step in config.measured_steps if step > before.steps)
        config = replace(config, probe_steps=(*before.measured_steps, *later))
    with Interrupts() as interrupts, only_writer(directory):
        store = Store.of_run(directory, before)
        ensembles, data = _prepared(config)
        if config.steps > before.steps:
            store = store.grow(config, ensembles)
        now = provenance()
        record["config"] = config.to_dict()
        record["status"] = "running"
        record.setdefault("resumed", []).append(
            {name: now[name] for name in ("started", "command", "versions", "devices")}
        )
        console.print(f"going on with {directory}", highlight=False)
        _train(config, ensembles, data, store, record, interrupts, console, started)
    _present(directory, config.report, console)
    return directory


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


def _record_of(directory: Path, config: Config) -> dict[str, Any]:
    """The run's provenance, whose config must be the file's, which is given."""
    try:
        record = json.loads((directory / PROVENANCE).read_text())
        own = record["config"]
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{directory / PROVENANCE} cannot be read: {' '.join(str(error).split())}") from error
    stored = config.to_dict()
    # A run that was killed as it grew has the new config, and not yet the new provenance.
    changed = [name for name in stored if stored[name] != own.get(name) and name not in _FREE]
    if changed:
        differences = ", ".join(
            f"{flag_name(name)} {_told(own.get(name))}, now {_told(stored[name])}" for name in changed
        )
        raise UserError(f"{directory / CONFIG} was changed since the run began: {differences}; nothing was changed")
    return record


def _check_same(directory: Path, before: Config, config: Config) -> None:
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


def _prepared(config: Config) -> tuple[list[Ensemble], Data]:
    """The programs of a sweep and its data, before anything is compiled.

    Raises:
      UserError: it cannot be run as asked.
    """
    dataset = load(config.dataset, config.data_dir)
    check_sizes(config, dataset)
    use_every_core()
    keep_programs()
    structures = structures_of(config, dataset.image_shape, dataset.classes)
    grid = grid_for(config.mesh, list(structures.values()), jax.device_count())
    data, available = put(dataset, grid), available_bytes(grid.size)
    return [
        wave
        for structure, members in structures.items()
        for wave in waves(config, structure, members, grid, data, available)
    ], data


def _train(
    config: Config,
    ensembles: list[Ensemble],
    data: Data,
    store: Store,
    record: dict[str, Any],
    interrupts: Interrupts,
    console: Console,
    started: float,
) -> None:
    directory = store.path
    try:
        store.write_provenance(record)
        with RunProgress(config.steps * len(ensembles), console) as progress:
            for place, ensemble in enumerate(ensembles):
                name = f"{place}-norm-{ensemble.structure.norm}"
                with Checkpoints(directory, name, config.keep_checkpoints) as checkpoints:
                    done = train(config, ensemble, data, store, checkpoints, interrupts, progress)
                if done:
                    record["programs"].append(done)
        record["status"] = "complete"
    except KeyboardInterrupt as interrupt:
        record["status"] = "interrupted"
        number = interrupt.number if isinstance(interrupt, Stop) else signal.SIGINT
        raise Interrupted(directory, number) from None
    except OSError as error:
        record["status"] = "failed"
        raise StorageError(directory, error) from error
    except BaseException:
        record["status"] = "failed"
        raise
    finally:
        record["wall_seconds"] = round(record.get("wall_seconds", 0.0) + time.perf_counter() - started, 2)
        _conclude(store, record)


def _conclude(store: Store, record: dict[str, Any]) -> None:
    try:
        store.write_provenance(record)
    except OSError:
        return  # the folder that cannot be written is what is being told


def _present(directory: Path, report: bool, console: Console) -> None:
    """Prints a finished run's table, draws its figures, and says where everything is."""
    import analysis  # half a second that the first training step need not wait for

    try:
        results = analysis.load(directory)
        console.print(analysis.summary_table(results))
        written = [directory / RESULTS]
        if report:
            with console.status("drawing figures"):
                written += analysis.write_report(directory)
        for path in written:
            console.print(str(path), highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        raise Interrupted(directory, signal.SIGINT) from None


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

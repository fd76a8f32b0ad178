"""One sweep from config to run directory, and on from where it was interrupted."""

import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from rich.console import Console

from sweep.checkpoints import Checkpoints
from sweep.config import Config
from sweep.errors import StorageError, storing
from sweep.forecast import forecast, show
from sweep.interrupts import Interrupts, Stop
from sweep.lock import only_writer
from sweep.memory import available_bytes
from sweep.plan import members_of
from sweep.prepare import Prepared, prepare
from sweep.processes import all_or_none, check_agreed, count, from_first, is_first, is_lost, meet
from sweep.progress import RunProgress
from sweep.provenance import provenance
from sweep.record import check_same, config_of, record_of
from sweep.store import Store, create, directory_of, write_config, write_provenance
from sweep.training import Training


class Interrupted(KeyboardInterrupt):
    """The run was told to stop.

    Attributes:
      directory: what had been measured is there.
      signal: what told it.
      together: whether all of the run's processes stop.
      is_heard: whether it is this process that says so.
    """

    def __init__(self, directory: Path, number: int, together: bool = False):
        super().__init__(f"interrupted; what was measured is in {directory}, and --resume {directory} goes on")
        self.directory = directory
        self.signal = number
        self.together = together
        self.is_heard = is_first() or not together


def run(config: Config, console: Console | None = None) -> Path:
    """Trains and measures a sweep, writes its run directory, draws its figures, and prints its table.

    Of several processes (`joined`) all call it; the first prints and draws.

    Returns:
      The run directory.

    Raises:
      UserError: the sweep cannot be run as asked; raised before anything is compiled, with nothing written.
      Interrupted: on SIGINT or SIGTERM, within seconds; all up to there is on disk, and `resume` goes on.
      StorageError: the run directory cannot be written any more.
    """
    started, console = time.perf_counter(), _voice(console)
    check_agreed(f"run {config}")
    with all_or_none():
        directory = directory_of(config)
    if count() > 1:  # the name may be the time, and a path is a process's own
        directory = Path(from_first(str(directory.absolute())))
    sweep = prepare(config)
    record = provenance() | {
        "status": "running",
        "config": config.to_dict(),
        "split": sweep.split,
        "programs": [],
    }
    with Interrupts() as interrupts:
        with all_or_none():
            if is_first():
                create(directory, config, sweep.ensembles, record)
        with _only_writer(directory):
            with all_or_none():
                store = Store(directory, config, sweep.ensembles)
            _introduce(config, sweep, directory, console)
            _train(config, sweep, store, record, interrupts, console, started)
    _present(directory, config.report, console)
    return directory


def plan(config: Config, console: Console | None = None) -> None:
    """Prints what a sweep would take: members, programs, work, memory and time; nothing is written.

    Raises:
      UserError: the sweep cannot be run as asked.
    """
    console = _voice(console)
    check_agreed(f"plan {config}")
    with all_or_none():
        directory_of(config)
    sweep = prepare(config)
    for line in sweep.remarks:
        console.print(line, highlight=False)
    with console.status("compiling and timing a few steps"):
        forecasts = [forecast(config, ensemble, sweep.data) for ensemble in sweep.ensembles]
    show(forecasts, config.steps, available_bytes(sweep.grid.size), console)


def resume(directory: Path, config: Config, console: Console | None = None) -> Path:
    """Goes on with a run from its newest checkpoints, and as if it had not been interrupted.

    Args:
      directory: the run's.
      config: what is asked for: the run's own (`config_of`), or the same with more steps.
      console: where to print.

    Raises:
      UserError: no run is there, another process is writing it, its config is another one or was changed by hand, its
        results are damaged, or its members were split over other devices; nothing was changed.
      Interrupted, StorageError: as `run`.
    """
    started, console = time.perf_counter(), _voice(console)
    check_agreed(f"resume {directory} {config}")
    with all_or_none():
        before = config_of(directory)
        check_same(directory, before, config)
        record = record_of(directory, before)
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
    with Interrupts() as interrupts, _only_writer(directory):
        sweep = prepare(config, record["split"])
        with all_or_none():
            store = Store.of_run(directory, before, sweep.ensembles)
        if config.steps > before.steps:
            with all_or_none(), storing(directory):
                store = store.grow(config, sweep.ensembles)
            # Last: the old config finds its steps in the new results, but not the other way round.
            with all_or_none(), storing(directory):
                if is_first():
                    write_config(directory, config)
        now = provenance()
        record["config"] = config.to_dict()
        record["status"] = "running"
        record.setdefault("resumed", []).append(
            {name: now[name] for name in ("started", "command", "versions", "devices")}
        )
        console.print(f"going on with {directory}", highlight=False)
        _train(config, sweep, store, record, interrupts, console, started)
    _present(directory, config.report, console)
    return directory


def _voice(console: Console | None) -> Console:
    """Where this process prints: the first one alone is heard."""
    return (console or Console()) if is_first() else Console(quiet=True)


@contextmanager
def _only_writer(directory: Path) -> Iterator[None]:
    """`only_writer` of all processes, whose first one holds the lock.

    Raises:
      UserError: another run's process holds it.
    """
    with ExitStack() as held:
        with all_or_none():
            if is_first():
                held.enter_context(only_writer(directory))
        yield


def _introduce(config: Config, sweep: Prepared, directory: Path, console: Console) -> None:
    """Says what is about to run."""
    grid, data = sweep.grid, sweep.data
    devices = f"{grid.size} device{'s' if grid.size > 1 else ''}"
    if grid.batch > 1:
        devices += f", {grid.batch} to a batch"
    if sweep.split["processes"] > 1:
        devices += f" of {sweep.split['processes']} processes"
    samples = f"{len(data.train_labels):,} training and {len(data.test_labels):,} test samples"
    console.print(f"{len(members_of(config))} members on {devices}, {samples}, writing to {directory}", highlight=False)
    if len(sweep.ensembles) > len(config.norms):
        console.print(f"in {len(sweep.ensembles)} waves, for the memory there is", highlight=False)
    for line in sweep.remarks:
        console.print(line, highlight=False)


def _train(
    config: Config,
    sweep: Prepared,
    store: Store,
    record: dict[str, Any],
    interrupts: Interrupts,
    console: Console,
    started: float,
) -> None:
    directory = store.path

    def write_record() -> None:
        if is_first():
            write_provenance(directory, record)

    try:
        write_record()
        with RunProgress(config.steps * len(sweep.ensembles), console) as progress:
            for place, ensemble in enumerate(sweep.ensembles):
                name = f"{place}-norm-{ensemble.structure.norm}"
                with Checkpoints(directory, name, config.keep_checkpoints) as checkpoints:
                    done = Training(config, ensemble, sweep.data, store, checkpoints, interrupts, progress).run()
                if done:
                    record["programs"].append(done)
        meet("trained")
        record["status"] = "complete"
    except KeyboardInterrupt as interrupt:
        record["status"] = "interrupted"
        if not isinstance(interrupt, Stop):
            raise Interrupted(directory, signal.SIGINT) from None
        raise Interrupted(directory, interrupt.number, interrupt.together) from None
    except OSError as error:
        record["status"] = "failed"
        if is_lost(error):
            raise
        raise StorageError(directory, error) from error
    except BaseException:
        record["status"] = "failed"
        raise
    finally:
        record["wall_seconds"] = round(record.get("wall_seconds", 0.0) + time.perf_counter() - started, 2)
        with suppress(OSError):  # the folder that cannot be written is what is being told
            write_record()


def _present(directory: Path, report: bool, console: Console) -> None:
    """Prints a finished run's table, draws its figures, and says where everything is."""
    if not is_first():
        return
    import analysis  # half a second that the first training step need not wait for

    try:
        results = analysis.load(directory)
        console.print(analysis.summary_table(results))
        written = sorted(directory.glob("results*.zarr"))
        if report:
            with console.status("drawing figures"):
                written += analysis.write_report(directory)
        for path in written:
            console.print(str(path), highlight=False, soft_wrap=True)
    except KeyboardInterrupt:
        raise Interrupted(directory, signal.SIGINT) from None

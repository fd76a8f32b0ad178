"""One sweep from config to run directory."""

import time
from functools import partial
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from sweep.augmentations import PAD
from sweep.compiling import Compiler, keep_programs
from sweep.config import Config
from sweep.data import Dataset, load
from sweep.devices import sharded, use_every_core
from sweep.engine import STEPS_PER_CALL, Data, Engine, TrainState, put
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.measure import chosen, measure, probe_rows, remarks
from sweep.placement import shard_count
from sweep.plan import members_of, structures_of
from sweep.progress import RunProgress
from sweep.provenance import provenance
from sweep.store import RESULTS, Store

# A call to the devices lasts about so long: progress moves, and an interrupt is soon heeded. On CPUs a call gets
# the memory it works in anew from the system: a fifth of the time of many CNNs, where a call is a single step.
_SECONDS_PER_CALL = 5.0


class Interrupted(KeyboardInterrupt):
    """The user stopped the run; what had been measured is in `directory`."""

    def __init__(self, directory: Path):
        super().__init__(f"interrupted; what was measured is in {directory}")
        self.directory = directory


def run(config: Config, console: Console | None = None) -> Path:
    """Trains and measures a sweep, writes its run directory, draws its figures, and prints its table.

    Returns:
      The run directory.

    Raises:
      UserError: the sweep cannot be run as asked; raised before anything is compiled, with nothing written.
      Interrupted: on an interrupt from the keyboard; what was measured is on disk and readable.
    """
    started = time.perf_counter()
    console = console or Console()
    dataset = load(config.dataset, config.data_dir)
    check_sizes(config, dataset)
    use_every_core()
    keep_programs()
    structures = structures_of(config, dataset.image_shape, dataset.classes)
    shards = max(shard_count(members, jax.device_count()) for members in structures.values())
    ensembles = [Ensemble.of(structure, members, shards) for structure, members in structures.items()]
    not_measured = remarks(config, ensembles)
    data = put(dataset, shards)
    record: dict[str, Any] = provenance() | {"status": "running", "programs": []}
    store = Store.create(config, ensembles, record)
    directory = store.path

    try:
        samples = f"{len(dataset.train_labels):,} training and {len(dataset.test_labels):,} test samples"
        devices = "1 device" if shards == 1 else f"{shards} devices"
        console.print(
            f"{len(members_of(config))} members on {devices}, {samples}, writing to {directory}", highlight=False
        )
        for line in not_measured:
            console.print(line, highlight=False)
        with RunProgress(config.steps * len(ensembles), console) as progress:
            for ensemble in ensembles:
                record["programs"].append(_train(config, ensemble, data, store, progress))
        record["status"] = "complete"
    except BaseException as error:
        record["status"] = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        if isinstance(error, KeyboardInterrupt):
            raise Interrupted(directory) from None
        raise
    finally:
        record["wall_seconds"] = round(time.perf_counter() - started, 2)
        store.write_provenance(record)

    try:
        _present(directory, config.report, console)
    except KeyboardInterrupt:
        raise Interrupted(directory) from None
    return directory


def _present(directory: Path, report: bool, console: Console) -> None:
    """Prints a finished run's table, draws its figures, and says where everything is."""
    import analysis  # half a second that the first training step need not wait for

    results = analysis.load(directory)
    console.print(analysis.summary_table(results))
    written = [directory / RESULTS]
    if report:
        with console.status("drawing figures"):
            written += analysis.write_report(directory)
    for path in written:
        console.print(str(path), highlight=False, soft_wrap=True)


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


def steps_in_a_call(seconds: float) -> int:
    """How many steps of so many seconds one call to the devices takes."""
    return int(np.clip(_SECONDS_PER_CALL / seconds, 1, STEPS_PER_CALL))


def _train(
    config: Config,
    ensemble: Ensemble,
    data: Data,
    store: Store,
    progress: RunProgress,
) -> dict[str, Any]:
    """Trains and measures one ensemble; returns what is worth recording of its program."""
    title = f"{ensemble.structure.arch} norm={ensemble.structure.norm}"
    engine = Engine(config, ensemble)
    rows = probe_rows(config, len(data.train_labels))
    # The ensemble's members stand by device and depth; the store's stand in the order of `members_of`.
    places = [members_of(config).index(member) for member in ensemble.members]
    block = slice(min(places), max(places) + 1)
    to_store = partial(ensemble.by_member, members=members_of(config)[block])

    progress.doing(f"{title}: compiling")
    clock = time.perf_counter()
    probes, samples = chosen(config, ensemble), config.spectrum_batch_size
    with Compiler() as compiler:
        initialization = engine.init.lower(engine, ensemble.traits, len(data.train_labels))
        outline = sharded(initialization.out_info, ensemble.shards)
        programs = [compiler.quickly(initialization)]
        programs.append(compiler.quickly(measure.lower(probes, samples, ensemble, *outline[:3], data, rows)))
        programs.append(compiler.compile(engine.train.lower(engine, outline, data, jnp.int32(0))))
        programs.append(compiler.compile(engine.evaluate.lower(engine, *outline[1:3], data)))
        init, probe, train, evaluate = (program.result() for program in programs)
    state = init(ensemble.traits)
    compile_seconds = time.perf_counter() - clock

    def measured(step: int, state: TrainState) -> None:
        progress.doing(f"{title}: measuring step {step}")
        loss, accuracy = evaluate(state.params, state.rest, data)
        found = dict(probe(state.traits, state.params, state.rest, data, rows)) | {
            "test_loss": loss,
            "test_accuracy": accuracy,
        }
        store.write_probes(block, step, {name: to_store(value) for name, value in found.items()})
        # The training loss is the one before a step: what the last steps did shows first in this one.
        diverged = to_store(state.diverged)
        store.write_diverged(block, np.where((diverged < 0) & ~np.isfinite(to_store(loss)), step, diverged))

    train_seconds = probe_seconds = 0.0
    steps_per_call = 1
    for start, stop in zip((0, *config.measured_steps), config.measured_steps, strict=False):
        step = start
        while step < stop:
            clock = time.perf_counter()
            count = min(steps_per_call, stop - step)
            state, losses = train(state, data, jnp.int32(count))
            store.write_losses(block, step, to_store(jnp.swapaxes(losses, 1, 2))[:, :count])
            store.write_diverged(block, to_store(state.diverged))
            step += count
            progress.took(count)
            seconds = time.perf_counter() - clock
            train_seconds += seconds
            steps_per_call = steps_in_a_call(seconds / count)
        clock = time.perf_counter()
        measured(stop, state)
        probe_seconds += time.perf_counter() - clock
        share = probe_seconds / (train_seconds + probe_seconds)
        progress.doing(f"{title}: training, {share:.0%} of the time measuring")
    jax.block_until_ready(state)
    return {
        "structure": title,
        "members": block.stop - block.start,
        "devices": ensemble.shards,
        "compile_seconds": round(compile_seconds, 2),
        "train_seconds": round(train_seconds, 2),
        "probe_seconds": round(probe_seconds, 2),
    }

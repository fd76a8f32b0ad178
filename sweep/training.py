"""The training of one ensemble from its first step to its last, measured, stored and checkpointed on the way."""

import time
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from sweep.checkpoints import Checkpoints
from sweep.compiling import Compiler
from sweep.config import Config
from sweep.engine import CAUSES, STEPS_PER_CALL, Data, Engine, TrainState
from sweep.ensemble import Ensemble
from sweep.interrupts import Interrupts
from sweep.measure import chosen, measure, probe_rows
from sweep.plan import members_of
from sweep.progress import RunProgress
from sweep.store import Store

# A call to the devices lasts about so long: progress moves, and an interrupt is soon heeded. On CPUs a call gets
# the memory it works in anew from the system: a fifth of the time of many CNNs, where a call is a single step.
_SECONDS_PER_CALL = 5.0


def steps_in_a_call(seconds: float) -> int:
    """How many steps of so many seconds one call to the devices takes."""
    return int(np.clip(_SECONDS_PER_CALL / seconds, 1, STEPS_PER_CALL))


def train(
    config: Config,
    ensemble: Ensemble,
    data: Data,
    store: Store,
    checkpoints: Checkpoints,
    interrupts: Interrupts,
    progress: RunProgress,
) -> dict[str, Any]:
    """Trains and measures one ensemble, from its newest checkpoint if it has one; returns what is worth recording.

    Raises:
      Stop: a signal was received; everything up to it has been stored and checkpointed.
      StorageError: a checkpoint could not be written.
    """
    title = f"{ensemble.structure.arch} norm={ensemble.structure.norm}"
    if checkpoints.is_done(config.steps):
        progress.took(config.steps)
        return {}
    engine = Engine(config, ensemble)
    rows = probe_rows(config, len(data.train_labels))
    # The ensemble's members stand by device and depth; the store's stand in the order of `members_of`.
    members = members_of(config)
    place_of = {member: place for place, member in enumerate(members)}
    places = [place_of[member] for member in ensemble.members]
    block = slice(min(places), max(places) + 1)
    to_store = partial(ensemble.by_member, members=members[block])

    progress.doing(f"{title}: compiling")
    clock = time.perf_counter()
    probes, samples = chosen(config, ensemble), config.spectrum_batch_size
    with interrupts.at_once(), Compiler() as compiler:
        initialization = engine.init.lower(engine, ensemble.traits, len(data.train_labels))
        outline = ensemble.grid.sharded(initialization.out_info)
        programs = [compiler.quickly(initialization)]
        programs.append(compiler.quickly(measure.lower(probes, samples, ensemble, *outline[:3], data, rows)))
        programs.append(compiler.compile(engine.train.lower(engine, outline, data, jnp.int32(0))))
        programs.append(compiler.compile(engine.evaluate.lower(engine, *outline[1:3], data)))
        init, probe, take_steps, evaluate = (program.result() for program in programs)
        restored = checkpoints.restore(outline, lambda line: progress.console.print(line, highlight=False))
        state, begun, is_measured = (init(ensemble.traits), 0, False) if restored is None else restored
    compile_seconds = time.perf_counter() - clock
    progress.took(begun)

    def note_divergence(state: TrainState) -> None:
        store.write_diverged(block, to_store(state.diverged), to_store(state.cause))

    def measured(step: int, state: TrainState) -> TrainState:
        progress.doing(f"{title}: measuring step {step}")
        loss, accuracy = evaluate(state.params, state.rest, data)
        # The training loss is the one before a step: what the last steps did shows first in this one.
        lost = (state.diverged < 0) & ~jnp.isfinite(loss)
        state = state._replace(
            diverged=jnp.where(lost, step, state.diverged),
            cause=jnp.where(lost, CAUSES.index("test loss"), state.cause),
        )
        found = dict(probe(state.traits, state.params, state.rest, data, rows))
        found |= {"test_loss": loss, "test_accuracy": accuracy}
        alive = to_store(state.diverged) < 0
        by_member = {name: to_store(value) for name, value in found.items()}
        blank = {
            name: np.where(alive.reshape(-1, *[1] * (value.ndim - 1)), value, np.nan)
            for name, value in by_member.items()
        }
        store.write_probes(block, step, blank)
        note_divergence(state)
        return state

    train_seconds = probe_seconds = 0.0
    steps_per_call, last_saved, ended = 1, time.monotonic(), config.steps
    for start, stop in zip((0, *config.measured_steps), config.measured_steps, strict=False):
        if stop < begun or (stop == begun and is_measured):
            continue
        step = max(start, begun)
        while step < stop:
            clock = time.perf_counter()
            count = min(steps_per_call, stop - step)
            state, losses = take_steps(state, data, jnp.int32(count))
            store.write_losses(block, step, to_store(jnp.swapaxes(losses, 1, 2))[:, :count])
            note_divergence(state)
            step += count
            progress.took(count)
            seconds = time.perf_counter() - clock
            train_seconds += seconds
            steps_per_call = steps_in_a_call(seconds / count)
            minutes = (time.monotonic() - last_saved) / 60
            if interrupts.received is not None or (step < stop and 0 < config.checkpoint_minutes <= minutes):
                checkpoints.save(step, state, measured=False)
                last_saved = time.monotonic()
            if interrupts.received is not None:
                checkpoints.wait()
                interrupts.check()
        clock = time.perf_counter()
        state = measured(stop, state)
        probe_seconds += time.perf_counter() - clock
        share = probe_seconds / (train_seconds + probe_seconds)
        progress.doing(f"{title}: training, {share:.0%} of the time measuring")
        ended = stop
        all_lost = bool((state.diverged >= 0).all())
        if stop == config.steps or all_lost or interrupts.received is not None:
            checkpoints.save(stop, state, measured=True)
            checkpoints.wait()
        interrupts.check()
        if all_lost and stop < config.steps:
            progress.console.print(f"{title}: every member diverged by step {stop}; stopped there", highlight=False)
            progress.took(config.steps - stop)
            break
    jax.block_until_ready(state)
    return {
        "structure": title,
        "members": block.stop - block.start,
        "devices": ensemble.grid.size,
        "compile_seconds": round(compile_seconds, 2),
        "train_seconds": round(train_seconds, 2),
        "probe_seconds": round(probe_seconds, 2),
        "from_step": begun,
        "to_step": ended,
    }

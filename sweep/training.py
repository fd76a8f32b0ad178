"""The training of one ensemble from its first step to its last, measured, stored and checkpointed on the way."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.stages import Compiled

from sweep.checkpoints import Checkpoints
from sweep.compiling import Compiler
from sweep.config import Config
from sweep.engine import CAUSES, STEPS_PER_CALL, Data, Engine, TrainState
from sweep.ensemble import Ensemble
from sweep.interrupts import Interrupts, Stop
from sweep.measure import chosen, measurement, probe_rows
from sweep.processes import most
from sweep.progress import RunProgress
from sweep.store import Store

# A call to the devices lasts about so long: progress moves, and an interrupt is soon heeded. On CPUs a call gets
# the memory it works in anew from the system: a fifth of the time of many CNNs, where a call is a single step.
_SECONDS_PER_CALL = 5.0


def steps_in_a_call(seconds: float) -> int:
    """How many steps of so many seconds one call to the devices takes."""
    return int(np.clip(_SECONDS_PER_CALL / seconds, 1, STEPS_PER_CALL))


class _Programs(NamedTuple):
    """What runs on the devices, and the outline of its state."""

    init: Compiled
    probe: Compiled
    take_steps: Compiled
    evaluate: Compiled
    outline: TrainState


@dataclass
class Training:
    """One ensemble's training, from its newest checkpoint if it has one.

    Several processes take the same steps at the same time: what each finds out by itself (a signal, how long a step
    takes, that a checkpoint is due) they agree on after every call to the devices.
    """

    config: Config
    ensemble: Ensemble
    data: Data
    store: Store
    checkpoints: Checkpoints
    interrupts: Interrupts
    progress: RunProgress
    _train_seconds: float = field(default=0.0, init=False)
    _probe_seconds: float = field(default=0.0, init=False)

    def __post_init__(self) -> None:
        self._title = f"{self.ensemble.structure.arch} norm={self.ensemble.structure.norm}"
        self._block = self.store.block(self.ensemble)
        self._to_store = partial(self.ensemble.by_member, members=self.store.members[self._block])
        self._rows = np.asarray(probe_rows(self.config, len(self.data.train_labels)))

    def run(self) -> dict[str, Any]:
        """Trains and measures; returns what is worth recording.

        Raises:
          Stop: a signal was received; everything up to it has been stored and checkpointed.
          StorageError: a checkpoint could not be written.
        """
        config, progress = self.config, self.progress
        if self.checkpoints.is_done(config.steps):
            progress.took(config.steps)
            return {}
        progress.doing(f"{self._title}: compiling")
        clock = time.perf_counter()
        with self.interrupts.at_once():
            self._programs = self._compiled()
            restored = self.checkpoints.restore(
                self._programs.outline, lambda line: progress.console.print(line, highlight=False)
            )
            if restored is None:
                restored = self._programs.init(self.ensemble.traits), 0, False
        state, begun, is_measured = restored
        compile_seconds = time.perf_counter() - clock
        progress.took(begun)
        self._steps_per_call, self._last_saved, ended = 1, time.monotonic(), config.steps
        for start, stop in zip((0, *config.measured_steps), config.measured_steps, strict=False):
            if stop < begun or (stop == begun and is_measured):
                continue
            state = self._measured(stop, self._trained(state, max(start, begun), stop))
            all_lost, ended = bool((state.diverged >= 0).all()), stop
            (told,) = most(self.interrupts.received or 0)
            if stop == config.steps or all_lost or told:
                self.checkpoints.save(stop, state, measured=True)
                self.checkpoints.wait()
            if told:
                raise Stop(told, together=True)
            if all_lost and stop < config.steps:
                progress.console.print(
                    f"{self._title}: every member diverged by step {stop}; stopped there", highlight=False
                )
                progress.took(config.steps - stop)
                break
        jax.block_until_ready(state)
        return {
            "structure": self._title,
            "members": len(self.ensemble.owners),
            "devices": self.ensemble.grid.size,
            "compile_seconds": round(compile_seconds, 2),
            "train_seconds": round(self._train_seconds, 2),
            "probe_seconds": round(self._probe_seconds, 2),
            "from_step": begun,
            "to_step": ended,
        }

    def _compiled(self) -> _Programs:
        ensemble, data = self.ensemble, self.data
        engine = Engine(self.config, ensemble)
        with Compiler() as compiler:
            initialization = engine.init.lower(ensemble.traits, len(data.train_labels))
            outline = ensemble.grid.sharded(initialization.out_info)
            programs = [compiler.quickly(initialization)]
            measure = measurement(chosen(self.config, ensemble), self.config.spectrum_batch_size, ensemble)
            programs.append(compiler.quickly(measure.lower(*outline[:3], data, self._rows)))
            programs.append(compiler.compile(engine.train.lower(outline, data, np.int32(0))))
            programs.append(compiler.compile(engine.evaluate.lower(*outline[1:3], data)))
            init, probe, take_steps, evaluate = (program.result() for program in programs)
        return _Programs(init, probe, take_steps, evaluate, outline)

    def _trained(self, state: TrainState, step: int, stop: int) -> TrainState:
        """The state after the steps from one to another, whose losses are stored."""
        while step < stop:
            clock = time.perf_counter()
            count = min(self._steps_per_call, stop - step)
            state, losses = self._programs.take_steps(state, self.data, np.int32(count))
            self.store.write_losses(self._block, step, self._to_store(jnp.swapaxes(losses, 1, 2))[:, :count])
            self._note_divergence(state)
            step += count
            self.progress.took(count)
            seconds = time.perf_counter() - clock
            self._train_seconds += seconds
            minutes = (time.monotonic() - self._last_saved) / 60
            is_due = step < stop and 0 < self.config.checkpoint_minutes <= minutes
            told, due, negated = most(self.interrupts.received or 0, int(is_due), -steps_in_a_call(seconds / count))
            self._steps_per_call = -negated
            if told or due:
                self.checkpoints.save(step, state, measured=False)
                self._last_saved = time.monotonic()
            if told:
                self.checkpoints.wait()
                raise Stop(told, together=True)
        return state

    def _measured(self, step: int, state: TrainState) -> TrainState:
        """The state, with what measuring it shows of divergence; all that is measured is stored."""
        self.progress.doing(f"{self._title}: measuring step {step}")
        clock = time.perf_counter()
        loss, accuracy = self._programs.evaluate(state.params, state.rest, self.data)
        # The training loss is the one before a step: what the last steps did shows first in this one.
        lost = (state.diverged < 0) & ~jnp.isfinite(loss)
        state = state._replace(
            diverged=jnp.where(lost, step, state.diverged),
            cause=jnp.where(lost, CAUSES.index("test loss"), state.cause),
        )
        found: Mapping[str, Array] = self._programs.probe(state.traits, state.params, state.rest, self.data, self._rows)
        alive = self._to_store(state.diverged) < 0

        def blank(array: Array) -> np.ndarray:
            values = self._to_store(array)
            return np.where(alive.reshape(-1, *[1] * (values.ndim - 1)), values, np.nan)

        measured = {**found, "test_loss": loss, "test_accuracy": accuracy}
        self.store.write_probes(self._block, step, {name: blank(array) for name, array in measured.items()})
        self._note_divergence(state)
        self._probe_seconds += time.perf_counter() - clock
        share = self._probe_seconds / (self._train_seconds + self._probe_seconds)
        self.progress.doing(f"{self._title}: training, {share:.0%} of the time measuring")
        return state

    def _note_divergence(self, state: TrainState) -> None:
        self.store.write_diverged(self._block, self._to_store(state.diverged), self._to_store(state.cause))

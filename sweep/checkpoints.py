"""Checkpoints of one program's training, by Orbax: written while training goes on, each whole or not at all."""

import hashlib
import logging
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from jaxtyping import PyTree

from sweep.errors import StorageError
from sweep.processes import LostError, gathered, is_first, is_lost, meet, most

FOLDER = "checkpoints"


class Checkpoints:
    """The last checkpoints of one program, in a folder of its own. A context: it ends when all are on disk.

    Args:
      directory: the run's.
      program: the program's name.
      keep: how many.
    """

    def __init__(self, directory: Path, program: str, keep: int):
        for talkative in ("absl", "asyncio"):  # Orbax tells of every step it takes, and of failures that are told here
            logging.getLogger(talkative).setLevel(logging.CRITICAL)
        self._directory = directory
        self._folder = (directory / FOLDER / program).absolute()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True)
        self._manager = self._storing(lambda: ocp.CheckpointManager(self._folder, options=options))

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._storing(self._manager.close)

    def save(self, step: int, state: PyTree[jax.Array], *, measured: bool) -> None:
        """Begins to write a state; what it is copied from may be overwritten when this returns.

        Args:
          step: the steps taken; states of steps saved before replace nothing.
          state: the arrays.
          measured: whether this step's probes have been stored.

        Raises:
          StorageError: this one or one before could not be written.
          LostError: another process did not do its part.
        """
        leaves = jax.tree.leaves(state)
        facts = {"measured": measured, "digests": _digests(leaves)}
        arrays = {str(place): leaf for place, leaf in enumerate(leaves)}
        arguments = ocp.args.Composite(state=ocp.args.StandardSave(arrays), facts=ocp.args.JsonSave(facts))
        # One that was saved before the step was measured gives way to one that was saved after.
        if step in self._manager.all_steps():
            self.wait()
            self._storing(lambda: self._manager.delete(step))
        self._storing(lambda: self._manager.save(step, args=arguments))

    def wait(self) -> None:
        """Returns when everything is on disk.

        Raises:
          StorageError: something could not be written.
        """
        self._storing(self._manager.wait_until_finished)
        self._storing(self._manager.check_for_errors)

    def is_done(self, steps: int) -> bool:
        """Whether the newest checkpoint is of the last step, measured."""
        newest = self._manager.latest_step()
        (unfinished,) = most(int(newest != steps or not (self._facts(newest) or {}).get("measured")))
        return not unfinished

    def restore(self, like: PyTree[Any], say: Callable[[str], None]) -> tuple[PyTree[jax.Array], int, bool] | None:
        """The newest state that is as it was written, its step, and whether that was measured; None if there is none.

        Args:
          like: the state's outline, with shardings.
          say: is told of every checkpoint that is damaged, in a line; it is set aside, and the one before is tried.
        """
        outlines, structure = jax.tree.flatten(like)
        target = {str(place): outline for place, outline in enumerate(outlines)}
        for step in sorted(self._manager.all_steps(), reverse=True):
            facts, leaves = self._facts(step), []
            reason = "its facts cannot be read"
            if facts is not None:
                try:
                    found = self._read(step, state=ocp.args.StandardRestore(target)).state
                except Exception as error:  # whatever it is, of a damaged file
                    reason = " ".join(str(error).split())[:100]
                else:
                    leaves, reason = [found[str(place)] for place in range(len(outlines))], ""
            # Every process has read its own part.
            (unread,) = most(int(bool(reason)))
            if facts is not None and not unread:
                if _digests(leaves) == facts["digests"]:
                    return jax.tree.unflatten(structure, leaves), step, facts["measured"]
                reason = "its arrays are not what was written"
            say(f"{self._folder / str(step)} is damaged ({reason or 'another process'}), and set aside")
            self._set_aside(step)
        return None

    def _facts(self, step: int) -> dict[str, Any] | None:
        try:
            return self._read(step, facts=ocp.args.JsonRestore()).facts
        except Exception:  # whatever it is, of a damaged file
            return None

    def _read(self, step: int, **items: ocp.args.CheckpointArgs) -> Any:
        """Parts of a checkpoint, by this process alone: what cannot be read by one would keep all others waiting."""
        alone = ocp.options.MultiprocessingOptions(
            primary_host=jax.process_index(), active_processes={jax.process_index()}
        )
        with ocp.Checkpointer(ocp.CompositeCheckpointHandler(), multiprocessing_options=alone) as reader:
            return reader.restore(self._folder / str(step), args=ocp.args.Composite(**items))

    def _set_aside(self, step: int) -> None:
        if is_first():
            damaged = self._folder.with_name(f"{self._folder.name}-damaged")
            damaged.mkdir(exist_ok=True)
            place = damaged / str(step)
            while place.exists():
                place = place.with_name(f"{place.name}+")
            (self._folder / str(step)).rename(place)
        meet("set aside")
        self._manager.reload()

    def _storing(self, work: Callable[[], Any]) -> Any:
        try:
            return work()
        except (OSError, ValueError, RuntimeError) as error:
            raise (LostError(error) if is_lost(error) else StorageError(self._directory, error)) from error


def _digests(arrays: list[jax.Array]) -> list[list[str]]:
    """By array and shard, of all processes' shards."""
    size = 16
    found = np.zeros((len(arrays), len(arrays[0]), size), np.uint8)
    for own, array in zip(found, arrays, strict=True):
        for part in array.addressable_shards:
            if part.replica_id == 0:
                first = part.index[0].start or 0
                for shard, data in enumerate(np.asarray(part.data), first):
                    digest = hashlib.blake2b(np.ascontiguousarray(data).data, digest_size=size).digest()
                    own[shard] = np.frombuffer(digest, np.uint8)
    return [[bytes(shard).hex() for shard in array] for array in gathered(found)]

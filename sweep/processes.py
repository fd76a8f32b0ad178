"""Many processes as one run: they meet, agree, and the first of them speaks. Alone, a process agrees with itself."""

import signal
import socket
import zlib
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import UInt8

from sweep.devices import use_every_core
from sweep.errors import StorageError, UserError
from sweep.watcher import Watcher

# So long after a process was last heard of the others stop.
HEARTBEAT_SECONDS = 30
_MEET_SECONDS = 300
# The first one draws its figures while the others wait.
_LEAVE_SECONDS = 3600
# What is in the messages of collectives and of JAX's coordination service when a process does not answer.
_UNREACHABLE = ("Gloo", "NCCL", "barrier", "heartbeat", "UNAVAILABLE", "DEADLINE_EXCEEDED", "ABORTED")
_AFTER = "what was measured is on disk, and --resume RUN, given to all of them, goes on"
_LOST = f"train.py: error: this process was killed, or another process of this run is gone (see above); {_AFTER}"


class ElsewhereError(UserError):
    """What was asked cannot be done by another process, which says why."""


class LostError(Exception):
    """The others of this run's processes cannot be reached any more; what was measured is on disk."""

    def __init__(self, error: BaseException):
        reason = " ".join(str(error).split())[:120]
        super().__init__(f"another process of this run is gone ({reason}); {_AFTER}")


def is_lost(error: BaseException) -> bool:
    """Whether an error says that another process cannot be reached. JAX has no kind of its own for those."""
    text = str(error)
    return count() > 1 and any(word in text for word in _UNREACHABLE)


class Place(NamedTuple):
    """This process's place among those that are one run. What is None is found out from where it runs.

    Attributes:
      coordinator: host and port of the first one, `host:1234`.
      processes: how many there are.
      process: which of them this is.
    """

    coordinator: str | None = None
    processes: int | None = None
    process: int | None = None


@contextmanager
def joined(place: Place | None) -> Iterator[None]:
    """Inside, this process is one of several that are one run; None changes nothing. Before JAX has started.

    SLURM, Open MPI, Kubernetes and Cloud TPU are asked for what a place leaves open. At the end it waits for the others
    to end too, except after an error that is its own. If they are lost JAX aborts the process, which stderr is told.

    Raises:
      UserError: the place cannot be found out, or the others do not come within five minutes.
      LostError: the devices failed, as they do when another process is gone.
    """
    if place is None:
        yield
        return
    watcher = Watcher()
    try:
        where = place.coordinator or "their coordinator"
        watcher.will_say(f"train.py: error: --distributed: the processes did not meet at {where} (see above)")
        _join(place)
        watcher.will_say(_LOST)
        try:
            _check_devices()
            yield
        except UserError:
            _leave()
            raise
        except Exception as error:
            if is_lost(error):
                raise LostError(error) from error
            raise
        except KeyboardInterrupt as interrupt:
            if getattr(interrupt, "together", False):
                _leave()
            raise
        else:
            _leave()
    finally:
        watcher.end()


def _join(place: Place) -> None:
    # While it waits for the others it heeds no Ctrl-C of Python's.
    handler = signal.signal(signal.SIGINT, signal.SIG_DFL)
    try:
        jax.distributed.initialize(
            *place,
            initialization_timeout=_MEET_SECONDS,
            heartbeat_timeout_seconds=HEARTBEAT_SECONDS,
            shutdown_timeout_seconds=_LEAVE_SECONDS,
        )
    except (ValueError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise UserError(
            f"--distributed cannot join: {reason}; give --coordinator HOST:PORT, --processes and --process"
        ) from error
    finally:
        signal.signal(signal.SIGINT, handler)
    use_every_core()


def _check_devices() -> None:
    """What follows is for processes with as many devices each; all find out without each other."""
    devices = Counter(device.process_index for device in jax.devices())
    if len(set(devices.values())) > 1:
        if not is_first():
            raise ElsewhereError("process 0 tells of the devices")
        each = ", ".join(str(devices[process]) for process in sorted(devices))
        raise UserError(
            f"--distributed needs as many devices in every process, got {each}; on CPUs JAX_NUM_CPU_DEVICES sets them"
        )


def _leave() -> None:
    try:
        jax.distributed.shutdown()
    except RuntimeError as error:
        raise LostError(error) from error


def count() -> int:
    """How many processes there are. Alone, JAX need not start for that."""
    return jax.process_count() if jax.distributed.is_initialized() else 1


def is_first() -> bool:
    """Whether this is the process that reports."""
    return count() == 1 or jax.process_index() == 0


def most(*numbers: int) -> tuple[int, ...]:
    """The largest of what the processes give, number by number; all get the same."""
    if count() == 1:
        return numbers
    return tuple(multihost_utils.process_allgather(np.asarray(numbers, np.int32)).max(0).tolist())


def gathered(own: UInt8[np.ndarray, "..."]) -> UInt8[np.ndarray, "..."]:
    """Bytes of which every process knows some, and has zeros in the place of the others."""
    if count() == 1:
        return own
    return multihost_utils.process_allgather(own).sum(0, dtype=np.uint8)


def from_first(text: str) -> str:
    """The first process's text, of 4,096 bytes at most."""
    if count() == 1:
        return text
    buffer = np.zeros(4096, np.uint8)
    words = text.encode()
    buffer[: len(words)] = np.frombuffer(words, np.uint8)
    return bytes(multihost_utils.broadcast_one_to_all(buffer)).rstrip(b"\0").decode()


def hosts() -> int:
    """On how many machines the processes run."""
    if count() == 1:
        return 1
    return len(np.unique(multihost_utils.process_allgather(np.asarray(_digest(socket.gethostname()), np.int32))))


def _digest(text: str) -> int:
    """31 bits, which int32 holds with either sign."""
    return zlib.crc32(text.encode()) & 0x7FFFFFFF


def check_agreed(settings: str) -> None:
    """Refuses processes that were asked for different things: they would wait for each other for ever.

    Raises:
      UserError: what they were given differs.
    """
    digest = _digest(settings)
    largest, negated = most(digest, -digest)
    with all_or_none():
        if largest != -negated:
            raise UserError(
                "--distributed: the processes were given different flags; all but --process must be the same"
            )


@contextmanager
def all_or_none() -> Iterator[None]:
    """What one process cannot do, none does: an error in one raises `ElsewhereError` in those that could.

    Errors are those that are told in a line.

    Where several fail, the first of them says why. Inside, processes must not wait for each other.
    """
    error = None
    try:
        yield
    except (UserError, StorageError) as found:
        error = found
    # Counted from the end, so that `most` finds the first one that fails.
    place = count() - (0 if is_first() else jax.process_index())
    (failed,) = most(place if error is not None else 0)
    if error is not None and failed == place:
        raise error
    if failed:
        raise ElsewhereError(f"process {count() - failed} cannot do what was asked")


def meet(name: str) -> None:
    """Returns when every process has come here."""
    if count() > 1:
        multihost_utils.sync_global_devices(name)

"""One run, one writer."""

import json
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from filelock import FileLock, Timeout

from sweep.errors import UserError, storing

_LOCK, _HOLDER = ".lock", ".writer.json"


@contextmanager
def only_writer(directory: Path) -> Iterator[None]:
    """Holds a run directory; the system lets go of it when the process ends, however it ends.

    Raises:
      UserError: another process holds it; says which.
      StorageError: the folder cannot be written.
    """
    lock, holder = FileLock(directory / _LOCK), directory / _HOLDER
    with storing(directory):
        try:
            lock.acquire(timeout=0)
        except Timeout:
            raise UserError(f"{directory} is being written by {_described(holder)}; nothing was changed") from None
    try:
        since = datetime.now(UTC).isoformat(timespec="seconds")
        facts = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        with storing(directory):
            holder.write_text(json.dumps(facts))
        yield
    finally:
        with suppress(OSError):  # the folder may not be written any more
            holder.unlink(missing_ok=True)
        lock.release()


def _described(holder: Path) -> str:
    try:
        facts = json.loads(holder.read_text())
        return f"process {facts['process']} on {facts['host']} since {facts['since']}"
    except (OSError, ValueError, KeyError):
        return "another process"

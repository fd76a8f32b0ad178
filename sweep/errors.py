"""What is told in one line: mistakes of the user's, and storage that fails."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path


class UserError(Exception):
    """What was asked cannot be done; the message is one line: the thing, what was given, what was expected."""


class StorageError(Exception):
    """A run's folder cannot be written any more; what was written before is whole."""

    def __init__(self, directory: Path, error: BaseException):
        reason = (error.strerror if isinstance(error, OSError) else None) or " ".join(str(error).split())[:200]
        super().__init__(f"cannot write {directory}: {reason}; what was written before is whole")


@contextmanager
def storing(directory: Path) -> Iterator[None]:
    """Tells what the system refuses to write as `StorageError`."""
    try:
        yield
    except OSError as error:
        raise StorageError(directory, error) from error


def unknown(what: str, given: str, known: Iterable[str]) -> UserError:
    """The error for a name that is none of `known`: names the nearest one, or all where none is near."""
    known = list(known)
    near = get_close_matches(given, known, n=1)
    hint = f"did you mean {near[0]!r}?" if near else f"choose from: {', '.join(known)}"
    return UserError(f"unknown {what} {given!r}; {hint}")

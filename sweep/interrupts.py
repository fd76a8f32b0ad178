"""Ctrl-C, and what schedulers send before they take a machine away, held back until a run can stop well."""

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType, TracebackType
from typing import Any

SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stop(KeyboardInterrupt):
    """A signal to stop was received, `number`; `together` if all of the run's processes know of it and stop."""

    def __init__(self, number: int, together: bool = False):
        super().__init__(signal.Signals(number).name)
        self.number = number
        self.together = together


class Interrupts:
    """A context in which the first signal is only noted, in `received`; a second one stops at once.

    Signals are the main thread's; in other threads the context changes nothing.
    """

    def __init__(self) -> None:
        self.received: int | None = None
        self._at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> "Interrupts":
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        again = self.received is not None
        self.received = number
        if self._at_once or again:
            raise Stop(number)

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Where nothing can be half done: a signal, and one that was noted before, raises `Stop`."""
        self.check()
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def check(self) -> None:
        """Raises `Stop` if a signal was received."""
        if self.received is not None:
            raise Stop(self.received)

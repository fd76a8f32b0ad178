"""Has the last word where this process cannot: a second process that outlives it.

JAX aborts a process whose others are gone, from a thread of its own and with many lines that name no run.
"""

import signal
import subprocess
import sys
from contextlib import suppress


class Watcher:
    """Prints a line to stderr when this process ends, unless it was told to be silent: the last it was given."""

    def __init__(self) -> None:
        self._process = subprocess.Popen([sys.executable, "-S", "-E", __file__], stdin=subprocess.PIPE, text=True)

    def will_say(self, line: str) -> None:
        """Gives it a line; an empty one is silence."""
        assert self._process.stdin is not None
        with suppress(BrokenPipeError):  # somebody has ended it
            self._process.stdin.write(line + "\n")
            self._process.stdin.flush()

    def end(self) -> None:
        """Ends it, silent."""
        self.will_say("")
        self._process.communicate()


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    last = ""
    for line in sys.stdin:  # to its end, which the system brings about if nobody does
        last = line
    if last.strip():
        sys.stderr.write(last)


if __name__ == "__main__":
    _main()

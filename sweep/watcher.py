"""Says so when this process of several ends without a word of its own: a second process that outlives it.

JAX ends a process whose others are gone, from a thread of its own and with many lines that name no run.
"""

import signal
import subprocess
import sys
from collections.abc import Callable


def watch(message: str) -> Callable[[], None]:
    """Has a message printed to stderr when this process ends, unless what is returned was called before."""
    watcher = subprocess.Popen([sys.executable, "-S", "-E", __file__, message], stdin=subprocess.PIPE)
    assert watcher.stdin is not None
    pipe = watcher.stdin

    def leave() -> None:
        pipe.write(b".")
        pipe.close()
        watcher.wait()

    return leave


def _main() -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    if not sys.stdin.buffer.read(1):  # the other end was closed by the system
        print(sys.argv[1], file=sys.stderr, flush=True)


if __name__ == "__main__":
    _main()

"""A process for each way to train: it starts cold, has its memory for itself, and takes its turns when told to."""

import multiprocessing
import resource
import sys
import time
import traceback
from dataclasses import dataclass
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import Float

from sweep.bench.way import ComparisonError, Workload


@dataclass(frozen=True)
class Cold:
    """What training from nothing took; imports and reading the data do not count, compiling does.

    Attributes:
      losses: of every step.
      seconds: until the last of these steps was done.
      compile_seconds: of these, compiling.
      peak_bytes: the most memory in use: the device's, or on CPUs the process's.
    """

    losses: Float[np.ndarray, "step member"]
    seconds: float
    compile_seconds: float
    peak_bytes: int


class Worker:
    """One way's process.

    Args:
      name: in `WAYS`.
      workload: what to train.
    """

    def __init__(self, name: str, workload: Workload):
        self._name = name
        context = multiprocessing.get_context("spawn")
        self._connection, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, name, workload), daemon=True)
        self._process.start()
        theirs.close()
        self._answer()

    def close(self) -> None:
        """Ends the process."""
        self._connection.close()
        self._process.join()

    def cold(self, steps: int) -> Cold:
        """Compiles, and trains so many steps; to be called first, and once."""
        return self._ask(steps)

    def turn(self, steps: int) -> float:
        """Seconds that as many more steps take."""
        return self._ask(steps)

    def _ask(self, steps: int) -> Any:
        self._connection.send(steps)
        return self._answer()

    def _answer(self) -> Any:
        try:
            answer = self._connection.recv()
        except EOFError:
            self._process.join()
            raise ComparisonError(f"{self._name} ended with exit code {self._process.exitcode}") from None
        if isinstance(answer, ComparisonError):
            raise answer
        return answer


def _serve(connection: Connection, name: str, workload: Workload) -> None:
    try:
        _take_turns(connection, name, workload)
    except (EOFError, KeyboardInterrupt):
        pass  # nobody asks any more
    except Exception:
        connection.send(ComparisonError(f"{name} failed:\n{traceback.format_exc()}"))


def _take_turns(connection: Connection, name: str, workload: Workload) -> None:
    from sweep.bench.ways import WAYS  # here, so that its imports do not count

    jax.config.update("jax_enable_compilation_cache", False)
    start = WAYS[name](workload)
    connection.send(None)
    steps = connection.recv()
    started = time.perf_counter()
    trainer = start()
    losses = trainer.take(0, steps)
    connection.send(Cold(losses, time.perf_counter() - started, trainer.compile_seconds, _peak_bytes()))
    while True:
        more = connection.recv()
        started = time.perf_counter()
        trainer.take(steps, more)
        connection.send(time.perf_counter() - started)
        steps += more


def _peak_bytes() -> int:
    if "torch" in sys.modules and (cuda := import_module("torch").cuda).is_available():
        return cuda.max_memory_allocated()
    device = jax.devices()[0].memory_stats()
    if device:
        return device["peak_bytes_in_use"]
    try:  # which, unlike `ru_maxrss`, does not begin with what the parent process had in use
        status = Path("/proc/self/status").read_text()
        return int(status.split("VmHWM:")[1].split()[0]) * 2**10
    except (OSError, IndexError):
        pass
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit

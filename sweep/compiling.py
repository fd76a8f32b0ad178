"""How programs are compiled: beside what comes next, quickly where that pays, and kept for the next run."""

import hashlib
import os
import platform
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from functools import partial
from pathlib import Path
from types import TracebackType

import jax
from jax.stages import Compiled, Lowered
from platformdirs import user_cache_path

# Programs that took less long to compile are not kept.
_LEAST_SECONDS = 0.1
# The least recently used ones are deleted beyond so many bytes.
_MOST_BYTES = 2**30


# One thread: XLA generates a program's code on all cores, and two threads compiled the quickstart no sooner than one
# (33 and 32 s, of two runs each).
_POOL = ThreadPoolExecutor(1, thread_name_prefix="compile")


class Compiler:
    """Compiles programs one after the other while the next is traced. A context: it ends with its last program."""

    def __init__(self) -> None:
        self._programs: list[Future[Compiled]] = []

    def __enter__(self) -> "Compiler":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            wait(self._programs)
        for program in self._programs:
            program.cancel()

    def compile(self, program: Lowered) -> Future[Compiled]:
        """Starts compiling a program that runs often."""
        return self._start(program.compile)

    def quickly(self, program: Lowered) -> Future[Compiled]:
        """Starts compiling a program whose own code takes little of its time.

        On CPUs the initialization compiles 5 times and the probes 1.4 times faster with fewer optimizations, and the
        probes run as fast: their time goes to LAPACK, to matrix products and to convolutions.
        """
        if jax.default_backend() != "cpu":
            return self.compile(program)
        return self._start(partial(program.compile, {"xla_backend_optimization_level": "1"}))

    def _start(self, compile_it: Callable[[], Compiled]) -> Future[Compiled]:
        self._programs.append(_POOL.submit(compile_it))
        return self._programs[-1]


def keep_programs() -> None:
    """Has JAX keep compiled programs in the user's cache folder for later processes.

    Not where JAX has been told of a folder already, or where this one cannot be written.
    """
    if jax.config.jax_compilation_cache_dir is not None:  # pyright: ignore[reportAttributeAccessIssue]
        return
    folder = user_cache_path("fathom") / f"programs-{_machine()}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError:
        return
    if os.access(folder, os.W_OK):
        for program in folder.glob("*-cache"):
            # A process that was killed as it wrote has left half an entry, which would keep JAX from writing any other.
            if not program.with_name(program.name.removesuffix("-cache") + "-atime").exists():
                program.unlink(missing_ok=True)
        jax.config.update("jax_compilation_cache_dir", str(folder))
        # What the user has set stays.
        if "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS" not in os.environ:
            jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
        if "JAX_COMPILATION_CACHE_MAX_SIZE" not in os.environ:
            jax.config.update("jax_compilation_cache_max_size", _MOST_BYTES)


def _machine() -> str:
    """A digest of what this CPU can do, which JAX does not ask of the programs that it finds.

    A home folder may be seen by machines of several kinds, and code for one may not run on another.
    """
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    features = next((line for line in lines if line.startswith(("flags", "Features"))), platform.processor())
    return hashlib.sha256(f"{platform.machine()} {features}".encode()).hexdigest()[:12]

"""Shapes in signatures are checked in every test; tests that need double precision ask for it.

Most of the tests' time is XLA compiling, much of it the same programs: a cache in pytest's own folder keeps them from
one session to the next, and shares them with the processes that tests start. XLA is told not to optimize much; the
README's commands are where programs run as users run them.
"""

import gc
import os
import shutil
from pathlib import Path

_CACHE = Path(__file__).parents[1] / ".pytest_cache" / "programs"
_MOST_BYTES = 2**30
_FLAGS = [
    "--xla_backend_optimization_level=0",
    "--xla_force_host_platform_device_count=8",  # for tests of what devices share
]
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": " ".join([*_FLAGS, os.environ.get("XLA_FLAGS", "")]),
    "JAX_COMPILATION_CACHE_DIR": str(_CACHE),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}
_IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if not _IS_WORKER and sum(file.stat().st_size for file in _CACHE.glob("*")) > _MOST_BYTES:
    shutil.rmtree(_CACHE)

from jaxtyping import install_import_hook

install_import_hook(["kernels", "nets", "probes", "sweep", "analysis"], "beartype.beartype")

import jax
import pytest
from jax.experimental import pallas as pl

# Linux gives a process 65,530 mappings of memory. A compiled program takes some, JAX keeps all programs, and the tests
# of one worker compile so many that LLVM, at the end, gets no more, and crashes.
_MANY_MAPPINGS = 50_000


@pytest.fixture(autouse=True)
def few_programs():
    """Has JAX forget its programs when there are many."""
    yield
    mappings = Path("/proc/self/maps")
    if mappings.exists() and mappings.read_bytes().count(b"\n") > _MANY_MAPPINGS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def double():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def kernel_calls(monkeypatch):
    """A list with an entry for every call of a Pallas kernel that is traced from now on."""
    calls, pallas_call = [], pl.pallas_call
    monkeypatch.setattr(pl, "pallas_call", lambda *args, **settings: calls.append(1) or pallas_call(*args, **settings))
    return calls

"""Shapes in signatures are checked in every test; tests that need double precision ask for it.

Most of the tests' time is XLA compiling, much of it the same programs: a cache that lives as long as the session shares
them between tests, and with the processes that tests start, and LLVM is told not to optimize, which takes a third off.
The README's commands are where programs run as users run them.
"""

import gc
import os
import tempfile
from pathlib import Path

if "PYTEST_XDIST_WORKER" not in os.environ:  # workers share the cache of the process that started them
    _CACHE = tempfile.TemporaryDirectory(prefix="fathom-tests-")
    os.environ["JAX_COMPILATION_CACHE_DIR"] = _CACHE.name
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "XLA_FLAGS": " ".join(
        (
            "--xla_backend_optimization_level=0",
            "--xla_force_host_platform_device_count=8",  # for tests of what devices share
            os.environ.get("XLA_FLAGS", ""),
        )
    ),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.1",
}

from jaxtyping import install_import_hook

install_import_hook(["kernels", "nets", "probes", "sweep", "analysis"], "beartype.beartype")

import jax
import pytest
from jax.experimental import pallas as pl

# Linux gives a process 65,530 mappings of memory. A compiled program takes some, JAX keeps all programs, and the tests
# of one worker compile so many that LLVM, at the end, gets no more, and crashes.
_MANY_MAPPINGS = 20_000


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

"""Compiled programs: beside what comes next, and kept where the user has a folder for such things."""

import os
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import pytest
from jax.stages import Lowered

from sweep.compiling import Compiler

PROGRAM = """
import jax
from sweep.compiling import keep_programs
keep_programs()
print(jax.config.jax_compilation_cache_dir)
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
jax.jit(lambda x: jax.random.normal(x, (3,)))(jax.random.key(0))
"""


def folder_of(**settings):
    """Where a process with these variables keeps its programs."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_")}
    command = [sys.executable, "-c", PROGRAM]
    ran = subprocess.run(command, check=True, env=environment | settings, capture_output=True, text=True)
    assert "Traceback" not in ran.stderr
    return ran.stdout.strip()


@pytest.mark.skipif(sys.platform != "linux", reason="the user's cache folder has another name elsewhere")
def test_programs_are_kept_in_the_users_cache_folder(tmp_path):
    folder = folder_of(XDG_CACHE_HOME=str(tmp_path))
    assert folder.startswith(str(tmp_path / "fathom" / "programs-"))
    kept = {name for name in os.listdir(folder) if name.endswith("-cache")}
    assert kept
    assert folder_of(XDG_CACHE_HOME=str(tmp_path)) == folder
    assert {name for name in os.listdir(folder) if name.endswith("-cache")} == kept, "the second process found them"


@pytest.mark.slow
def test_another_folder_or_none(tmp_path):
    assert folder_of(JAX_COMPILATION_CACHE_DIR=str(tmp_path / "mine")) == str(tmp_path / "mine")
    (tmp_path / "file").touch()
    assert folder_of(XDG_CACHE_HOME=str(tmp_path / "file")) == "None"


def test_several_programs_at_once():
    with Compiler() as compiler:
        square = compiler.compile(jax.jit(lambda x: x * x).lower(jnp.float32(0)))
        double = compiler.quickly(jax.jit(lambda x: x + x).lower(jnp.float32(0)))
    assert (square.result()(jnp.float32(3)), double.result()(jnp.float32(3))) == (9, 6)


class Slow(Lowered):
    """Stands for a traced program; knows how many of its kind are being compiled."""

    running, most = 0, 0

    def __init__(self):
        pass

    def compile(self, options=None):
        Slow.running += 1
        Slow.most = max(Slow.most, Slow.running)
        time.sleep(0.02)
        Slow.running -= 1


def test_one_after_the_other():
    left = []

    def trace():
        with Compiler() as compiler:
            left.extend((compiler.compile(Slow()), compiler.compile(Slow())))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace()
    assert left[1].cancelled(), "nobody waits for it any more"
    with Compiler() as compiler:  # while the first one of the other may still be at it
        compiler.compile(Slow())
        compiler.quickly(Slow())
    assert (Slow.most, Slow.running) == (1, 0)


def test_a_mistake_while_tracing_comes_through():
    def trace():
        with Compiler() as compiler:
            compiler.compile(jax.jit(lambda x: x * x).lower(jnp.float32(0)))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trace()

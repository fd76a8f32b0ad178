"""Shapes in signatures are checked in every test; tests that need double precision ask for it."""

import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from jaxtyping import install_import_hook

install_import_hook(["kernels", "nets", "probes", "sweep", "analysis"], "beartype.beartype")

import jax
import pytest


@pytest.fixture
def double():
    """Double precision for one test."""
    with jax.enable_x64(True):
        yield

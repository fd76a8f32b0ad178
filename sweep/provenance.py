"""Where a run's numbers came from: versions, devices, commit, command."""

import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jax


def _commit() -> str | None:
    """The source's git commit, marked where the tree differs from it; None outside a checkout."""
    folder = Path(__file__).parent
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--dirty", "--abbrev=12"],
            cwd=folder,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()


def provenance() -> dict[str, Any]:
    """What is known before a run starts."""
    packages = ("jax", "jaxlib", "flax", "optax", "numpy", "xarray", "zarr")
    return {
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "commit": _commit(),
        "python": platform.python_version(),
        "versions": {package: version(package) for package in packages},
        "platform": platform.platform(),
        "devices": [device.device_kind for device in jax.devices()],
        "backend": jax.default_backend(),
        "double_precision": bool(jax.config.read("jax_enable_x64")),
    }

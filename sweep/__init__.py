"""How many members become one program, and one program a run."""

from sweep.config import Config
from sweep.errors import StorageError, UserError
from sweep.processes import ElsewhereError, LostError, Place, joined
from sweep.record import config_of
from sweep.run import Interrupted, plan, resume, run

__all__ = [
    "Config",
    "ElsewhereError",
    "Interrupted",
    "LostError",
    "Place",
    "StorageError",
    "UserError",
    "config_of",
    "joined",
    "plan",
    "resume",
    "run",
]

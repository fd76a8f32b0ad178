"""How many members become one program, and one program a run."""

from sweep.config import Config
from sweep.errors import StorageError, UserError
from sweep.run import Interrupted, config_of, plan, resume, run

__all__ = ["Config", "Interrupted", "StorageError", "UserError", "config_of", "plan", "resume", "run"]

"""How many members become one program, and one program a run."""

from sweep.config import Config
from sweep.errors import UserError
from sweep.run import Interrupted, run

__all__ = ["Config", "Interrupted", "UserError", "run"]

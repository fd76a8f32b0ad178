"""Ensembles too large for memory, split into the fewest that train one after the other."""

from collections.abc import Sequence
from itertools import pairwise
from math import ceil

from sweep.config import Config
from sweep.devices import Grid
from sweep.engine import Data, Engine
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.members import Member, Structure
from sweep.memory import step_bytes


def waves(structure: Structure, members: Sequence[Member], grid: Grid, count: int) -> list[Ensemble]:
    """The members of one structure as so many ensembles.

    Each is a run of neighbours in the members' order, so that what it measures is a block of the results.
    """
    return [Ensemble.of(structure, part, grid) for part in _parts(members, count)]


def fewest_waves(
    config: Config, structure: Structure, members: Sequence[Member], grid: Grid, data: Data, available: int | None
) -> list[Ensemble]:
    """`waves`, of the fewest that each fit in so many bytes; one where nobody knows.

    Raises:
      UserError: one member alone does not fit.
    """
    count = 1
    while True:
        found = waves(structure, members, grid, count)
        if available is None:
            return found
        largest = max(step_bytes(Engine(config, ensemble), data) for ensemble in found)
        if largest <= available:
            return found
        if count == len(members):
            deepest = max(member.depth for member in members)
            raise UserError(
                f"one network of depth {deepest} takes {largest / 1e9:.2f} GB to train, and there are "
                f"{available / 1e9:.2f}; a smaller --batch-size or --width or --remat sqrt takes less"
            )
        # So many at least, were all members alike.
        count = min(max(count + 1, ceil(count * largest / max(available, 1))), len(members))


def _parts(members: Sequence[Member], count: int) -> list[tuple[Member, ...]]:
    """So many runs of neighbours, of sizes as equal as can be."""
    size, larger = divmod(len(members), count)
    ends = [size * k + min(k, larger) for k in range(count + 1)]
    return [tuple(members[start:end]) for start, end in pairwise(ends)]

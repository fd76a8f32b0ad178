"""Which devices a sweep uses, as it was asked for or by itself."""

from collections.abc import Sequence

import jax

from sweep.devices import Grid
from sweep.errors import UserError, unknown
from sweep.members import Member
from sweep.placement import shard_count

_AXES = ("members", "batch")


def read_mesh(text: str) -> dict[str, int]:
    """The sizes that a text like `members=4,batch=2` names.

    Raises:
      UserError: it names something else.
    """
    sizes: dict[str, int] = {}
    for part in text.split(","):
        axis, _, size = part.partition("=")
        if axis not in _AXES:
            raise unknown("--mesh axis", axis, _AXES)
        if axis in sizes:
            raise UserError(f"--mesh gives {axis} twice, got {text!r}")
        if not size.isascii() or not size.isdigit() or int(size) < 1:
            raise UserError(f"--mesh {axis} takes a number of devices, 1 at least, got {size!r}")
        sizes[axis] = int(size)
    return sizes


def grid_for(mesh: str | None, structures: Sequence[Sequence[Member]], devices: int, processes: int = 1) -> Grid:
    """The devices that programs with these members train on.

    Args:
      mesh: what was asked for, as `read_mesh` reads it. By default batches are not shared, and members are spread over
        all devices, or over the fewest on which they are done as soon.
      structures: the members of each program.
      devices: how many there are.
      processes: whose they are; of several, all devices are used, for each must have some.

    Raises:
      UserError: there are fewer devices than were asked for, or some of several processes' were not.
    """
    sizes = {} if mesh is None else read_mesh(mesh)
    batch = sizes.get("batch", 1)
    most = max(devices // batch, 1)
    soonest = max(shard_count(members, most) for members in structures) if processes == 1 else most
    grid = Grid(sizes.get("members", soonest), batch)
    if grid.size > devices:
        hint = f"; JAX_NUM_CPU_DEVICES={grid.size} makes as many of a CPU" if jax.default_backend() == "cpu" else ""
        raise UserError(f"--mesh {mesh} takes {grid.size} devices, and there are {devices}{hint}")
    if processes > 1 and grid.size < devices:
        raise UserError(f"--mesh of {processes} processes takes all of their {devices} devices, got {grid.size}")
    return grid

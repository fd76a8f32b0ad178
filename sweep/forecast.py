"""What a sweep would take: its programs, their work and memory, and the time that a few timed steps let expect."""

import time
from dataclasses import dataclass

import jax
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

from sweep.config import Config
from sweep.engine import Data, Engine
from sweep.ensemble import Ensemble
from sweep.flops import count_flops
from sweep.memory import program_bytes, step_bytes

_STEPS = 4  # timed, after as many that are not


@dataclass(frozen=True)
class Forecast:
    """Of one program.

    Attributes:
      title: its structure.
      members, devices: how many.
      flops: floating-point operations of a step of all members.
      estimated, compiled: bytes on all devices, from shapes alone and by XLA's own analysis (None where it has none).
      seconds: a step's.
    """

    title: str
    members: int
    devices: int
    flops: int
    estimated: int
    compiled: int | None
    seconds: float


def forecast(config: Config, ensemble: Ensemble, data: Data) -> Forecast:
    """Compiles an ensemble's training and takes a few steps of it; nothing is kept."""
    engine = Engine(config, ensemble)
    samples, grid = len(data.train_labels), ensemble.grid
    outline = grid.sharded(engine.init.eval_shape(ensemble.traits, samples))
    program = engine.train.lower(outline, data, np.int32(0)).compile()
    one = program_bytes(program)
    state = engine.init(ensemble.traits, samples)
    seconds = 0.0
    for _ in range(2):
        clock = time.perf_counter()
        state, losses = program(state, data, np.int32(_STEPS))
        jax.block_until_ready(losses)
        seconds = (time.perf_counter() - clock) / _STEPS
    # The loop over a call's steps has no trip count of its own: its body is counted once.
    return Forecast(
        f"{ensemble.structure.arch} norm={ensemble.structure.norm}",
        len(set(ensemble.members)),
        grid.size,
        grid.size * count_flops(program.as_text() or ""),
        step_bytes(engine, data),
        None if one is None else one * grid.size,
        seconds,
    )


def show(forecasts: list[Forecast], steps: int, available: int | None, console: Console) -> None:
    """A line a program, and what all of them take together."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for name in ("program", "members", "FLOP/step", "GB", "compiled", "ms/step", "training"):
        table.add_column(name, justify="left" if name == "program" else "right", no_wrap=True)
    for one in forecasts:
        compiled = "-" if one.compiled is None else f"{one.compiled / 1e9:.3f}"
        table.add_row(
            one.title,
            str(one.members),
            f"{one.flops:.3g}",
            f"{one.estimated / 1e9:.3f}",
            compiled,
            f"{1e3 * one.seconds:.1f}",
            _duration(steps * one.seconds),
        )
    console.print(table)
    total = sum(one.seconds for one in forecasts) * steps
    room = "" if available is None else f"; {available / 1e9:.1f} GB are available"
    members = sum(one.members for one in forecasts)
    console.print(
        f"{members} members in {len(forecasts)} programs on {forecasts[0].devices} devices, {steps} steps: "
        f"{_duration(total)} of training, compiling and measuring not counted. GB are of all devices, from the arrays' "
        f"shapes and from the compiled program{room}.",
        highlight=False,
        soft_wrap=True,
    )


def _duration(seconds: float) -> str:
    for size, unit in ((86400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"

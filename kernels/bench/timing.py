"""Times contestants in turns, on inputs that caches do not hold."""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import jax
import numpy as np

from kernels.bench.contestants import CONTESTANTS, PARTS, Inputs, Ready, inputs
from kernels.bench.workloads import Workload

# A turn lasts about this long, many calls of what is quick.
_TURN = 0.02
# Between turns: threads of the turn before, such as OpenMP's, go on spinning on a core for some milliseconds.
_PAUSE = 0.02
# Of inputs; enough for all that is worth timing.
_MOST_SETS = 256


@dataclass(frozen=True)
class Result:
    """One contestant's part of one workload; times in seconds a call, `share` of the copy's bandwidth."""

    workload: str
    contestant: str
    part: str
    median: float
    lower_quartile: float
    upper_quartile: float
    gigabytes_per_second: float
    share_of_copy: float
    compile_seconds: float
    temporary_bytes: float


def _last_level_cache() -> int:
    """Bytes of the largest cache: the CPU's as Linux tells it, or enough for any accelerator's."""
    if jax.default_backend() == "cpu":
        sizes = [path.read_text().strip() for path in Path("/sys/devices/system/cpu/cpu0/cache").glob("index*/size")]
        units = {"K": 2**10, "M": 2**20}
        return max((int(size[:-1]) * units[size[-1]] for size in sizes), default=2**25)
    return 2**27


def compare(workload: Workload, names: Sequence[str], rounds: int) -> Iterator[Result]:
    """Every contestant's results on one workload."""
    copies = min(_MOST_SETS, max(2, math.ceil(2 * _last_level_cache() / workload.bytes)))
    sets = [inputs(workload, jax.random.key(i)) for i in range(copies)]
    ready = {name: CONTESTANTS[name](workload, sets[0]) for name in names}
    runs = [(name, part) for part in PARTS for name in names if part in ready[name].parts]
    times: dict[tuple[str, str], list[float]] = {run: [] for run in runs}
    calls = {run: _warm_up(ready[run[0]], run[1], sets) for run in runs}
    for _ in range(rounds):
        for run in runs:
            part, count = ready[run[0]].parts[run[1]], calls[run]
            time.sleep(_PAUSE)
            wait = ready[run[0]].wait
            wait(part(sets[-1]))
            result, started = None, time.perf_counter()
            for i in range(count):
                result = part(sets[i % copies])
            wait(result)
            times[run].append((time.perf_counter() - started) / count)
    copy = 2 * workload.bytes / float(np.median(times["copy", "forward"]))
    for name, part in runs:
        lower, median, upper = np.percentile(times[name, part], (25, 50, 75)).tolist()
        traffic = 2 * workload.bytes if name == "copy" else workload.traffic(part)
        speed = traffic / median
        yield Result(
            workload.name,
            name,
            part,
            median,
            lower,
            upper,
            speed / 1e9,
            speed / copy,
            ready[name].compile_seconds,
            ready[name].temporary if part == "both" else math.nan,
        )


def _warm_up(contestant: Ready, name: str, sets: Sequence[Inputs]) -> int:
    """Runs a part once on every set of inputs; how many calls then fill a turn."""
    part = contestant.parts[name]
    for each in sets:
        contestant.wait(part(each))
    started = time.perf_counter()
    contestant.wait(part(sets[0]))
    return max(1, math.ceil(_TURN / (time.perf_counter() - started)))

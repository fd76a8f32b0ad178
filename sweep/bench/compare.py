"""Ways side by side: cold starts one after another, then turns in alternation."""

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sweep.bench.products import products
from sweep.bench.way import ComparisonError, Workload
from sweep.bench.ways import LIMIT, OURS
from sweep.bench.worker import Cold, Worker

# Seconds that a turn lasts, in whole steps.
_TURN = 3.0
# Steps whose losses are compared member by member.
_ALIKE = 3
# How far apart, relatively, these may be before the first step, by precision: deep networks amplify roundings.
_APART = {"full": 1e-4, "bfloat16": 0.2}


@dataclass(frozen=True)
class Result:
    """One way's numbers on one workload.

    Attributes:
      workload, way: which.
      step, lower_quartile, upper_quartile: seconds a step of all members, median and quartiles over turns.
      compile_seconds: of a cold start.
      steps, cold_seconds: a cold start's steps, and until when they were done.
      peak_bytes: the most memory in use in the cold start.
      gigaflops: matrix products' operations a second of a median step, in 10⁹.
      share_of_limit: the products' own time over the step's, NaN where it was not measured.
    """

    workload: str
    way: str
    step: float
    lower_quartile: float
    upper_quartile: float
    compile_seconds: float
    steps: int
    cold_seconds: float
    peak_bytes: int
    gigaflops: float
    share_of_limit: float


def compare(workload: Workload, label: str, names: Sequence[str], rounds: int) -> Iterator[str | list[Result]]:
    """Measures the named ways; yields what it is doing, and at last the results.

    Raises:
      ComparisonError: a way failed, or does not train to the same losses.
    """
    steps = workload.config.steps
    operations = products(workload)
    colds: dict[str, Cold] = {}
    with ExitStack() as stack:
        workers: dict[str, Worker] = {}
        for name in names:
            yield f"{label}: {name}, {steps} steps from a cold start"
            workers[name] = stack.enter_context(closing(Worker(name, workload)))
            colds[name] = workers[name].cold(steps)
        trained = [name for name in (OURS, *names) if name in colds and name != LIMIT]
        for name in trained[1:]:
            check_alike(
                trained[0], name, colds[trained[0]].losses, colds[name].losses, _APART[workload.config.precision]
            )
        counts = {
            name: int(np.clip(_TURN * steps / (cold.seconds - cold.compile_seconds), 1, 1000))
            for name, cold in colds.items()
        }
        times: dict[str, list[float]] = {name: [] for name in names}
        for turn in range(rounds):
            yield f"{label}: turn {turn + 1} of {rounds}"
            for name, worker in workers.items():
                times[name].append(worker.turn(counts[name]) / counts[name])
    limit = float(np.median(times.get(LIMIT, [np.nan])))
    results = []
    for name, cold in colds.items():
        lower, median, upper = np.percentile(times[name], (25, 50, 75)).tolist()
        results.append(
            Result(
                label,
                name,
                median,
                lower,
                upper,
                cold.compile_seconds,
                steps,
                cold.seconds,
                cold.peak_bytes,
                operations / median / 1e9,
                limit / median,
            )
        )
    yield results


def check_alike(
    one: str,
    other: str,
    ours: Float[np.ndarray, "step member"],
    theirs: Float[np.ndarray, "step member"],
    apart_at_first: float = _APART["full"],
) -> None:
    """Ends a comparison of two ways that do not train the same networks.

    Rounding, the only difference there may be, grows in a network with its depth and at every step. The losses before
    the first step are compared member by member; of those of the next two steps the median of the relative differences
    is bounded, and nine in ten of them loosely; all others by the difference of the medians, to a tenth of a nat.
    Members that diverge in both ways are left out. (Tests compare every loss, in double precision.)

    Raises:
      ComparisonError: their losses differ.
    """
    for step, (our, their) in enumerate(zip(ours, theirs, strict=True)):
        finite = np.isfinite(our) & np.isfinite(their)
        alike = step >= _ALIKE or bool((np.isfinite(our) == np.isfinite(their)).all())
        if finite.any() and step >= _ALIKE:
            alike &= bool(abs(np.median(our[finite]) - np.median(their[finite])) < 0.1)
        elif finite.any():  # relatively: no network has learned its batch yet, whose loss would be 0
            apart = np.abs(our - their)[finite] / np.abs(our)[finite]
            nearly_all, bound = (1.0, apart_at_first) if step == 0 else (0.9, 500 * apart_at_first)
            alike &= bool(np.quantile(apart, nearly_all) < bound and np.median(apart) < apart_at_first * 4**step)
        if not alike:
            raise ComparisonError(f"the losses of {one} and of {other} differ at step {step}: {our} and {their}")

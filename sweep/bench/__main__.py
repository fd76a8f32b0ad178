"""`python -m sweep.bench`: a training step of a sweep's members, all together and as a loop over Flax networks.

Both ways start from the same weights and see the same batches, and their losses are compared. Takes the flags of
`train.py`, and `--rounds`.
"""

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array
from rich.console import Console
from rich.table import Table

from sweep.bench.unrolled import Unrolled
from sweep.cli import parse
from sweep.config import Config
from sweep.data import Dataset, load
from sweep.devices import use_every_core
from sweep.engine import Engine, compile_quickly, put
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.members import Member, Structure
from sweep.placement import shard_count
from sweep.plan import structures_of
from sweep.run import check_sizes, steps_in_a_call

# Steps whose losses are compared member by member.
_ALIKE = 3

Take = Callable[[int, int], np.ndarray]


@dataclass(frozen=True)
class Way:
    """One way to train the members: `take(first, count)` takes steps of all, and returns `[step, member]` losses."""

    take: Take
    compile_seconds: float


def ensemble(config: Config, structure: Structure, members: tuple[Member, ...], dataset: Dataset) -> Way:
    """fathom: all members in one program, on all devices."""
    shards = shard_count(members, jax.device_count())
    together, data = Ensemble.of(structure, members, shards), put(dataset, shards)
    engine = Engine(config, together)
    init = compile_quickly(engine.init.lower(engine, together.traits, len(data.train_labels)))
    box = [init(together.traits)]
    started = time.perf_counter()
    train = engine.train.lower(engine, box[0], data, jnp.int32(0)).compile()
    seconds = time.perf_counter() - started

    def take(first: int, count: int) -> np.ndarray:
        del first  # the state counts
        box[0], losses = train(box[0], data, jnp.int32(count))
        return together.by_member(jnp.swapaxes(losses, 1, 2), members)[:, :count].T

    return Way(take, seconds)


def flax_loop(config: Config, structure: Structure, members: tuple[Member, ...], dataset: Dataset) -> Way:
    """A Python loop over unrolled Flax networks; those of one kind and depth share a program."""
    together, data = Ensemble.of(structure, members), put(dataset)
    engine = Engine(config, together)
    traits = jax.tree.map(lambda array: array[0], together.traits)
    optimizer = optax.sgd(config.learning_rates[0], momentum=config.momentum)
    programs: dict[tuple[str, int], Any] = {}
    states: list[Any] = []
    started = time.perf_counter()
    seconds = 0.0
    batch = jax.jit(lambda order, step: engine.batch(traits, order, step, data))
    order = jnp.zeros((len(traits.seeds), len(data.train_labels)), jnp.int32)
    batch = batch.lower(order, jnp.int32(0)).compile()
    example = batch(order, jnp.int32(0))
    seconds += time.perf_counter() - started
    for member in together.members:
        graphdef, params, rest = nnx.split(Unrolled(member.build(structure)), nnx.Param, ...)
        params, rest = nnx.as_pure((params, rest))
        states.append((params, rest, optimizer.init(params)))
        kind = member.net, member.depth
        if kind not in programs:
            started = time.perf_counter()
            one = jax.jit(_flax_step(graphdef, optimizer), donate_argnums=0)
            programs[kind] = one.lower(states[-1], example[1][0], example[2][0]).compile()
            seconds += time.perf_counter() - started
    box = [order]

    def take(first: int, count: int) -> np.ndarray:
        losses = []
        for index in range(first, first + count):
            box[0], x, labels = batch(box[0], jnp.int32(index))
            for i, member in enumerate(together.members):
                states[i], loss = programs[member.net, member.depth](states[i], x[i], labels[i])
                losses.append(loss)
        by_step = jnp.stack(losses).reshape(count, len(together.members))
        return together.by_member(by_step.T[None], members).T

    return Way(take, seconds)


def _flax_step(graphdef: nnx.GraphDef, optimizer: optax.GradientTransformation) -> Callable[..., Any]:
    def step(state: Any, x: Array, labels: Array) -> Any:
        params, rest, moments = state

        def loss(params: nnx.State) -> Any:
            model = nnx.merge(graphdef, params, rest)
            by_sample = optax.softmax_cross_entropy_with_integer_labels(model(x), labels)
            return by_sample.mean(), nnx.as_pure(nnx.state(model, nnx.Not(nnx.Param)))

        (value, updated), gradients = jax.value_and_grad(loss, has_aux=True)(params)
        updates, moments = optimizer.update(gradients, moments, params)
        return (optax.apply_updates(params, updates), updated, moments), value

    return step


WAYS: dict[str, Callable[[Config, Structure, tuple[Member, ...], Dataset], Way]] = {
    "fathom": ensemble,
    "loop over Flax networks": flax_loop,
}


def compare(config: Config, rounds: int, console: Console) -> dict[str, tuple[np.ndarray, float]]:
    """Seconds a step in every turn of every way, and its seconds of compilation.

    A turn takes as many steps as a call of a run would.

    Raises:
      UserError: the settings are not those that both ways have.
    """
    if (config.optimizer, config.schedule, config.warmup_steps) != ("sgd", "constant", 0) or config.weight_decay:
        raise UserError("sweep.bench compares SGD at a constant rate; drop --optimizer, --schedule and --weight-decay")
    if len(config.norms) != 1 or len(config.learning_rates) != 1:
        raise UserError("sweep.bench takes one of --norms and one of --learning-rates")
    dataset = load(config.dataset, config.data_dir)
    check_sizes(config, dataset)
    ((structure, members),) = structures_of(config, dataset.image_shape, dataset.classes).items()
    use_every_core()
    ways = {}
    for name, make in WAYS.items():
        with console.status(f"compiling {name}"):
            ways[name] = make(config, structure, members, dataset)
    times: dict[str, list[float]] = {name: [] for name in ways}
    step, count = 0, 1
    for turn in range(rounds + 2):
        losses = {}
        for name, way in ways.items():
            started = time.perf_counter()
            losses[name] = way.take(step, count)
            times[name].append((time.perf_counter() - started) / count)
        ours, theirs = losses.values()
        for i, (our, their) in enumerate(zip(ours, theirs, strict=True), start=step):
            _check_alike(i, our, their)
        step += count
        if turn == 1:  # the turn before touched everything for the first time
            count = steps_in_a_call(times["fathom"][1])
    return {name: (np.asarray(times[name][2:]), ways[name].compile_seconds) for name in ways}


def _check_alike(step: int, ours: np.ndarray, theirs: np.ndarray) -> None:
    """Ends a comparison of two ways that do not train the same networks.

    Rounding, the only difference there may be, grows at every step of a deep network's training: the first steps are
    compared member by member, those after them by the median over members, to a tenth of a nat.

    Raises:
      RuntimeError: their losses before a step differ.
    """
    if step < _ALIKE:
        alike = np.allclose(ours, theirs, rtol=1e-4 * 4**step, equal_nan=True)
    else:
        alike = np.isclose(np.nanmedian(ours), np.nanmedian(theirs), rtol=0, atol=0.1)
    if not alike:
        raise RuntimeError(f"the losses of step {step} differ: {ours} and {theirs}")


def _rounds(arguments: list[str]) -> tuple[int, list[str]]:
    """How many rounds are asked for, and the other arguments."""
    if "--rounds" not in arguments:
        return 7, arguments
    at = arguments.index("--rounds")
    if at + 1 == len(arguments):
        raise UserError("--rounds is empty; give a value")
    given = arguments[at + 1]
    if not given.isdecimal() or int(given) < 1:
        raise UserError(f"--rounds takes a whole number of at least 1, got {given!r}")
    return int(given), arguments[:at] + arguments[at + 2 :]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the benchmark as the command line says; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        rounds, arguments = _rounds(arguments)
        found = compare(parse(arguments), rounds, console)
    except UserError as error:
        print(f"python -m sweep.bench: error: {error}", file=sys.stderr)
        return 2
    ours = np.median(found["fathom"][0]), found["fathom"][1]
    drawn = Table("", "step, s", "quartiles", "times fathom's", "compile, s", "times fathom's")
    for name, (seconds, compiling) in found.items():
        lower, median, upper = np.percentile(seconds, (25, 50, 75))
        drawn.add_row(
            name,
            f"{median:.3f}",
            f"{lower:.3f} - {upper:.3f}",
            f"{median / ours[0]:.2f}",
            f"{compiling:.1f}",
            f"{compiling / ours[1]:.2f}",
        )
    console.print(drawn)
    return 0


if __name__ == "__main__":
    sys.exit(main())

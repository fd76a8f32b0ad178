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
from sweep.data import load
from sweep.engine import Data, Engine, compile_quickly, put
from sweep.ensemble import Ensemble
from sweep.errors import UserError
from sweep.plan import structures_of
from sweep.run import check_sizes

Step = Callable[[int], np.ndarray]


@dataclass(frozen=True)
class Way:
    """One way to train the members: `step(i)` takes step i of all and returns the losses before it, by member."""

    step: Step
    compile_seconds: float


def ensemble(config: Config, members: Ensemble, data: Data) -> Way:
    """fathom: all members in one program."""
    engine = Engine(config, members)
    state = compile_quickly(engine.init.lower(engine, len(data.train_labels)))()
    started = time.perf_counter()
    train = engine.train.lower(engine, state, data, jnp.int32(0)).compile()
    seconds = time.perf_counter() - started
    box = [state]

    def step(index: int) -> np.ndarray:
        del index  # the state counts
        box[0], losses = train(box[0], data, jnp.int32(1))
        return np.asarray(losses[0])

    return Way(step, seconds)


def flax_loop(config: Config, members: Ensemble, data: Data) -> Way:
    """A Python loop over unrolled Flax networks; those of one kind and depth share a program."""
    engine = Engine(config, members)
    optimizer = optax.sgd(config.learning_rates[0], momentum=config.momentum)
    programs: dict[tuple[str, int], Any] = {}
    states: list[Any] = []
    started = time.perf_counter()
    seconds = 0.0
    batch = jax.jit(lambda order, step: engine.batch(order, step, data))
    order = jnp.zeros((len(engine.seeds), len(data.train_labels)), jnp.int32)
    batch = batch.lower(order, jnp.int32(0)).compile()
    example = batch(order, jnp.int32(0))
    seconds += time.perf_counter() - started
    for member in members.members:
        graphdef, params, rest = nnx.split(Unrolled(member.build(members.structure)), nnx.Param, ...)
        params, rest = nnx.as_pure((params, rest))
        states.append((params, rest, optimizer.init(params)))
        kind = member.net, member.depth
        if kind not in programs:
            started = time.perf_counter()
            one = jax.jit(_flax_step(graphdef, optimizer), donate_argnums=0)
            programs[kind] = one.lower(states[-1], example[1][0], example[2][0]).compile()
            seconds += time.perf_counter() - started
    box = [order]

    def step(index: int) -> np.ndarray:
        box[0], x, labels = batch(box[0], jnp.int32(index))
        losses = []
        for i, member in enumerate(members.members):
            states[i], loss = programs[member.net, member.depth](states[i], x[i], labels[i])
            losses.append(loss)
        return np.asarray(jnp.stack(losses))

    return Way(step, seconds)


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


WAYS: dict[str, Callable[[Config, Ensemble, Data], Way]] = {"fathom": ensemble, "loop over Flax networks": flax_loop}


def compare(config: Config, rounds: int, console: Console) -> dict[str, tuple[np.ndarray, float]]:
    """Seconds of every step of every way, in turns, and its seconds of compilation.

    Raises:
      UserError: the settings are not those that both ways have.
    """
    if (config.optimizer, config.schedule, config.warmup_steps) != ("sgd", "constant", 0) or config.weight_decay:
        raise UserError("sweep.bench compares SGD at a constant rate; drop --optimizer, --schedule and --weight-decay")
    if len(config.norms) != 1 or len(config.learning_rates) != 1:
        raise UserError("sweep.bench takes one of --norms and one of --learning-rates")
    dataset = load(config.dataset, config.data_dir)
    check_sizes(config, dataset)
    data = put(dataset)
    ((structure, members),) = structures_of(config, dataset.image_shape, dataset.classes).items()
    together = Ensemble.of(structure, members)
    ways = {}
    for name, make in WAYS.items():
        with console.status(f"compiling {name}"):
            ways[name] = make(config, together, data)
    times: dict[str, list[float]] = {name: [] for name in ways}
    for index in range(rounds + 1):
        losses = {}
        for name, way in ways.items():
            started = time.perf_counter()
            losses[name] = way.step(index)
            times[name].append(time.perf_counter() - started)
        ours, theirs = losses.values()
        # The same but for rounding, which training deep networks amplifies at every step.
        if not np.allclose(ours, theirs, rtol=min(1e-4 * 4**index, 0.05), equal_nan=True):
            raise RuntimeError(f"the losses of step {index} differ: {ours} and {theirs}")
    return {name: (np.asarray(times[name][1:]), ways[name].compile_seconds) for name in ways}


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

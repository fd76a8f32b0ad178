"""Training an ensemble: one compiled program that takes many steps, data and state staying on the device."""

from dataclasses import dataclass, field
from typing import NamedTuple, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array, lax
from jaxtyping import Float, Int, PyTree, UInt8

from sweep.augmentations import AUGMENTATIONS
from sweep.config import PRECISIONS, Config
from sweep.data import Dataset
from sweep.devices import ONE_DEVICE, Grid
from sweep.ensemble import Ensemble, Parts
from sweep.members import Traits, augmentation_key, data_key
from sweep.optimizers import OPTIMIZERS, schedule
from sweep.programs import program
from sweep.serial import Modules

# Steps whose losses one call can return; a call may take fewer, at no new compilation.
STEPS_PER_CALL = 64

# What was the first that was not finite, where anything was: the number that a state holds is its place.
CAUSES = ("", "training loss", "update", "test loss")


class TrainState(NamedTuple):
    """A shard's members and all that changes during training; outside of programs, of all shards, `[shard, ...]`.

    Attributes:
      traits: the numbers that tell the members apart.
      params, rest: the members' parameters, and their other variables.
      moments: the optimizer's state.
      step: steps taken.
      order: each seed's order of the training samples in the present epoch.
      diverged: per member, the first step at which something was not finite, or -1. From then on the member's
        parameters and other variables stay as they were before that step.
      cause: per member, what it was, by its place in `CAUSES`.
    """

    traits: Traits
    params: Parts
    rest: Parts
    moments: optax.OptState
    step: Int[Array, ""]
    order: Int[Array, "seed train"]
    diverged: Int[Array, " member"]
    cause: Int[Array, " member"]


Images = UInt8[Array, "*batch height width channel"] | Float[Array, "*batch height width channel"]


class Data(NamedTuple):
    """A data set on the device, images as they were stored, with the training pixels' statistics by channel."""

    train_images: Images
    train_labels: Int[Array, " train"]
    test_images: Images
    test_labels: Int[Array, " test"]
    mean: Float[Array, " channel"]
    std: Float[Array, " channel"]

    def inputs(self, images: Images) -> Float[Array, "*batch height width channel"]:
        """What networks see of images: zero mean and unit variance, in JAX's default precision."""
        return (images.astype(self.mean.dtype) - self.mean) / self.std


def put(dataset: Dataset, grid: Grid = ONE_DEVICE) -> Data:
    """Copies a data set to every device of a grid."""
    arrays = (
        dataset.train_images,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
        np.asarray(dataset.mean, float),
        np.asarray(dataset.std, float),
    )
    return Data(*grid.share(arrays))


@dataclass(frozen=True)
class Engine:
    """The training of one ensemble under one config. Its methods are pure and of one shard.

    But for three, which are compiled programs of all shards, on all devices: `init`, `train` and `evaluate` take and
    return arrays with a leading axis of shards. They are forgotten with the engine.
    """

    config: Config
    ensemble: Ensemble
    optimizer: optax.GradientTransformation = field(init=False)

    def __post_init__(self) -> None:
        config = self.config
        object.__setattr__(self, "optimizer", OPTIMIZERS[config.optimizer](config.momentum, config.weight_decay))

    def initial(self, traits: Traits, train_samples: int) -> TrainState:
        """The state of members of these traits before the first step."""
        params, rest = self.ensemble.init(traits)
        return TrainState(
            traits,
            params,
            rest,
            self.optimizer.init(params),
            jnp.zeros((), jnp.int32),
            jnp.zeros((jnp.size(traits.seeds), train_samples), jnp.int32),
            jnp.full(self.ensemble.size, -1, jnp.int32),
            jnp.zeros(self.ensemble.size, jnp.int32),
        )

    @program(static_argnums=1)
    def init(self, traits: Traits, train_samples: int) -> TrainState:
        """Every shard's `initial` state."""
        return self.ensemble.grid.over_shards(lambda traits, _: self.initial(traits, train_samples))(traits, ())

    def gradients(
        self, params: Parts, rest: Parts, x: Array, labels: Array, kept: PyTree[Array]
    ) -> tuple[Parts, tuple[Float[Array, " member"], Parts, PyTree[Array]]]:
        """Each member's gradient of its own batch's mean loss; with it the losses, the updated variables, and `kept`.

        Of a batch that devices share each has a part, and all return the gradient of the whole.

        The memory that a step works in, `kept`, comes from `room` and goes from step to step: new memory is filled with
        zeros first.
        """

        grid, size = self.ensemble.grid, self.config.batch_size

        def loss(logits: Array, labels: Array) -> Array:
            by_sample = optax.softmax_cross_entropy_with_integer_labels(logits.astype(float), labels)
            if grid.batch == 1:
                return by_sample.mean()
            return jnp.where(grid.places(size) < size, by_sample, 0).sum() / size

        gradients, (losses, rest, kept) = self.ensemble.gradients(self._modules, loss, params, rest, x, labels, kept)
        gradients, losses = grid.total((gradients, losses))
        return gradients, (losses, rest, kept)

    @property
    def _modules(self) -> Modules:
        config = self.config
        return self.ensemble.modules(True, PRECISIONS[config.precision], config.batch_size)

    def room(self, state: TrainState, data: Data) -> PyTree[Array]:
        """Memory for the `gradients` of a step."""
        _, x, _ = jax.eval_shape(self.batch, state.traits, state.order, state.step, data)
        return self.ensemble.room(self._modules, state.params, state.rest, x, self.config.remat)

    def batch(self, traits: Traits, order: Array, step: Array, data: Data) -> tuple[Array, Array, Array]:
        """The step's order, inputs and labels, by member: each seed shuffles anew in every epoch and drops the rest.

        What is done to the images at random depends on seed and step. Of a batch that devices share each has a part.
        """
        seeds, place = map(jnp.asarray, (traits.seeds, traits.place))
        size = self.config.batch_size
        samples = data.train_labels.shape[0]
        epoch, position = jnp.divmod(step, samples // size)

        def shuffle() -> Array:
            def of(seed: Array) -> Array:
                return jax.random.permutation(
                    jax.random.fold_in(data_key(seed), epoch), jnp.arange(samples, dtype=jnp.int32)
                )

            return jax.vmap(of)(seeds)

        order = lax.cond(position == 0, shuffle, lambda: order)
        rows = lax.dynamic_slice_in_dim(order, position * size, size, 1)

        def augmented(seed: Array, x: Array) -> Array:
            return AUGMENTATIONS[self.config.augment](jax.random.fold_in(augmentation_key(seed), step), x)

        x, labels = jax.vmap(augmented)(seeds, data.inputs(data.train_images[rows])), data.train_labels[rows]
        if self.ensemble.grid.batch > 1:  # only now, for what is random to be as on one device
            own = jnp.minimum(self.ensemble.grid.places(size), size - 1)
            x, labels = x[:, own], labels[:, own]
        return order, x[place], labels[place]

    def step(
        self, state: TrainState, data: Data, kept: PyTree[Array]
    ) -> tuple[TrainState, Float[Array, " member"], PyTree[Array]]:
        """One step of every member that has not diverged, the losses before it (NaN of the others), and `kept`."""
        order, x, labels = self.batch(state.traits, state.order, state.step, data)
        gradients, (losses, rest, kept) = self.gradients(state.params, state.rest, x, labels, kept)
        directions, moments = self.optimizer.update(gradients, state.moments, state.params)
        config = self.config
        # optax computes a whole step's share in float32; a float's in its own precision.
        part = schedule(config.schedule, config.steps, config.warmup_steps)(state.step.astype(float))
        rates = jnp.asarray(state.traits.learning_rate) * part
        updates = self.ensemble.scale(cast(Parts, directions), -rates)
        alive = state.diverged < 0
        failed = jnp.where(jnp.isfinite(losses), jnp.where(self.ensemble.is_finite(updates), 0, 2), 1)
        going = alive & (failed == 0)
        params = optax.apply_updates(state.params, self.ensemble.where(going, updates, 0.0))
        state = state._replace(
            params=cast(Parts, params),
            rest=self.ensemble.where(going, rest, state.rest),
            moments=moments,
            step=state.step + 1,
            order=order,
            diverged=jnp.where(alive & (failed > 0), state.step, state.diverged),
            cause=jnp.where(alive, failed, state.cause),
        )
        return state, jnp.where(alive, losses, jnp.nan), kept

    @program(donate_argnums=0)
    def train(
        self, state: TrainState, data: Data, steps: Int[Array, ""]
    ) -> tuple[TrainState, Float[Array, "shard call member"]]:
        """Takes up to `STEPS_PER_CALL` steps; `state` is consumed. Rows of losses past `steps` are NaN."""

        def take(state: TrainState, shared: tuple[Data, Array]) -> tuple[TrainState, Array]:
            data, steps = shared

            def body(i: Array, carry: tuple[TrainState, Array, PyTree[Array]]) -> tuple:
                state, history, kept = carry
                state, losses, kept = self.step(state, data, kept)
                return state, history.at[i].set(losses), kept

            history = jnp.full((STEPS_PER_CALL, self.ensemble.size), jnp.nan, data.mean.dtype)
            return lax.fori_loop(0, steps, body, (state, history, self.room(state, data)))[:2]

        return self.ensemble.grid.over_shards(take)(state, (data, steps))

    @program()
    def evaluate(
        self, params: Parts, rest: Parts, data: Data
    ) -> tuple[Float[Array, "shard member"], Float[Array, "shard member"]]:
        """Every member's mean loss and accuracy over the test images, batch norm with its running statistics.

        Where the loss is not finite there is no prediction either, and the accuracy is NaN.
        """
        return self.ensemble.grid.over_shards(self._evaluate)((params, rest), data)

    def _evaluate(self, parts: tuple[Parts, Parts], data: Data) -> tuple[Array, Array]:
        params, rest = parts
        samples = min(data.test_labels.shape[0], self.config.test_samples or data.test_labels.shape[0])
        size = min(samples, max(self.config.batch_size, 256))
        chunks = -(-samples // size)
        members, modules, grid = self.ensemble.size, self.ensemble.modules(training=False), self.ensemble.grid

        # Not the first ones: some sets are sorted by class.
        chosen = jax.random.permutation(jax.random.key(0), data.test_labels.shape[0])[:samples]

        def chunk(i: Array) -> tuple[Array, Array]:
            places = i * size + jnp.arange(size)
            counts = places < samples  # the last chunk may reach past the end
            rows = chosen[places % samples]
            x, labels = data.inputs(data.test_images[rows]), data.test_labels[rows]
            logits, _ = self.ensemble.forward(modules, params, rest, jnp.broadcast_to(x, (members, *x.shape)))
            by_sample = optax.softmax_cross_entropy_with_integer_labels(logits, labels[None])
            hits = logits.argmax(-1) == labels
            return (by_sample * counts).sum(1), (hits * counts).sum(1)

        losses, hits = lax.map(chunk, grid.places(chunks))
        loss, accuracy = grid.total((losses.sum(0) / samples, hits.sum(0) / samples))
        return loss, jnp.where(jnp.isfinite(loss), accuracy, jnp.nan)

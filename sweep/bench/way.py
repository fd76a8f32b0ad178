"""What the benchmark knows of a way to train a sweep's members, whoever's it is."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from sweep.config import PRECISIONS, Config
from sweep.data import Dataset
from sweep.errors import UserError
from sweep.members import Member, Structure
from sweep.plan import structures_of


class ComparisonError(RuntimeError):
    """A way failed, or does not train the same networks; the message is for people."""


@dataclass(frozen=True)
class Workload:
    """A sweep of one structure and the data it trains on."""

    config: Config
    structure: Structure
    members: tuple[Member, ...]
    dataset: Dataset

    @property
    def precision(self) -> str | None:
        """What hidden states and products are rounded to, if to anything."""
        return PRECISIONS[self.config.precision]

    @classmethod
    def of(cls, config: Config, dataset: Dataset) -> "Workload":
        """The workload of a config.

        Raises:
          UserError: the config asks for what not all ways have.
        """
        if (config.optimizer, config.schedule, config.warmup_steps) != ("sgd", "constant", 0) or config.weight_decay:
            raise UserError(
                "sweep.bench compares SGD at a constant rate; drop --optimizer, --schedule, --warmup-steps, "
                "--weight-decay"
            )
        if len(config.norms) != 1 or len(config.learning_rates) != 1:
            raise UserError("sweep.bench takes one of --norms and one of --learning-rates")
        ((structure, members),) = structures_of(config, dataset.image_shape, dataset.classes).items()
        return cls(config, structure, members, dataset)


class Trainer(ABC):
    """All members, compiled and ready."""

    compile_seconds: float
    """How long compiling took."""

    @abstractmethod
    def take(self, first: int, count: int) -> Float[np.ndarray, "step member"]:
        """Takes steps `first` to `first + count` of all members, and returns the losses before each."""


# `way(workload)` brings the members' initial weights and the data to where they are needed; `start()` compiles.
Start = Callable[[], Trainer]
Way = Callable[[Workload], Start]

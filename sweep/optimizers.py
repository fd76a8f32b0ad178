"""Optimizers and schedules from optax, at unit learning rate: the engine scales each member's update by its own."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import jax
import optax
from jax import Array
from jaxtyping import PyTree

if TYPE_CHECKING:
    from sweep.config import Config


def _kernels(params: PyTree) -> PyTree:
    """Marks the weight matrices, the only parameters that weight decay acts on."""

    def is_kernel(path: tuple, leaf: Array) -> bool:
        return any(getattr(entry, "key", None) == "kernel" for entry in path)

    return jax.tree.map_with_path(is_kernel, params)


OPTIMIZERS: dict[str, Callable[[Config], optax.GradientTransformation]] = {
    "sgd": lambda config: optax.trace(decay=config.momentum),
    "adam": lambda config: optax.scale_by_adam(b1=config.momentum),
    "adamw": lambda config: optax.chain(
        optax.scale_by_adam(b1=config.momentum),
        optax.add_decayed_weights(config.weight_decay, mask=_kernels),
    ),
}

SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, max(steps, 1)),
}


def schedule(config: Config) -> optax.Schedule:
    """The learning rate by step as a share of its peak: a linear warm-up, then what the config names.

    Step `s` of a warm-up of `w` takes `(s + 1)/(w + 1)`, so that no step is lost on a rate of zero.
    """
    warmup = config.warmup_steps
    rise = optax.linear_schedule(1 / (warmup + 1), 1.0, max(warmup, 1))
    return optax.join_schedules([rise, SCHEDULES[config.schedule](config.steps - warmup)], [warmup])

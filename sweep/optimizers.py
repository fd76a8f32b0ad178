"""Optimizers and schedules from optax, at unit learning rate: the engine scales each member's update by its own."""

from collections.abc import Callable

import jax
import optax
from jax import Array
from jaxtyping import PyTree


def _kernels(params: PyTree) -> PyTree:
    """Marks the weight matrices, the only parameters that weight decay acts on."""

    def is_kernel(path: tuple, leaf: Array) -> bool:
        return any(getattr(entry, "key", None) == "kernel" for entry in path)

    return jax.tree.map_with_path(is_kernel, params)


def _adamw(momentum: float, weight_decay: float) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(b1=momentum), optax.add_decayed_weights(weight_decay, mask=_kernels))


# Each takes the momentum and the weight decay, and uses what it has a use for.
OPTIMIZERS: dict[str, Callable[[float, float], optax.GradientTransformation]] = {
    "sgd": lambda momentum, weight_decay: optax.trace(decay=momentum),
    "adam": lambda momentum, weight_decay: optax.scale_by_adam(b1=momentum),
    "adamw": _adamw,
}

# Each takes the number of steps after warm-up.
SCHEDULES: dict[str, Callable[[int], optax.Schedule]] = {
    "constant": lambda steps: optax.constant_schedule(1.0),
    "cosine": lambda steps: optax.cosine_decay_schedule(1.0, max(steps, 1)),
}


def schedule(name: str, steps: int, warmup: int) -> optax.Schedule:
    """The learning rate by step as a share of its peak: a linear warm-up, then the named schedule for the rest.

    Step `s` of a warm-up of `w` takes `(s + 1)/(w + 1)`, so that no step is lost on a rate of zero.
    """
    rise = optax.linear_schedule(1 / (warmup + 1), 1.0, max(warmup, 1))
    return optax.join_schedules([rise, SCHEDULES[name](steps - warmup)], [warmup])

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


def _decay(weight_decay: float) -> optax.GradientTransformation:
    return optax.add_decayed_weights(weight_decay, mask=_kernels) if weight_decay else optax.identity()


def _sgd(momentum: float, weight_decay: float | None) -> optax.GradientTransformation:
    return optax.chain(_decay(weight_decay or 0.0), optax.trace(decay=momentum))


def _adam(momentum: float, weight_decay: float | None) -> optax.GradientTransformation:
    return optax.chain(_decay(weight_decay or 0.0), optax.scale_by_adam(b1=momentum))


def _adamw(momentum: float, weight_decay: float | None) -> optax.GradientTransformation:
    return optax.chain(optax.scale_by_adam(b1=momentum), _decay(0.01 if weight_decay is None else weight_decay))


# Each takes the momentum and the weight decay, or None for its own default.
OPTIMIZERS: dict[str, Callable[[float, float | None], optax.GradientTransformation]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
}


def _drops(steps: int, warmup: int) -> optax.Schedule:
    at_half, later = (
        optax.piecewise_constant_schedule(1.0, {steps * quarters // 4 - warmup: 0.1}) for quarters in (2, 3)
    )
    return lambda step: at_half(step) * later(step)


# Each takes the number of all steps and of those of warm-up, and begins after these.
SCHEDULES: dict[str, Callable[[int, int], optax.Schedule]] = {
    "constant": lambda steps, warmup: optax.constant_schedule(1.0),
    "cosine": lambda steps, warmup: optax.cosine_decay_schedule(1.0, max(steps - warmup, 1)),
    # A tenth after half of the steps and again after three quarters: 32,000 and 48,000 of He et al. 2015's 64,000.
    "steps": _drops,
}


def schedule(name: str, steps: int, warmup: int) -> optax.Schedule:
    """The learning rate by step as a share of its peak: a linear warm-up, then the named schedule for the rest.

    Step `s` of a warm-up of `w` takes `(s + 1)/(w + 1)`, so that no step is lost on a rate of zero.
    """
    rise = optax.linear_schedule(1 / (warmup + 1), 1.0, max(warmup, 1))
    return optax.join_schedules([rise, SCHEDULES[name](steps, warmup)], [warmup])

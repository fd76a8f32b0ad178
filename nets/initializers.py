"""Weight distributions at unit scale, variance 1/fan_in; a layer multiplies them by its `weight_std`."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array
from jax.nn.initializers import normal, variance_scaling
from jax.typing import DTypeLike
from jaxtyping import Float, Key

from kernels.linalg import qr


def _orthogonal(
    key: Key[Array, ""], shape: tuple[int, int], dtype: DTypeLike = float
) -> Float[Array, "fan_in fan_out"]:
    """Orthonormal columns; where there are more columns than rows, orthonormal rows scaled to variance 1/fan_in.

    The Q of a Gaussian matrix, columns signed by R's diagonal, is uniform over such matrices (Mezzadri 2007).
    """
    fan_in, fan_out = shape
    q, r = qr(jax.random.normal(key, (max(shape), min(shape)), dtype))
    q = q * jnp.where(jnp.diagonal(r) < 0, -1, 1).astype(q.dtype)
    return q if fan_in >= fan_out else q.T * (fan_out / fan_in) ** 0.5


INITIALIZERS: dict[str, Callable[..., Array]] = {
    "normal": variance_scaling(1.0, "fan_in", "normal"),
    "orthogonal": _orthogonal,
}


def dense(
    in_features: int,
    out_features: int,
    *,
    init: str,
    weight_std: float | Float[Array, ""],
    bias_std: float | Float[Array, ""],
    use_bias: bool,
    rngs: nnx.Rngs,
) -> nnx.Linear:
    """A linear layer with weights of variance `weight_std**2 / in_features` and biases of variance `bias_std**2`.

    Both scales may be traced arrays, so networks of different scale can be made in one `vmap`.
    """
    unit, unit_bias = INITIALIZERS[init], normal(1.0)
    return nnx.Linear(
        in_features,
        out_features,
        use_bias=use_bias,
        kernel_init=lambda *args: weight_std * unit(*args),
        bias_init=lambda *args: bias_std * unit_bias(*args),
        param_dtype=float,  # double where JAX is told to compute in double
        rngs=rngs,
    )

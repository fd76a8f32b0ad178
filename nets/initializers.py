"""Weight distributions at unit scale, variance 1/fan_in; a layer multiplies them by its `weight_std`."""

from flax import nnx
from jax import Array
from jax.nn.initializers import Initializer, normal, orthogonal, variance_scaling
from jaxtyping import Float

INITIALIZERS: dict[str, Initializer] = {
    "normal": variance_scaling(1.0, "fan_in", "normal"),
    "orthogonal": orthogonal(),
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

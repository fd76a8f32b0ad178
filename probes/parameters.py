"""A network as a function of its parameters, laid end to end in one vector: what is differentiated by all of them."""

from collections.abc import Callable

from flax import nnx
from jax import Array
from jax.flatten_util import ravel_pytree
from jaxtyping import Float

from nets import Network
from probes.network import Inputs, training_copy


def logits_by_parameters(network: Network, x: Inputs) -> tuple[Callable[[Array], Array], Float[Array, " parameters"]]:
    """The logits `[batch, classes]` of the batch `x` as a pure function of all parameters, and the parameters.

    Parameters are the `nnx.Param`s (weights, biases, batch norm's scales and shifts; no skip strength), in the order of
    `nnx.split`; batch norm is in training mode, so every logit depends on the whole batch. The network is not changed.

    Cost: of a call one forward pass.
    """
    graphdef, params, rest = nnx.split(training_copy(network), nnx.Param, ...)
    params, rest = nnx.as_pure((params, rest))
    flat, unravel = ravel_pytree(params)
    return lambda flat: nnx.merge(graphdef, unravel(flat), rest)(x), flat

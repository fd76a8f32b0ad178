"""Many layers of one kind, stored stacked and applied by `lax.scan`: compile time does not grow with depth."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jaxtyping import Float

from nets.blocks import Block, Hidden


def step(
    graphdef: nnx.GraphDef, params: nnx.State, rest: nnx.State, x: Float[Array, "batch *features"]
) -> tuple[Float[Array, "batch ..."], nnx.State]:
    """Applies one module given as pure data; returns its output and its variables other than parameters, updated."""
    module = nnx.merge(graphdef, params, rest)
    y = module(x)
    return y, nnx.as_pure(nnx.state(module, nnx.Not(nnx.Param)))


class Stack(nnx.Module):
    """`depth` layers made by `make_layer(rngs)`, held in `layers`, every variable with a leading layer axis."""

    def __init__(self, make_layer: Callable[[nnx.Rngs], Block], depth: int, *, rngs: nnx.Rngs):
        # A layer's key, and with it its weights, is the same however many there are.
        keys = jax.vmap(partial(jax.random.fold_in, rngs.params()))(jnp.arange(depth))
        self.depth = depth
        self.layers = nnx.vmap(lambda key: make_layer(nnx.Rngs(key)))(keys)

    def __call__(self, h: Hidden) -> Hidden:
        """The last layer's output; running statistics are updated in place, as in any Flax module."""
        graphdef, params, rest = nnx.split(self.layers, nnx.Param, ...)
        h, rest = lax.scan(lambda h, layer: step(graphdef, *layer, h), h, (params, rest))
        nnx.update(self.layers, rest)
        return h

    def trace(
        self, h: Hidden, perturbation: Float[Array, "layer batch *features"] | None = None
    ) -> tuple[Hidden, Float[Array, "layer batch *features"], Float[Array, "layer batch *features"]]:
        """Runs the stack with `perturbation[l]`, if any, added to layer l's output, and changes no variable.

        Returns:
          The last output, every layer's output, and every layer's pre-activation.
        """
        layers: Block = self.layers
        graphdef, state = nnx.split(layers)

        def body(h, layer):
            state, offset = layer
            before = nnx.merge(graphdef, state).preactivation(h)
            h = nnx.merge(graphdef, state)(h)
            h = h if offset is None else h + offset
            return h, (h, before)

        h, (outputs, before) = lax.scan(body, h, (state, perturbation))
        return h, outputs, before

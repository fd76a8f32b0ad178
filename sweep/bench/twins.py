"""The same networks as one would write them in Flax: `flax.nnx.BatchNorm`, XLA's own convolutions."""

from functools import partial
from typing import Any, cast

import jax
from flax import nnx
from jax import Array, lax

from kernels.batchnorm.activations import Activation
from nets import BatchNorm, Network, Stack
from nets.initializers import Strided


class FlaxNorm(nnx.Module):
    """`flax.nnx.BatchNorm`, then what follows it."""

    def __init__(self, norm: BatchNorm):
        self.norm = nnx.BatchNorm(norm.num_features, momentum=norm.momentum, epsilon=norm.epsilon, rngs=nnx.Rngs(0))
        nnx.update(self.norm, nnx.state(norm))

    def __call__(self, x: Array, *, residual: Array | None = None, activation: Activation | None = None) -> Array:
        y = self.norm(x)
        y = y if residual is None else y + residual
        return y if activation is None else activation(y)


class Unrolled(nnx.Module):
    """The same network with the same parameters, one module a layer in a Python list."""

    def __init__(self, network: Network):
        layers: list[nnx.Module] = []
        for section in network.sections.values():
            if isinstance(section, Stack):
                graphdef, state = nnx.split(section.layers)
                state = nnx.as_pure(state)
                layers += [
                    nnx.merge(graphdef, jax.tree.map(lambda leaf, i=i: leaf[i], state)) for i in range(section.depth)
                ]
            else:
                layers.append(nnx.clone(section))
        for layer in layers:
            _in_flax(layer)
        self.layers = nnx.List(layers)

    def __call__(self, x: Array) -> Array:
        for layer in self.layers:
            x = layer(x)
        return x


def scanned(network: Network) -> Network:
    """The same network with the same parameters, its stacks run by `lax.scan`."""
    network = nnx.clone(network)
    _in_flax(network)
    return network


def _in_flax(module: nnx.Module) -> None:
    """Puts Flax's and XLA's own parts in the place of fathom's, wherever they are in a module."""
    for name, part in list(vars(module).items()):
        if isinstance(part, BatchNorm):
            setattr(module, name, FlaxNorm(part))
        elif isinstance(part, nnx.Conv):
            stride = cast(Strided, part.conv_general_dilated).stride
            part.conv_general_dilated = partial(_convolve, stride)
        elif isinstance(part, nnx.Module):
            _in_flax(part)


def _convolve(stride: int, x: Array, w: Array, *unit_strides_and_padding: Any, **settings: Any) -> Array:
    layout, around = settings["dimension_numbers"], [(size // 2, size // 2) for size in w.shape[:2]]
    return lax.conv_general_dilated(x, w, (stride, stride), around, dimension_numbers=layout)

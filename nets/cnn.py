"""Deep convolutional networks, plain and residual: in stages, or of one size throughout."""

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.activations import ACTIVATIONS
from nets.basic import SHORTCUTS, BasicBlock
from nets.blocks import ORDERS, SKIP_STRENGTH, Block
from nets.edges import ConvolutionStem, Head
from nets.initializers import INITIALIZERS, convolution, dense
from nets.network import Network, check_arguments
from nets.norms import NORMS
from nets.stack import Stack

LAYOUTS = ("staged", "isotropic")
STAGES = 3


def blocks_per_stage(depth: int) -> int:
    """`n` of a staged network of `depth = 6n + 2` layers: a stem, three stages of n blocks of two, a readout.

    Raises:
      ValueError: no n gives that depth.
    """
    blocks, left = divmod(depth - 2, 2 * STAGES)
    if blocks < 1 or left:
        raise ValueError(f"CNN: depth of a staged network must be 6n + 2 (8, 14, 20, ...), got {depth}")
    return blocks


class CNN(Network):
    """A convolution, blocks, the mean over pixels, a linear readout; by default ResNet-20 for CIFAR-10.

    `staged` is He et al. 2015, section 4.2: `depth = 6n + 2` layers with weights, three stages of n `BasicBlock`s whose
    first block halves the image and doubles the channels, but for the first stage's. `isotropic` is the vanilla network
    of Xiao et al. 2018 where it is plain: `depth` blocks of one 3x3 convolution, channels and pixels constant. Images
    are padded with zeros (theirs are periodic).

    Args:
      depth: layers with weights (staged), or blocks (isotropic).
      net: `"plain"` (skip strength 0) or `"residual"` (1).
      norm: `"none"` or `"batch"`, see `nets.NORMS`.
      in_channels: channels of the images.
      out_features: number of classes.
      width: channels of the first stage, or of all blocks.
      layout: `"staged"` or `"isotropic"`.
      shortcut: `"A"` (no parameters) or `"B"` (projections), where a residual block changes size. A plain net has B's
        parameters too, to no effect.
      activation: a name in `nets.ACTIVATIONS`.
      order: `"post"` (He et al. 2015) or `"pre"` (He et al. 2016).
      init: `"normal"`, `"orthogonal"` or `"delta-orthogonal"` (Xiao et al. 2018), see `nets.INITIALIZERS`.
      weight_std: σ_w; weights have variance σ_w²/fan_in, fan_in the window's pixels times channels. √2 is He's.
      bias_std: σ_b; biases are drawn with variance σ_b². Nets with batch norm have no biases before it.
      skip: the skip strength itself, instead of `net`'s; may be a traced array, as may both scales.
      rngs: supplies the `params` stream.

    Raises:
      ValueError: a size below 1, a depth no staged network has, or an unknown name; the message lists the known ones.
    """

    def __init__(
        self,
        depth: int = 20,
        net: Literal["plain", "residual"] = "residual",
        norm: str = "batch",
        in_channels: int = 3,
        out_features: int = 10,
        width: int = 16,
        layout: str = "staged",
        shortcut: str = "A",
        activation: str = "relu",
        order: str = "post",
        init: str = "normal",
        weight_std: float | Float[Array, ""] = 2**0.5,
        bias_std: float | Float[Array, ""] = 0.0,
        skip: float | Float[Array, ""] | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        check_arguments(
            "CNN",
            {"depth": depth, "in_channels": in_channels, "out_features": out_features, "width": width},
            {
                "net": (net, SKIP_STRENGTH),
                "norm": (norm, NORMS),
                "layout": (layout, LAYOUTS),
                "shortcut": (shortcut, SHORTCUTS),
                "activation": (activation, ACTIVATIONS),
                "order": (order, ORDERS),
                "init": (init, INITIALIZERS),
            },
        )
        scales: dict[str, Any] = {"init": init, "weight_std": weight_std, "bias_std": bias_std}
        names: dict[str, Any] = {
            "norm": norm,
            "activation": activation,
            "skip": SKIP_STRENGTH[net] if skip is None else skip,
        }
        staged = layout == "staged"
        counts = (blocks_per_stage(depth),) * STAGES if staged else (depth,)
        channels = [width * 2**stage for stage in range(len(counts))]

        def one(rngs: nnx.Rngs) -> Block:
            linear = partial(convolution, width, width, **scales)
            return ORDERS[order](width, linear, rngs=rngs, **names)

        def two(in_channels: int, out_channels: int, rngs: nnx.Rngs) -> Block:
            stride = 1 if in_channels == out_channels else 2
            settings: dict[str, Any] = names | scales | {"order": order, "shortcut": shortcut}
            return BasicBlock(in_channels, out_channels, stride, rngs=rngs, **settings)

        def make_norm(present: bool, channels: int, rngs: nnx.Rngs) -> nnx.Module | None:
            return NORMS[norm].make(channels, rngs=rngs) if present else None

        # A stream each, so that weights do not depend on what norm and order draw beside them.
        stem, head, *stages = (nnx.Rngs(key) for key in jax.random.split(rngs.params(), 2 + len(counts)))
        activates_first = ORDERS[order].activates_first
        biased = not NORMS[norm].absorbs_bias
        self.stem = ConvolutionStem(
            convolution(in_channels, width, use_bias=biased, rngs=stem, **scales),
            make_norm(not activates_first, width, stem),
            activation,
        )
        sections = []
        for stage, (stream, blocks) in enumerate(zip(stages, counts, strict=True)):
            first, others = (nnx.Rngs(key) for key in jax.random.split(stream.params()))
            if stage:
                name = f"down{stage + 1}"
                setattr(self, name, two(channels[stage - 1], channels[stage], first))
                sections.append(name)
            stacked = blocks - 1 if stage else blocks
            if stacked:
                make: Callable[[nnx.Rngs], Block] = partial(two, channels[stage], channels[stage]) if staged else one
                name = f"stage{stage + 1}" if staged else "blocks"
                setattr(self, name, Stack(make, stacked, rngs=others))
                sections.append(name)
        self.head = Head(
            dense(channels[-1], out_features, use_bias=True, rngs=head, **scales),
            make_norm(activates_first, channels[-1], head),
            activation,
        )
        self.section_names = ("stem", *sections, "head")

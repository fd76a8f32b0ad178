"""Deep multilayer perceptrons, plain and residual."""

from functools import partial
from typing import Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.activations import ACTIVATIONS
from nets.blocks import ORDERS, SKIP_STRENGTH
from nets.edges import DenseStem, Head
from nets.initializers import INITIALIZERS, dense
from nets.network import Network, check_arguments
from nets.norms import NORMS
from nets.stack import Stack


class MLP(Network):
    """`depth` blocks of constant width between a stem and a linear readout.

    `h_0 = stem(x)`, `h_l = block_l(h_{l-1})` for `l = 1..depth`, `logits = head(h_depth)`. The input-output map of the
    blocks, `h_0` to `h_depth`, is a product of `depth` layers: the `L` of the theory. Images are read as one vector.

    Args:
      in_features: size of the input.
      out_features: number of classes.
      depth: number of blocks, each one `width x width` weight matrix.
      width: size of every hidden state.
      net: `"plain"` (skip strength 0) or `"residual"` (1).
      norm: `"none"` or `"batch"`, see `nets.NORMS`.
      activation: a name in `nets.ACTIVATIONS`.
      order: `"post"` (He et al. 2015) or `"pre"` (He et al. 2016), see `nets.ORDERS`.
      init: `"normal"` or `"orthogonal"`, see `nets.INITIALIZERS`.
      weight_std: σ_w; weights have variance σ_w²/fan_in. 1 is LeCun's scale, √2 He's for ReLU.
      bias_std: σ_b; biases are drawn with variance σ_b². Nets with batch norm have no biases before it.
      skip: the skip strength itself, instead of `net`'s; may be a traced array, as may both scales.
      rngs: supplies the `params` stream.

    Raises:
      ValueError: a size below 1 or an unknown name; the message lists the known ones.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        depth: int,
        width: int,
        net: Literal["plain", "residual"] = "plain",
        norm: str = "none",
        activation: str = "relu",
        order: str = "post",
        init: str = "normal",
        weight_std: float | Float[Array, ""] = 1.0,
        bias_std: float | Float[Array, ""] = 0.0,
        skip: float | Float[Array, ""] | None = None,
        *,
        rngs: nnx.Rngs,
    ):
        check_arguments(
            "MLP",
            {"in_features": in_features, "out_features": out_features, "depth": depth, "width": width},
            {
                "net": (net, SKIP_STRENGTH),
                "norm": (norm, NORMS),
                "activation": (activation, ACTIVATIONS),
                "order": (order, ORDERS),
                "init": (init, INITIALIZERS),
            },
        )
        linear = partial(dense, init=init, weight_std=weight_std, bias_std=bias_std)
        block = ORDERS[order]
        biased = not NORMS[norm].absorbs_bias

        # A stream each, so that weights do not depend on what norm and order draw beside them.
        stem, blocks, head = (nnx.Rngs(key) for key in jax.random.split(rngs.params(), 3))
        self.section_names = ("stem", "blocks", "head")
        self.stem = DenseStem(
            linear(in_features, width, use_bias=biased, rngs=stem),
            None if block.activates_first else NORMS[norm].make(width, rngs=stem),
            activation,
        )
        self.blocks = Stack(
            lambda rngs: block(
                width,
                partial(linear, width, width),
                skip=SKIP_STRENGTH[net] if skip is None else skip,
                norm=norm,
                activation=activation,
                rngs=rngs,
            ),
            depth,
            rngs=blocks,
        )
        self.head = Head(
            linear(width, out_features, use_bias=True, rngs=head),
            NORMS[norm].make(width, rngs=head) if block.activates_first else None,
            activation,
        )

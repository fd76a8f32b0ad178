"""Deep multilayer perceptrons, plain and residual."""

from typing import Literal

import jax
from flax import nnx
from jax import Array
from jaxtyping import Float

from nets.activations import ACTIVATIONS
from nets.blocks import ORDERS
from nets.initializers import INITIALIZERS, dense
from nets.network import Network, Part
from nets.norms import NORMS
from nets.stack import Stack

SKIP_STRENGTH = {"plain": 0.0, "residual": 1.0}


class _Edge(Part):
    """A linear map and, where the blocks leave it open, a norm and an activation."""

    def __init__(self, linear: nnx.Linear, norm: nnx.Module | None, activation: str):
        self.linear = linear
        self.norm = nnx.data(norm)
        self.activation = ACTIVATIONS[activation]

    def normalize(self, h: Float[Array, "batch width"]) -> Float[Array, "batch width"]:
        return h if self.norm is None else self.norm(h, activation=self.activation)


class Stem(_Edge):
    """From the input to the first hidden state: linear first."""

    def __call__(self, x: Float[Array, "batch features"]) -> Float[Array, "batch width"]:
        return self.normalize(self.linear(x))


class Head(_Edge):
    """From the last hidden state to the logits: linear last."""

    def __call__(self, h: Float[Array, "batch width"]) -> Float[Array, "batch classes"]:
        return self.linear(self.normalize(h))


class MLP(Network):
    """`depth` blocks of constant width between a stem and a linear readout.

    `h_0 = stem(x)`, `h_l = block_l(h_{l-1})` for `l = 1..depth`, `logits = head(h_depth)`. The input-output map of the
    blocks, `h_0` to `h_depth`, is a product of `depth` layers: the `L` of the theory.

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
        for argument, size in (
            ("in_features", in_features),
            ("out_features", out_features),
            ("depth", depth),
            ("width", width),
        ):
            if size < 1:
                raise ValueError(f"MLP: {argument} must be at least 1, got {size}")
        for argument, name, known in (
            ("net", net, SKIP_STRENGTH),
            ("norm", norm, NORMS),
            ("activation", activation, ACTIVATIONS),
            ("order", order, ORDERS),
            ("init", init, INITIALIZERS),
        ):
            if name not in known:
                raise ValueError(f"MLP: {argument} must be one of {', '.join(known)}, got {name!r}")

        scales = {"init": init, "weight_std": weight_std, "bias_std": bias_std}
        block = ORDERS[order]

        # A stream each, so that weights do not depend on what norm and order draw beside them.
        stem, blocks, head = (nnx.Rngs(key) for key in jax.random.split(rngs.params(), 3))

        def make_norm(present: bool, rngs: nnx.Rngs) -> nnx.Module | None:
            return NORMS[norm].make(width, rngs=rngs) if present else None

        self.stem = Stem(
            dense(in_features, width, use_bias=not NORMS[norm].absorbs_bias, rngs=stem, **scales),
            make_norm(not block.activates_first, stem),
            activation,
        )
        self.blocks = Stack(
            lambda rngs: block(
                width,
                skip=SKIP_STRENGTH[net] if skip is None else skip,
                norm=norm,
                activation=activation,
                rngs=rngs,
                **scales,
            ),
            depth,
            rngs=blocks,
        )
        self.head = Head(
            dense(width, out_features, use_bias=True, rngs=head, **scales),
            make_norm(block.activates_first, head),
            activation,
        )

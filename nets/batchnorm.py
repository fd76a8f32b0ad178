"""Batch normalization as a Flax module, on the fused kernel."""

import jax.numpy as jnp
from flax import nnx
from jax import Array, lax
from jax.nn.initializers import Initializer, ones, zeros
from jaxtyping import Float

from kernels import batch_norm, normalize
from kernels.batchnorm.reference import Activation


class BatchNorm(nnx.Module):
    """`activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)`, statistics over all axes but the last.

    In training mode (`train()`, or `use_running_average=False`) the batch's own statistics normalize and
    `running = momentum * running + (1 - momentum) * batch` is kept; in evaluation mode (`eval()`, or
    `use_running_average=True`) the running ones normalize. Variables are named as in `flax.nnx.BatchNorm`: parameters
    `scale`, `bias`; batch statistics `mean`, `var` (biased, as there).

    Args:
      num_features: size of the last axis.
      use_running_average: the mode; a call's own argument wins over it.
      momentum: decay of the running statistics, per step.
      epsilon: added to the variance.
      scale_init, bias_init: initializers of `scale` and `bias`.
      rngs: supplies the `params` stream.

    Source: Ioffe & Szegedy 2015.
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool = False,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        scale_init: Initializer = ones,
        bias_init: Initializer = zeros,
        rngs: nnx.Rngs,
    ):
        self.scale = nnx.Param(scale_init(rngs.params(), (num_features,)))
        self.bias = nnx.Param(bias_init(rngs.params(), (num_features,)))
        self.mean = nnx.BatchStat(jnp.zeros(num_features))
        self.var = nnx.BatchStat(jnp.ones(num_features))
        self.use_running_average = use_running_average
        self.momentum = momentum
        self.epsilon = epsilon

    def __call__(
        self,
        x: Float[Array, "*rows features"],
        use_running_average: bool | None = None,
        *,
        residual: Float[Array, "*rows features"] | None = None,
        activation: Activation | None = None,
    ) -> Float[Array, "*rows features"]:
        """Normalizes `x`; raises what `kernels.batch_norm` raises."""
        if use_running_average is None:
            use_running_average = self.use_running_average
        scale, bias = self.scale[...], self.bias[...]
        if use_running_average:
            return normalize(
                x,
                self.mean[...],
                self.var[...],
                scale,
                bias,
                residual=residual,
                activation=activation,
                epsilon=self.epsilon,
            )
        y, mean, var = batch_norm(x, scale, bias, residual=residual, activation=activation, epsilon=self.epsilon)
        for running, batch in ((self.mean, mean), (self.var, var)):
            batch = lax.stop_gradient(batch).astype(running.dtype)
            running[...] = self.momentum * running[...] + (1 - self.momentum) * batch
        return y

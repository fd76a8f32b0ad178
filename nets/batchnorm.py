"""Batch normalization as a Flax module, on the fused kernel."""

from collections.abc import Callable, Mapping
from types import EllipsisType, MappingProxyType
from typing import Any

import jax.numpy as jnp
from flax import nnx
from flax.nnx.nn import dtypes
from jax import Array, lax
from jax.nn.initializers import Initializer, ones, zeros
from jax.typing import DTypeLike
from jaxtyping import Bool, Float

from kernels import batch_norm, normalize
from kernels.batchnorm.activations import Activation, resolve
from kernels.batchnorm.api import Implementation, check_implementation


class BatchNorm(nnx.Module):
    """`activation(scale (x - mean)/sqrt(var + epsilon) + bias + residual)`, statistics over all axes but one.

    A drop-in for `flax.nnx.BatchNorm`: its arguments, its variables (parameters `scale`, `bias`, batch statistics
    `mean`, `var`), its modes. In training mode (`train()`, or `use_running_average=False`) the batch's own statistics
    normalize and `running = momentum * running + (1 - momentum) * batch` is kept; in evaluation mode (`eval()`, or
    `use_running_average=True`) the running ones normalize.

    What differs, on purpose:
      - The derivative is that of the fused kernel, which keeps the input and no other array of its size.
      - The variance is right where the mean is large; `use_fast_variance` is accepted and makes no difference.
      - Parameters and running statistics enter the arithmetic, which is in float32 at least, in their own dtypes; Flax
        first rounds them to `dtype`. `promote_dtype` therefore decides the dtype of the input only.
      - Without `param_dtype`, parameters and statistics are double where JAX computes in double.
      - The running statistics carry no derivative.
      - Of several devices, each may count differently many entries; Flax takes the mean of their means.
      - `axis` is one axis. Input is real, of two axes and one row at least, and a mask is boolean; all else is refused.
      - It is an `nnx.Module`, but no subclass of `flax.nnx.BatchNorm`.

    Args:
      num_features: size of the feature axis.
      use_running_average: the mode; a call's own argument wins over it.
      axis: the feature axis.
      momentum: decay of the running statistics, per step.
      epsilon: added to the variance.
      dtype: of the result, by default that of input and parameters together.
      param_dtype: of the parameters, by default JAX's default precision.
      use_bias, use_scale: whether there is a `bias`, a `scale`.
      bias_init, scale_init: their initializers.
      axis_name: a mapped axis whose devices share their statistics, however many entries each has.
      axis_index_groups: parts of that axis that share, as in `jax.lax.psum`.
      use_fast_variance: no effect, see above.
      promote_dtype: a function `(inputs, mean, var, scale, bias), dtype=` to the same in a common dtype.
      activation: applied last, fused: a name or an elementwise function; a call's own argument wins over it.
      rows: how many of the first axis' entries, over all devices of `axis_name` in their order, there are; what the
        devices hold beyond them is padding, and does not count. None if nothing is.
      bessel: whether the running variance is the unbiased `var n / (n - 1)`, as PyTorch's is, and not `var`.
      implementation: of `kernels.batch_norm`, in training mode.
      rngs: supplies the `params` stream.
      bias_metadata, scale_metadata: metadata of the parameters.

    Raises:
      TypeError, ValueError: an unknown activation or implementation, or one that cannot run here.

    Source: Ioffe & Szegedy 2015.
    """

    def __init__(
        self,
        num_features: int,
        *,
        use_running_average: bool | None = False,
        axis: int = -1,
        momentum: float = 0.99,
        epsilon: float = 1e-5,
        dtype: DTypeLike | None = None,
        param_dtype: DTypeLike | None = None,
        use_bias: bool = True,
        use_scale: bool = True,
        bias_init: Initializer = zeros,
        scale_init: Initializer = ones,
        axis_name: str | tuple[str, ...] | None = None,
        axis_index_groups: Any = None,
        use_fast_variance: bool = True,
        promote_dtype: Callable[..., Any] = dtypes.promote_dtype,
        activation: str | Activation | None = None,
        rows: int | None = None,
        bessel: bool = False,
        implementation: Implementation | None = None,
        rngs: nnx.Rngs,
        bias_metadata: Mapping[str, Any] = MappingProxyType({}),
        scale_metadata: Mapping[str, Any] = MappingProxyType({}),
    ):
        check_implementation(implementation)
        shape = (num_features,)
        default = jnp.zeros(()).dtype
        self.mean = nnx.BatchStat(jnp.zeros(shape, default))
        self.var = nnx.BatchStat(jnp.ones(shape, default))
        self.scale = self.bias = nnx.data(None)
        if use_scale:
            self.scale = nnx.Param(scale_init(rngs.params(), shape, param_dtype or default), **scale_metadata)
        if use_bias:
            self.bias = nnx.Param(bias_init(rngs.params(), shape, param_dtype or default), **bias_metadata)
        self.num_features = num_features
        self.use_running_average = use_running_average
        self.axis = axis
        self.momentum = momentum
        self.epsilon = epsilon
        self.dtype = dtype
        self.param_dtype = param_dtype
        self.use_bias = use_bias
        self.use_scale = use_scale
        self.axis_name = axis_name
        self.axis_index_groups = axis_index_groups
        self.use_fast_variance = use_fast_variance
        self.promote_dtype = promote_dtype
        self.activation = resolve(activation)
        self.rows = rows
        self.bessel = bessel
        self.implementation: Implementation | None = implementation

    def __call__(
        self,
        x: Float[Array, "..."],
        use_running_average: bool | None = None,
        *,
        mask: Bool[Array, "..."] | None = None,
        residual: Float[Array, "..."] | None = None,
        activation: str | Activation | EllipsisType | None = ...,
    ) -> Float[Array, "..."]:
        """Normalizes `x`.

        Args:
          x: the input.
          use_running_average: the mode, by default the module's.
          mask: True where an entry counts for the statistics, broadcast against `x`.
          residual: added before the activation, shaped like `x`.
          activation: applied last, None for none; by default, `...`, the module's.

        Raises:
          ValueError: no mode was chosen, here or in the constructor; and what `kernels.batch_norm` raises.
          TypeError: what `kernels.batch_norm` raises.
        """
        running = self.use_running_average if use_running_average is None else use_running_average
        if running is None:
            raise ValueError("BatchNorm: use_running_average must be given to the constructor or to the call, got None")
        fused = self.activation if isinstance(activation, EllipsisType) else resolve(activation)
        scale, bias = (None if param is None else param[...] for param in (self.scale, self.bias))
        mean, var = self.mean[...], self.var[...]
        x = self.promote_dtype((x, mean, var, scale, bias), dtype=self.dtype)[0]

        def features_last(array: Any) -> Any:
            return array if array is None or array.ndim < x.ndim else jnp.moveaxis(array, self.axis, -1)

        x_last, residual = features_last(x), features_last(residual)
        if running:
            y = normalize(x_last, mean, var, scale, bias, residual=residual, activation=fused, epsilon=self.epsilon)
        else:
            if mask is not None:  # it broadcasts against x as it came
                mask = mask.reshape((1,) * (x.ndim - mask.ndim) + mask.shape)
            if self.rows is not None:
                counts = self._counts(x, self.rows)
                mask = counts if mask is None else mask & counts
            mask = features_last(mask)
            y, batch_mean, batch_var = batch_norm(
                x_last,
                jnp.ones_like(mean) if scale is None else scale,
                jnp.zeros_like(mean) if bias is None else bias,
                residual=residual,
                activation=fused,
                epsilon=self.epsilon,
                mask=mask,
                axis_name=self.axis_name,
                axis_index_groups=self.axis_index_groups,
                implementation=self.implementation,
            )
            if self.bessel:
                count = self._count(x_last, mask)
                batch_var = batch_var * count / jnp.maximum(count - 1, 1)
            for variable, batch in ((self.mean, batch_mean), (self.var, batch_var)):
                batch = lax.stop_gradient(batch).astype(variable.dtype)
                variable[...] = self.momentum * variable[...] + (1 - self.momentum) * batch
        return jnp.moveaxis(y, -1, self.axis)

    def _counts(self, x: Array, rows: int) -> Array:
        """Which entries of the first axis are none of the padding beyond so many; broadcasts against `x`."""
        device = 0 if self.axis_name is None else lax.axis_index(self.axis_name)
        places = device * len(x) + jnp.arange(len(x))
        return (places < rows).reshape(-1, *[1] * (x.ndim - 1))

    def _count(self, x: Array, mask: Array | None) -> Array:
        """How many entries of each feature the statistics are of, on all devices that share them."""
        entries = jnp.broadcast_to(True if mask is None else mask, x.shape).reshape(-1, x.shape[-1])
        count = entries.sum(0, dtype=self.var.dtype)
        if self.axis_name is None:
            return count
        return lax.psum(count, self.axis_name, axis_index_groups=self.axis_index_groups)

    def set_view(self, use_running_average: bool | None = None) -> None:
        """Lets `nnx.view` choose the mode.

        Args:
          use_running_average: the mode, or None to leave it.
        """
        if use_running_average is not None:
            self.use_running_average = use_running_average

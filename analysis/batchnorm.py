"""What batch norm at initialization does to gradients and signals, for any activation.

φ is the activation, z a standard Gaussian, B the batch, weights have variance σ_w²/fan_in
(`weight_std` is σ_w).
Nets are infinitely wide and their batch is what depth makes of it: every two samples are related as every other two.
Growth is that of the squared gradient, per layer, towards the input; no quantity has a unit.
An activation that is not in `analysis.activations.ACTIVATIONS` raises `UnknownActivationError`.
"""

import numpy as np
from jaxtyping import Float

from analysis.activations import Function, activation_of
from analysis.gaussian import expectation, product_expectation, unit_interval


def value_variance(activation: str) -> float:
    """`Var φ(z)`: ReLU `(π - 1)/(2π)`."""
    value = activation_of(activation).value
    return float(expectation(lambda x: value(x) ** 2, 1.0) - expectation(value, 1.0) ** 2)


def slope_square(activation: str) -> float:
    """`E[φ'(z)²]`: ReLU `1/2`."""
    slope = activation_of(activation).derivative
    return float(expectation(lambda x: slope(x) ** 2, 1.0))


def plain_growth(activation: str) -> float:
    """Growth by a layer of Linear, batch norm, φ in a large batch: `E[φ'(z)²]/Var φ(z)`, whatever σ_w.

    ReLU: `π/(π - 1)`, linear: 1. Derivation: the input `h = φ(z)` has variance Var φ(z) over the batch, so the
    pre-activation's is `σ_w² Var φ(z)`, by which batch norm divides squared gradients. φ multiplies them by E[φ'²], the
    transposed weights by σ_w², and what batch norm subtracts, two directions of B, is negligible. For ReLU it is
    corollary 3.6 of Yang et al. 2019.
    """
    return slope_square(activation) / value_variance(activation)


def plain_growth_at(activation: str, batch: int) -> float:
    """The same in a batch of B: `B/(B - 3) E[tr(Q D P D)]/E‖P φ(x̂)‖²`; linear: `(B - 2)/(B - 3)`.

    x̂, a unit's normalized values, is uniform on the sphere of radius √B among the vectors of mean 0; P projects on
    these, Q on those of them that are orthogonal to x̂, and `D = diag φ'(x̂)`. Derivation: a pre-activation is Gaussian
    with covariance `σ_w² v P`, `v = E‖P φ(x̂)‖²/(B - 1)`, so its squared standard deviation is `σ_w² v χ²/B` with B - 1
    degrees of freedom, independent of x̂, and `E[1/χ²] = 1/(B - 3)`. Gradients at the layer's output have covariance
    `a P`; φ and batch norm make of it `a Q D P D Q` over the squared standard deviation. The setting, in which samples
    are exchangeable, is that of Yang et al. 2019; the traces are written out in the expectations of one and of two
    entries of x̂, whose correlation is `-1/(B - 1)`.

    Raises:
      ValueError: a batch below 4, for which the growth has no mean.
    """
    if batch < 4:
        raise ValueError(f"plain_growth_at: batch must be at least 4, got {batch}")
    value, slope = activation_of(activation)
    # Two entries of x̂ are the projection of a sphere in B - 1 dimensions on a plane: round, and this long. In large
    # batches the lengths have a narrow peak, which asks for closer points.
    points, weights = unit_interval(64)
    radii = points, weights * (batch - 3) * points * (points[::-1] * (1 + points)) ** ((batch - 5) / 2)

    def moments(f: Function) -> tuple[float, float]:
        """`E[f(x̂_1)²]` and `E[f(x̂_1) f(x̂_2)]`."""
        square, product = (product_expectation(f, batch - 1.0, c, radii) for c in (1.0, -1 / (batch - 1)))
        return square, product

    squares, products = moments(value)
    slopes, slope_products = moments(slope)
    tilted, tilted_products = moments(lambda x: x * slope(x))
    kept = (batch - 2) * slopes + (slopes + (batch - 1) * slope_products) / batch
    kept -= (1 - 1 / batch) * (tilted - tilted_products)
    return batch / (batch - 3) * kept / ((batch - 1) * (squares - products))


def residual_variance(
    blocks: int, weight_std: float = 2**0.5, first: float = 1.0, activation: str = "relu"
) -> Float[np.ndarray, " layer"]:
    """Variance over a large batch after 0..`blocks` blocks of h + W φ(BN(h)): `v_l = first + l σ_w² Var φ(z)`.

    ReLU at σ_w² = 2: the slope is `(π - 1)/π`. Source: De & Smith 2020, for ReLU.
    """
    return first + np.arange(blocks + 1) * weight_std**2 * value_variance(activation)


def residual_growth(
    blocks: int, weight_std: float = 2**0.5, first: float = 1.0, activation: str = "relu"
) -> Float[np.ndarray, " block"]:
    """Growth by each of `blocks` such blocks: `1 + σ_w² E[φ'(z)²]/v_l`, `v_l` the `residual_variance` before it.

    The branch divides squared gradients by v_l and multiplies them as in `plain_growth`; weights of mean 0 make its
    gradient orthogonal to the skip's.
    """
    return 1 + weight_std**2 * slope_square(activation) / residual_variance(blocks - 1, weight_std, first, activation)

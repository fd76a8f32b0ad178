"""Closed forms of infinitely wide nets, which the measurements are held against: what the figures ask, by setting.

`weight_std` is σ_w (weights have variance σ_w²/fan_in), `bias_std` σ_b, `depth` L, λ an eigenvalue of J Jᵀ (a squared
singular value). The theory itself is in `meanfield` (no normalization), `batchnorm`, `jacobian` and `fuss_catalan`.
"""

import numpy as np
from jaxtyping import Float

from analysis import batchnorm, jacobian, meanfield
from analysis.activations import ACTIVATIONS


def growth_per_layer(norm: str, activation: str, weight_std: float, bias_std: float = 0.0) -> float | None:
    """Factor by which one plain layer multiplies the squared gradient on its way to the input; None where not known.

    Without norm it is χ₁ = σ_w² E[φ'²] at the variance q* that deep nets come to (Poole et al. 2016; Schoenholz et al.
    2017): σ_w²/2 for ReLU, σ_w² for a linear layer. With batch norm it is E[φ'²]/Var φ, π/(π - 1) for ReLU and 1 for a
    linear layer (Yang et al. 2019; large batches), whatever σ_w and σ_b.
    """
    if activation not in ACTIVATIONS:
        return None
    if norm == "none":
        return meanfield.chi_1(activation, weight_std, bias_std)
    return batchnorm.plain_growth(activation) if norm == "batch" else None


def gradient_profile(
    *,
    net: str,
    norm: str,
    order: str,
    activation: str,
    weight_std: float,
    depth: int,
    first_variance: float = 1.0,
    bias_std: float = 0.0,
    first_mean_square: float | None = None,
) -> Float[np.ndarray, " layer"] | None:
    """`‖∂loss/∂h_l‖² / ‖∂loss/∂h_L‖²` for l = 0..L at initialization; None where no closed form is known.

    Plain nets: a power of `growth_per_layer`; without norm, and with the mean square of h_0 given, the product of χ at
    the variances of the layers passed, which is exact before they settle. Pre-activation residual nets with batch norm:
    the product of `1 + σ_w² E[φ'²]/v_l` over the blocks passed, `v_l` the variance over the batch, `first_variance` for
    l = 0.
    """
    if net == "plain" and norm == "none" and first_mean_square is not None and activation in ACTIVATIONS:
        settings = (activation, weight_std, bias_std)
        # The first block's activation is of h_0 itself, or of W h_0 + b.
        first = first_mean_square if order == "pre" else weight_std**2 * first_mean_square + bias_std**2
        return meanfield.gradient_growth(depth, first, *settings)
    if net == "plain":
        growth = growth_per_layer(norm, activation, weight_std, bias_std)
        return None if growth is None else growth ** (depth - np.arange(depth + 1.0))
    if (net, norm, order) == ("residual", "batch", "pre") and activation in ACTIVATIONS:
        steps = batchnorm.residual_growth(depth, weight_std, first_variance, activation)
        return np.append(np.cumprod(steps[::-1])[::-1], 1.0)
    return None


def gradient_source(net: str, norm: str) -> str:
    """Who the profile of this kind of net is from."""
    if net == "residual":
        return "from De & Smith 2020"
    return {"none": "Schoenholz et al. 2017", "batch": "Yang et al. 2019"}[norm]


def critical_relu_variance(depth: int, init: str) -> float:
    """Variance of λ, whose mean is 1, in ReLU nets at σ_w² = 2: 2L Gaussian, L orthogonal (Pennington et al. 2018)."""
    return jacobian.eigenvalue_variance(depth, "relu", 2**0.5, init)

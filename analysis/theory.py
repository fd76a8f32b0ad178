"""Closed forms of infinitely wide nets, which the measurements are held against.

`weight_std` is σ_w (weights have variance σ_w²/fan_in), `depth` is L, λ an eigenvalue of J Jᵀ (a squared singular
value).
"""

from math import comb, pi

import numpy as np
from jaxtyping import Float

BATCH_NORM_RELU_GROWTH = pi / (pi - 1)
"""Growth of the squared gradient by a layer of Linear, batch norm, ReLU: Yang et al. 2019, large width and batch."""


def growth_per_layer(norm: str, activation: str, weight_std: float) -> float | None:
    """Factor by which one plain layer multiplies the squared gradient on its way to the input; None where not known.

    Without norm it is χ₁ = σ_w² E[φ'²] (Poole et al. 2016; Schoenholz et al. 2017): σ_w²/2 for ReLU, σ_w² for a linear
    layer. With batch norm it is π/(π - 1) for ReLU and 1 for a linear layer (Yang et al. 2019; large batches),
    whatever σ_w.
    """
    return {
        ("none", "relu"): weight_std**2 / 2,
        ("none", "linear"): weight_std**2,
        ("batch", "relu"): BATCH_NORM_RELU_GROWTH,
        ("batch", "linear"): 1.0,
    }.get((norm, activation))


def residual_variance(blocks: int, weight_std: float = 2**0.5, first: float = 1.0) -> Float[np.ndarray, " layer"]:
    """Variance over the batch after 0..`blocks` blocks of h + W ReLU(BN(h)): `first + l σ_w² (π - 1)/(2π)`.

    Source: De & Smith 2020; at σ_w² = 2 the slope is (π - 1)/π.
    """
    return first + np.arange(blocks + 1) * weight_std**2 * (pi - 1) / (2 * pi)


def gradient_profile(
    *,
    net: str,
    norm: str,
    order: str,
    activation: str,
    weight_std: float,
    depth: int,
    first_variance: float = 1.0,
) -> Float[np.ndarray, " layer"] | None:
    """`‖∂loss/∂h_l‖² / ‖∂loss/∂h_L‖²` for l = 0..L at initialization; None where no closed form is known.

    Plain nets: a power of `growth_per_layer`. Pre-activation residual nets with batch norm and ReLU: the product of
    `1 + σ_w²/(2 v_l)` over the blocks passed, `v_l` the `residual_variance`.
    """
    if net == "plain":
        growth = growth_per_layer(norm, activation, weight_std)
        return None if growth is None else growth ** (depth - np.arange(depth + 1.0))
    if (net, norm, order, activation) == ("residual", "batch", "pre", "relu"):
        steps = 1 + weight_std**2 / (2 * residual_variance(depth - 1, weight_std, first_variance))
        return np.append(np.cumprod(steps[::-1])[::-1], 1.0)
    return None


def gradient_source(net: str, norm: str) -> str:
    """Who the profile of this kind of net is from."""
    if net == "residual":
        return "from De & Smith 2020"
    return {"none": "Schoenholz et al. 2017", "batch": "Yang et al. 2019"}[norm]


def fuss_catalan_moment(k: int, depth: int) -> float:
    """`E[λ^k] = binom(kL + k, k)/(kL + 1)`, a product of L Gaussian matrices, σ_w = 1 (Penson & Zyczkowski 2011)."""
    return comb(k * depth + k, k) / (k * depth + 1)


def fuss_catalan_largest(depth: int) -> float:
    """Largest λ of a product of L Gaussian matrices at σ_w = 1: `(L + 1)^(L + 1) / L^L` (Pennington et al. 2017)."""
    return (depth + 1) * (1 + 1 / depth) ** depth


def critical_relu_variance(depth: int, init: str) -> float:
    """Variance of λ, whose mean is 1, in ReLU nets at σ_w² = 2: 2L Gaussian, L orthogonal (Pennington et al. 2018)."""
    return {"normal": 2.0, "orthogonal": 1.0}[init] * depth

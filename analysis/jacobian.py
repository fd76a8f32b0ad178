"""Moments of the Jacobian's spectrum at initialization: λ is an eigenvalue of J Jᵀ, J the product of L layers.

Nets are plain, infinitely wide, without normalization; `depth` is L, `weight_std` σ_w, `bias_std` σ_b, and
`μ_k = E[φ'(√q* z)^2k]`, z a standard Gaussian. Source: Pennington et al. 2018.
"""

from analysis.meanfield import chi_1, fixed_variance, slope_moment

# s_1: the S-transform of W Wᵀ is `1 + s_1 z` to first order, at σ_w = 1.
FIRST_COEFFICIENT = {"normal": -1.0, "orthogonal": 0.0}


def mean_eigenvalue(depth: int, activation: str, weight_std: float, bias_std: float = 0.0) -> float:
    """`E[λ] = (σ_w² μ_1)^L = χ₁^L`, at q*. Critical nets: 1.

    Raises:
      UnknownActivationError: the theory has no such activation.
    """
    return chi_1(activation, weight_std, bias_std) ** depth


def eigenvalue_variance(depth: int, activation: str, weight_std: float, init: str, bias_std: float = 0.0) -> float:
    """Variance of λ: `χ₁^2L L (μ_2/μ_1² - 1 - s_1)` at q*, s_1 = -1 for Gaussian weights, 0 for orthogonal ones.

    Critical ReLU nets: 2L and L. Linear nets at σ_w = 1: L, as the Fuss-Catalan law has, and 0.

    Raises:
      UnknownActivationError: the theory has no such activation.
      ValueError: `init` that is not one of `FIRST_COEFFICIENT`.
    """
    if init not in FIRST_COEFFICIENT:
        raise ValueError(f"eigenvalue_variance: init must be one of {', '.join(FIRST_COEFFICIENT)}, got {init!r}")
    variance = fixed_variance(activation, weight_std, bias_std)
    first, second = (float(slope_moment(variance, activation, k)) for k in (1, 2))
    spread = second / first**2 - 1 - FIRST_COEFFICIENT[init]
    return (weight_std**2 * first) ** (2 * depth) * depth * spread

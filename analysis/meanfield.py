"""Mean field theory of plain nets without normalization: what infinite width makes of signals and gradients.

A layer maps `u' = W φ(u) + b`, weights of variance σ_w²/fan_in (`weight_std` is σ_w), biases of variance σ_b²
(`bias_std` is σ_b), `activation` the name of φ. Over the weights a unit's pre-activation u is Gaussian with mean 0; its
variance is q, the correlation of its values at two inputs is c, and z is a standard Gaussian. No quantity has a unit;
depths are in layers. An activation that is not in `analysis.activations.ACTIVATIONS` raises `UnknownActivationError`.

Sources: Poole et al. 2016 (the maps of q and c, χ₁), Schoenholz et al. 2017 (the depth scales).
"""

from math import inf, log

import numpy as np
from jaxtyping import Float

from analysis.activations import activation_of
from analysis.bisection import root
from analysis.gaussian import Values, expectation, product_expectation

# What stands for a variance of 0 and for an infinite one: the factors below have limits there, and these reach them.
_SMALLEST, _LARGEST = 1e-24, 1e24
_ROUNDING = 1e-12  # of a map relative to its value, with a margin
_CRITICAL = 1e-9  # closer to 1 than this, a factor per layer counts as 1
_GRID = np.exp(np.arange(0, 64, 1 / 16))  # steps of 6 % up to 10^27: ratios in which the maps' roots are looked for


def variance_map(
    variance: Values, activation: str, weight_std: float, bias_std: float = 0.0
) -> Float[np.ndarray, "*shape"]:
    """The next layer's q: `V(q) = σ_w² E[φ(√q z)²] + σ_b²` (Poole et al. 2016, section 2)."""
    value = activation_of(activation).value
    return np.asarray(weight_std**2 * expectation(lambda u: value(u) ** 2, variance) + bias_std**2)


def variances(
    depth: int, first: float, activation: str, weight_std: float, bias_std: float = 0.0
) -> Float[np.ndarray, " layer"]:
    """`q_0..q_depth`, where `q_0 = first` and `q_{l+1} = V(q_l)`. Past float64's range it is infinite.

    Raises:
      ValueError: `first` that is negative or not a number.
    """
    if not first >= 0:
        raise ValueError(f"variances: first must be at least 0, got {first}")
    trajectory = np.full(depth + 1, inf)
    variance = first
    for layer in range(depth + 1):
        trajectory[layer] = variance
        if variance > 1e300:  # whose squares overflow: what follows stays infinite
            break
        variance = float(variance_map(variance, activation, weight_std, bias_std))
    return trajectory


def fixed_variance(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """q*, the limit of `q_{l+1} = V(q_l)` from `q_0 = first`: V increases, so the next fixed point on the way.

    - ReLU: `σ_b²/(1 - σ_w²/2)` below σ_w² = 2; at it and without biases every q is fixed, and q* is `first`.
    - 0 where signals die out, infinite where they grow without limit (ReLU above σ_w² = 2, or at it with biases). Both
      are told by the map's having no fixed point within 10^27 of the start.
    - GELU and SiLU can have two such limits; which of them is reached depends on `first`.

    Raises:
      ValueError: `first` that is not positive.
    """
    if not 0 < first < inf:
        raise ValueError(f"fixed_variance: first must be positive and finite, got {first}")

    def excess(q: Values) -> Values:
        return variance_map(q, activation, weight_std, bias_std) / q - 1

    start = float(excess(first))
    if abs(start) < _ROUNDING:
        return first
    grid = first * (_GRID if start > 0 else 1 / _GRID)
    passed = np.flatnonzero(np.sign(start) * excess(grid) < -_ROUNDING)
    if not passed.size:
        return inf if start > 0 else 0.0
    return float(root(excess, grid[passed[0] - 1], grid[passed[0]]))


def slope_moment(variance: Values, activation: str, k: int) -> Float[np.ndarray, "*shape"]:
    """`μ_k(q) = E[φ'(√q z)^2k]`; at q = 0 and at infinite q it is the limit."""
    slope = activation_of(activation).derivative
    return expectation(lambda u: slope(u) ** (2 * k), np.clip(variance, _SMALLEST, _LARGEST))


def growth_factor(variance: Values, activation: str, weight_std: float) -> Float[np.ndarray, "*shape"]:
    """`χ(q) = σ_w² E[φ'(√q z)²]`: what a layer multiplies the squared gradient by on its way to the input."""
    return np.asarray(weight_std**2 * slope_moment(variance, activation, 1))


def chi_1(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """χ₁ = χ(q*): below 1 nets are ordered and gradients vanish, above it chaotic and gradients explode.

    It is also the slope of `correlation_map` at c = 1. Source: Poole et al. 2016, section 2.
    """
    return float(growth_factor(fixed_variance(activation, weight_std, bias_std, first), activation, weight_std))


def gradient_growth(
    depth: int, first: float, activation: str, weight_std: float, bias_std: float = 0.0
) -> Float[np.ndarray, " layer"]:
    """`E‖∂/∂u_l‖² / E‖∂/∂u_depth‖²` for l = 0..depth, `q_0 = first`: the product of `χ(q_k)` over k = l..depth - 1.

    Raises:
      ValueError: `first` that is negative or not a number.
    """
    passed = growth_factor(variances(depth, first, activation, weight_std, bias_std)[:-1], activation, weight_std)
    return np.append(np.cumprod(passed[::-1])[::-1], 1.0)


def correlation_map(
    correlation: float, activation: str, weight_std: float, bias_std: float = 0.0, variance: float | None = None
) -> float:
    """The next layer's c: `(σ_w² E[φ(u₁) φ(u₂)] + σ_b²)/V(q)` at `variance`, which is q* where not given.

    At q* it is the map of Poole et al. 2016, section 2, whose denominator is `q* = V(q*)`; dividing by V(q) gives it a
    limit where q* is 0 or infinite.

    Raises:
      ValueError: a correlation outside [-1, 1].
      ZeroDivisionError: σ_w and σ_b are 0, so that there is no signal.
    """
    q = _finite(fixed_variance(activation, weight_std, bias_std) if variance is None else variance)
    covariance = weight_std**2 * product_expectation(activation_of(activation).value, q, correlation) + bias_std**2
    return covariance / float(variance_map(q, activation, weight_std, bias_std))


def fixed_correlation(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """c*, the stable fixed point of the correlation of two inputs at q*.

    1 where the map's slope at 1 is at most 1 (ordered and critical nets; positively homogeneous φ whose q* is
    infinite), else the one fixed point below 1: the map is a power series in c with no negative coefficient (Daniely et
    al. 2016), so it is convex on [0, 1]. Where every c is fixed, as for a linear net without biases, and
    where there is no signal, as at σ_w = σ_b = 0, 1.
    """
    q = _finite(fixed_variance(activation, weight_std, bias_std, first))
    following = float(variance_map(q, activation, weight_std, bias_std))
    # Nearer to critical than 10^-6, c* differs from 1 by less than the map's rounding lets tell.
    covariance_growth = float(growth_factor(q, activation, weight_std)) * q
    if covariance_growth <= (1 + 1e-6) * following:
        return 1.0

    def excess(c: Values) -> Values:
        return correlation_map(float(c), activation, weight_std, bias_std, q) - c

    if excess(0.0) < _ROUNDING:  # an odd φ and no biases: uncorrelated signals stay so
        return 0.0
    high = 1 - 1e-3 * min(covariance_growth / following - 1, 1.0)
    return 1.0 if excess(high) >= 0 else float(root(excess, 0.0, high))


def correlation_factor(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """`σ_w² E[φ'(u₁) φ'(u₂)]` at q* and c*: what a layer multiplies a deviation from c* by."""
    q = _finite(fixed_variance(activation, weight_std, bias_std, first))
    c = fixed_correlation(activation, weight_std, bias_std, first)
    return weight_std**2 * product_expectation(activation_of(activation).derivative, q, c)


def xi_c(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """`ξ_c = -1/log(σ_w² E[φ'(u₁) φ'(u₂)])` at c*: the layers in which correlations come closer to c* by a factor e.

    Infinite where the factor is 1 (critical) or above (q* is infinite, and the correlation approaches its limit slower
    than any exponential). Where q* is 0 and φ is linear there, it is the depth in which covariances fall by e.
    Source: Schoenholz et al. 2017, section 3.
    """
    return _decay_depth(correlation_factor(activation, weight_std, bias_std, first))


def xi_q(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """`ξ_q = -1/log V'(q*)`: the layers in which q comes closer to q* by a factor e. Infinite where V' is 1 or above.

    `V'(q) = σ_w² E[φ φ' z]/√q`, which by Stein's lemma is the `χ₁ + σ_w² E[φ'' φ]` of Schoenholz et al. 2017, section
    3, and needs no second derivative.
    """
    q = _finite(fixed_variance(activation, weight_std, bias_std, first))
    value, slope = activation_of(activation)
    return _decay_depth(weight_std**2 * float(expectation(lambda u: value(u) * slope(u) * u, q)) / q)


def xi_gradient(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """`ξ_∇ = -1/log χ₁`: the layers in which the squared gradient changes by e.

    Positive where it vanishes towards the input (χ₁ < 1), negative where it explodes, infinite at χ₁ = 1: over k
    layers it changes as `exp(-k/ξ_∇)`. Source: Schoenholz et al. 2017.
    """
    return _signed_depth(chi_1(activation, weight_std, bias_std, first))


def trainable_depth(activation: str, weight_std: float, bias_std: float = 0.0, first: float = 1.0) -> float:
    """`6 ξ_c` layers, about as deep as nets train (Schoenholz et al. 2017)."""
    return 6 * xi_c(activation, weight_std, bias_std, first)


def critical_weight_std(activation: str, bias_std: float = 0.0) -> float:
    """The σ_w at which χ₁ is 1 for this σ_b: the boundary of order and chaos.

    On it `σ_w² = 1/E[φ'²]` and `σ_b² = q - σ_w² E[φ²]`, both functions of q; the smallest q that has this σ_b counts.
    Without biases it is q = 0, `1/|φ'(0)|`: 1 for tanh, 2 for GELU and SiLU. Where no q has this σ_b, it is the limit
    of infinite q: √2 for ReLU, GELU and SiLU, whose signals then grow. For GELU and SiLU with
    small biases that q is an unstable fixed point, V'(q) > 1, which deep nets leave. Source: Poole et al. 2016;
    Schoenholz et al. 2017.
    """

    def scale(q: Values) -> Values:
        return growth_factor(q, activation, 1.0) ** -0.5

    def excess(q: Values) -> Values:
        return 1 - (scale(q) ** 2 * variance_map(q, activation, 1.0) + bias_std**2) / q

    if bias_std == 0:
        return float(scale(0.0))
    grid = bias_std**2 * _GRID  # q is at least σ_b²
    passed = np.flatnonzero(excess(grid) > _ROUNDING)
    if not passed.size:
        return float(scale(inf))
    return float(scale(root(excess, grid[passed[0] - 1], grid[passed[0]])))


def _finite(variance: float) -> float:
    return min(max(variance, _SMALLEST), _LARGEST)


def _signed_depth(factor: float) -> float:
    """`-1/log factor`, infinite at 1; 0 for a factor of 0, past which nothing is left."""
    if abs(factor - 1) < _CRITICAL:
        return inf
    return -1 / log(factor) if factor > 0 else 0.0


def _decay_depth(factor: float) -> float:
    """The same for a deviation that can only shrink: infinite where it does not."""
    return inf if factor > 1 else _signed_depth(factor)

"""The Fuss-Catalan law: eigenvalues λ of J Jᵀ, J a product of L square Gaussian matrices with entries of variance 1/n.

It is the limit of wide linear nets at σ_w = 1; at another scale λ is σ_w^2L times as large. The law of L = 1 is
Marchenko & Pastur's. Every λ of its support is the image of one angle φ in (0, π/(L + 1)),

    λ(φ) = sin^(L + 1)((L + 1)φ) / (sin φ sin^L(Lφ)),

which falls from the largest λ to 0, and in which density and distribution function are elementary.
Source: Penson & Zyczkowski 2011; the angle is from Haagerup & Möller 2013 and Forrester & Liu 2015.
"""

from math import comb, pi

import numpy as np
from jaxtyping import Float

from analysis.bisection import root

Values = Float[np.ndarray, "*shape"]


def fuss_catalan_moment(k: int, depth: int) -> float:
    """`E[λ^k] = binom(kL + k, k)/(kL + 1)` (Penson & Zyczkowski 2011)."""
    return comb(k * depth + k, k) / (k * depth + 1)


def fuss_catalan_largest(depth: int) -> float:
    """Largest λ: `(L + 1)^(L + 1) / L^L` (Pennington et al. 2017).

    Raises:
      ValueError: `depth` below 1.
    """
    if depth < 1:
        raise ValueError(f"fuss_catalan: depth must be at least 1, got {depth}")
    return (depth + 1) * (1 + 1 / depth) ** depth


def fuss_catalan_density(eigenvalues: Values, depth: int) -> Values:
    """Density of λ: `sin((L + 1)φ) sin φ / (π λ sin Lφ)` at the angle φ of λ.

    0 outside of the support, and infinite at λ = 0, where the density grows as λ^(-L/(L + 1)).

    Raises:
      ValueError: `depth` below 1.
    """
    inside = (eigenvalues > 0) & (eigenvalues < fuss_catalan_largest(depth))
    chosen = np.where(inside, eigenvalues, 1.0)
    angle = _angle(chosen, depth)
    density = np.sin((depth + 1) * angle) * np.sin(angle) / (pi * chosen * np.sin(depth * angle))
    return np.where(inside, density, np.where(eigenvalues == 0, np.inf, 0.0))


def fuss_catalan_distribution(eigenvalues: Values, depth: int) -> Values:
    """Probability of an eigenvalue up to λ: `1 - ((L + 1)φ - L sin φ sin((L + 1)φ)/sin Lφ)/π` at the angle φ of λ.

    Derived here: along φ the density times |dλ/dφ| is `sin²φ ((cot φ - L cot Lφ)² + (L + 1)²)/π`, of which the
    bracket above is π times the integral.

    Raises:
      ValueError: `depth` below 1.
    """
    inside = (eigenvalues > 0) & (eigenvalues < fuss_catalan_largest(depth))
    angle = _angle(np.where(inside, eigenvalues, 1.0), depth)
    return np.where(inside, 1 - _above(angle, depth), np.where(eigenvalues <= 0, 0.0, 1.0))


def fuss_catalan_quantile(probabilities: Values, depth: int) -> Values:
    """The λ up to which the law has these probabilities, each in [0, 1].

    Raises:
      ValueError: `depth` below 1, or a probability outside [0, 1].
    """
    if ((probabilities < 0) | (probabilities > 1)).any():
        raise ValueError(f"fuss_catalan_quantile: probabilities must be in [0, 1], got {probabilities}")
    largest = fuss_catalan_largest(depth)
    inside = (probabilities > 0) & (probabilities < 1)
    chosen = np.where(inside, probabilities, 0.5)
    angle = root(lambda angle: _above(angle, depth) - (1 - chosen), *_bracket(chosen, depth))
    ends = np.where(probabilities == 0, 0.0, largest)
    return np.where(inside, np.exp(_log_eigenvalue(angle, depth)), ends)


def _bracket(like: Values, depth: int) -> tuple[Values, Values]:
    """The interval of angles, short of its ends, where the formulas are 0/0."""
    return np.full_like(like, 1e-9 * pi / (depth + 1)), np.full_like(like, (1 - 1e-15) * pi / (depth + 1))


def _log_eigenvalue(angle: Values, depth: int) -> Values:
    """`log λ(φ)`: as a product of powers it overflows in deep nets."""
    top, middle, bottom = (np.log(np.sin(k * angle)) for k in (depth + 1, depth, 1))
    return (depth + 1) * top - depth * middle - bottom


def _angle(eigenvalues: Values, depth: int) -> Values:
    """The φ of every λ."""
    low, high = _bracket(eigenvalues, depth)
    # Closer to the ends than the bracket, λ has the angle of the end.
    logs = np.clip(np.log(eigenvalues), _log_eigenvalue(high, depth), _log_eigenvalue(low, depth))
    return root(lambda angle: _log_eigenvalue(angle, depth) - logs, low, high)


def _above(angle: Values, depth: int) -> Values:
    """Probability of a larger eigenvalue than the angle's."""
    ratio = np.sin((depth + 1) * angle) / np.sin(depth * angle)
    return ((depth + 1) * angle - depth * np.sin(angle) * ratio) / pi

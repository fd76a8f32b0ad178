"""The fused batch norm with XLA's own reductions: every backend."""

from jax import Array

from kernels.batchnorm.fused import Elementwise, Reductions, precision
from kernels.batchnorm.rows import sums
from kernels.batchnorm.statistics import Statistics, local
from kernels.linear import Arrays


def _statistics(x: Array, mask: Array | None) -> Statistics:
    return local(x.astype(precision(x)), mask)


def _sums(function: Elementwise, rows: Arrays, features: Arrays) -> tuple[Array, ...]:
    return tuple(sums(function(rows, features)))


REDUCTIONS = Reductions(_statistics, _sums)

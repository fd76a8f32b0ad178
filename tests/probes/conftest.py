"""The networks and inputs that probes of layers are tested on."""

from functools import cache

import jax
import pytest
from flax import nnx

from nets import MLP
from tests.probes.networks import DEPTH
from tests.tiers import slow


@cache
def made(norm, order):
    return MLP(5, 3, DEPTH, 6, net="residual", norm=norm, order=order, bias_std=0.3, rngs=nnx.Rngs(0))


@pytest.fixture(params=[("none", "post"), ("batch", "pre"), slow(("batch", "post"))], ids="-".join)
def network(request, double):
    return nnx.clone(made(*request.param))


@pytest.fixture
def x(double):
    return jax.random.normal(jax.random.key(1), (9, 5), float)

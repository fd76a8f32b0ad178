"""The networks and inputs that probes of layers are tested on."""

import jax
import pytest
from flax import nnx

from nets import MLP
from tests.probes.networks import DEPTH


@pytest.fixture(params=[("none", "post"), ("batch", "post"), ("batch", "pre")], ids="-".join)
def network(request, double):
    norm, order = request.param
    return MLP(5, 3, DEPTH, 6, net="residual", norm=norm, order=order, bias_std=0.3, rngs=nnx.Rngs(0))


@pytest.fixture
def x(double):
    return jax.random.normal(jax.random.key(1), (9, 5), float)

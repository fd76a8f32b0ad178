"""The theory's gradient profile for members of a run, their settings read off the run."""

import numpy as np
import xarray as xr

from analysis import batchnorm, theory
from analysis.activations import ACTIVATIONS


def profile_of(members: xr.Dataset, depth: int) -> np.ndarray | None:
    """`theory.gradient_profile` for members of one kind and setting, at one of their depths, or None.

    The theory is of perceptrons.
    """
    chosen = members.isel(member=members.depth.values == depth, layer=0, probe_step=0)
    config = members.attrs["config"]
    # The theory's nets begin with what the first hidden state is here, which is known if signals were measured.
    if config["arch"] != "mlp" or not _is_measured(chosen):
        return None
    return theory.gradient_profile(
        net=str(members.net.values[0]),
        norm=str(members.norm.values[0]),
        order=config["order"],
        activation=config["activation"],
        weight_std=float(members.weight_std.values[0]),
        depth=depth,
        first_variance=float(chosen.batch_variance.mean()),
        bias_std=float(members.bias_std.values[0]),
        first_mean_square=float(chosen.second_moment.mean()),
    )


def residual_variance_of(members: xr.Dataset, depth: int) -> np.ndarray | None:
    """`batchnorm.residual_variance` after 0..depth blocks of such members, or None."""
    chosen = members.isel(member=members.depth.values == depth, layer=0, probe_step=0)
    activation = members.attrs["config"]["activation"]
    if not _is_measured(chosen) or activation not in ACTIVATIONS:
        return None
    weight_std = float(members.weight_std.values[0])
    return batchnorm.residual_variance(depth, weight_std, float(chosen.batch_variance.mean()), activation)


def _is_measured(chosen: xr.Dataset) -> bool:
    names = ("batch_variance", "second_moment")
    return all(name in chosen and np.isfinite(chosen[name]).all() for name in names)

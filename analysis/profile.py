"""The theory's gradient profile for members of a run, their settings read off the run."""

import numpy as np
import xarray as xr

from analysis import theory


def profile_of(members: xr.Dataset, depth: int) -> np.ndarray | None:
    """`theory.gradient_profile` for members of one kind and setting, at one of their depths, or None.

    The theory is of perceptrons.
    """
    chosen = members.isel(member=members.depth.values == depth)
    config = members.attrs["config"]
    if config["arch"] != "mlp":
        return None
    return theory.gradient_profile(
        net=str(members.net.values[0]),
        norm=str(members.norm.values[0]),
        order=config["order"],
        activation=config["activation"],
        weight_std=float(members.weight_std.values[0]),
        depth=depth,
        first_variance=float(chosen.batch_variance.isel(probe_step=0, layer=0).mean()),
    )

"""Deeper plain nets train worse; residual ones do not (He et al. 2015, 2016), at a size that a laptop can train."""

from collections.abc import Mapping

import numpy as np
import xarray as xr

from analysis.load import kind, values
from analysis.reproductions.claim import Claim, Experiment, estimated

_LAST_STEPS = 20


def _judge(runs: Mapping[str, xr.Dataset]) -> list[Claim]:
    (results,) = runs.values()
    depths = values(results, "depth")
    shallow, deep = depths[0], depths[-1]

    def loss(net: str, depth: int) -> np.ndarray:
        members = kind(results, net, "batch", depth)
        return np.log(members.train_loss.isel(step=slice(-_LAST_STEPS, None)).mean("step").values)

    source = "He et al. 2015, figure 6, and 2016"
    return [
        Claim(
            f"plain: log training loss at depth {deep} less that at {shallow}",
            source,
            ">",
            0.0,
            estimated(loss("plain", deep) - loss("plain", shallow)),
        ),
        Claim(
            "the same of residual nets, less that of plain ones",
            source,
            "<",
            0.0,
            estimated(
                loss("residual", deep) - loss("residual", shallow) - (loss("plain", deep) - loss("plain", shallow))
            ),
        ),
        Claim(
            f"depth {deep}: test accuracy of residual less that of plain nets",
            source,
            ">",
            0.0,
            estimated(
                kind(results, "residual", "batch", deep).test_accuracy.isel(probe_step=-1).values
                - kind(results, "plain", "batch", deep).test_accuracy.isel(probe_step=-1).values
            ),
        ),
    ]


# Theirs takes an accelerator and CIFAR-10: the nets are thinner here, and the images scikit-learn's digits.
_SMALL = ("--dataset", "digits", "--augment", "none", "--width", "8", "--batch-size", "64", "--schedule", "cosine")
_SMALL += (
    "--learning-rates",
    "0.05",
    "--probes",
    "signals",
    "gradients",
    "--probe-batch-size",
    "64",
    "--seeds",
    "0",
    "1",
    "2",
)

EXPERIMENT = Experiment(
    "he2016-degradation",
    "Degradation",
    _judge,
    quick=("--depths", "8", "32", "--steps", "60", "--warmup-steps", "10", "--probe-steps", "60"),
    runs={"": (*_SMALL, "--depths", "8", "20", "56", "--steps", "300", "--warmup-steps", "30", "--probe-steps", "100")},
)

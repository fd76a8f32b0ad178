"""Known experiments by name: `python train.py --preset NAME`; other flags change what a preset sets."""

from collections.abc import Callable

from sweep.config import Config
from sweep.presets import initial, training

PRESETS: dict[str, Callable[[], Config]] = {
    "quickstart": training.quickstart,
    "he2016-degradation": training.he2016_degradation,
    "yang2019-explosion": initial.yang2019_explosion,
    "pennington2018-spectra": initial.pennington2018_spectra,
    "schoenholz2017-depth-scale": initial.schoenholz2017_depth_scale,
    "ioffe2015-drift": training.ioffe2015_drift,
    "bjorck2018-learning-rates": training.bjorck2018_learning_rates,
    "santurkar2018-smoothness": training.santurkar2018_smoothness,
    "desmith2020-identity": initial.desmith2020_identity,
    "balduzzi2017-shattering": initial.balduzzi2017_shattering,
    "xiao2018-vanilla-cnn": training.xiao2018_vanilla_cnn,
    "xiao2018-ten-thousand-layers": training.xiao2018_ten_thousand_layers,
}

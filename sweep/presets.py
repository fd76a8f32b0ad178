"""Known experiments by name: `python train.py --preset NAME`; other flags change what a preset sets."""

from collections.abc import Callable

from sweep.config import Config


def quickstart() -> Config:
    """48 MLPs of depths 2 to 64 on digits, with and without skips and batch norm; what no flags at all ask for.

    Command: `python train.py`.
    Hardware, time: 2 CPU cores, a minute, 2.1 GB.
    Expect: test accuracy above 0.95 for all four kinds at depth 2; at depth 64 plain nets at 0.10 without and at 0.15
    with batch norm, residual nets without it diverged from depth 16 on, and with it 0.96 at every depth.
    """
    return Config()


def he2016_degradation() -> Config:
    """Plain and residual CNNs of 20 to 110 layers on CIFAR-10: deeper is worse, unless there are skips.

    Command: `python train.py --preset he2016-degradation --data-dir PATH`.
    Source: He et al. 2015 (arXiv:1512.03385), section 4.2: depths, option A, initialization, augmentation, SGD with
    momentum 0.9 and weight decay 0.0001, 64,000 steps of 128 images, the rate divided by 10 at 32,000 and 48,000. Not
    theirs: all nets rise to the full rate over 400 steps (there only that of 110 layers starts at a tenth), the
    running statistics' momentum, images normalized by channel (theirs: by pixel), decay of convolutions and the
    readout's matrix only, and no images are held out.
    Hardware, time: an accelerator; not measured on one. What the README shows took 6 minutes on 2 CPU cores.
    Expect: test error 8.75, 7.51, 7.17, 6.97, 6.43 % for residual nets of 20, 32, 44, 56, 110 layers (their table 6);
    6.43 their best of five runs, 6.61 +- 0.16; plain nets' training and test error grow with depth (their figure
    6), that of 110 layers above 60 %.
    """
    return Config(
        arch="cnn",
        norms=("batch",),
        depths=(20, 32, 44, 56, 110),
        seeds=(0,),
        width=16,
        weight_std=(2**0.5,),
        learning_rates=(0.1,),
        weight_decay=1e-4,
        schedule="steps",
        warmup_steps=400,
        dataset="cifar10",
        augment="crop-flip",
        steps=64_000,
        spectrum_batch_size=2,
    )


def xiao2018_vanilla_cnn() -> Config:
    """Plain tanh CNNs without norm, Gaussian weights: they train as deep as the critical weight scale lets signals go.

    Command: `python train.py --preset xiao2018-vanilla-cnn --data-dir PATH`; with `--init delta-orthogonal` the other
    half of the paper, where depth costs next to nothing at the critical scale.
    Source: Xiao et al., Dynamical Isometry and a Mean Field Theory of CNNs (arXiv:1806.05393), sections 2 and 3. Not
    theirs: zero padding (theirs is periodic), 32 channels (256), these scales, SGD's rate, momentum and batch size.
    Hardware, time: meant for an accelerator; not measured on one.
    Expect: nets train down to about 6 xi_c layers (their figure 4), xi_c the depth scale of correlations. Mean field
    theory for tanh and this bias scale gives 6 xi_c = 28 at weight scale 0.9 (ordered, signals die out), 950 at 1
    (close to critical) and 102 at 1.5 (chaotic, signals decorrelate): of depths 16, 64 and 256 all train at 1, at 1.5
    not the deepest, at 0.9 the shallowest alone.
    """
    return Config(
        arch="isotropic-cnn",
        nets=("plain",),
        norms=("none",),
        depths=(16, 64, 256),
        seeds=(0,),
        width=32,
        activation="tanh",
        weight_std=(0.9, 1.0, 1.5),
        bias_std=(0.0045,),
        learning_rates=(0.01,),
        dataset="cifar10",
        steps=2_000,
        spectrum_batch_size=2,
    )


PRESETS: dict[str, Callable[[], Config]] = {
    "quickstart": quickstart,
    "he2016-degradation": he2016_degradation,
    "xiao2018-vanilla-cnn": xiao2018_vanilla_cnn,
}

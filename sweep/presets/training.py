"""Presets whose point is what training does."""

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


def ioffe2015_drift() -> Config:
    """Plain nets of three layers with and without batch norm: how far a unit's input drifts while they train.

    Command: `python train.py --preset ioffe2015-drift`.
    Source: Ioffe & Szegedy 2015 (arXiv:1502.03167), section 4.1 and figure 1: three layers of 100 units, batches of 60.
    Not theirs: digits (MNIST), tanh (sigmoid), 2,000 steps (50,000), twelve seeds.
    Hardware, time: 2 CPU cores, half a minute.
    Expect: the percentiles of the last layer's first unit move less with batch norm (their figure 1 b and c).
    """
    return Config(
        nets=("plain",),
        depths=(3,),
        seeds=tuple(range(12)),
        width=100,
        activation="tanh",
        learning_rates=(0.05,),
        momentum=0.0,
        batch_size=60,
        steps=2_000,
        probes=("signals", "shift"),
    )


def bjorck2018_learning_rates() -> Config:
    """Residual nets at 13 learning rates, with and without batch norm: what it buys is the larger step.

    Command: `python train.py --preset bjorck2018-learning-rates`.
    Source: Bjorck et al. 2018 (arXiv:1806.02375), section 3: with batch norm nets train at rates at which without it
    they diverge in the first steps, and it is these rates that train faster and generalize better. Not theirs: MLPs on
    digits (a ResNet of 110 layers on CIFAR-10).
    Hardware, time: 2 CPU cores, two minutes.
    Expect: the largest rate that trains falls with depth without batch norm, and hardly with it.
    """
    return Config(
        nets=("residual",),
        depths=(4, 8, 16),
        seeds=(0, 1, 2, 3, 4),
        order="pre",
        weight_std=(2**0.5,),
        learning_rates=(1e-5, 3e-5, 1e-4, 3e-4, 1e-3, 3e-3, 1e-2, 3e-2, 0.1, 0.3, 1.0, 3.0, 10.0),
        momentum=0.0,
        steps=300,
        probe_steps=(1, 2, 5, 10, 15, 20, 30, 40, 60, 80, 100, 140, 180, 220, 260),
        probes=("signals",),
    )


def santurkar2018_smoothness() -> Config:
    """Plain nets with and without batch norm: covariate shift, and how smooth the loss is along its gradient.

    Command: `python train.py --preset santurkar2018-smoothness`.
    Source: Santurkar et al. 2018 (arXiv:1805.11604), sections 2.2 and 3.2, figures 2 and 4. Not theirs: MLPs of eight
    layers on digits (VGG on CIFAR-10).
    Hardware, time: 2 CPU cores, a minute.
    Expect: with batch norm the loss varies less along the gradient, the gradient changes less, and the effective
    smoothness is smaller; the covariate shift is no smaller with it.
    """
    return Config(
        nets=("plain",),
        depths=(8,),
        seeds=tuple(range(12)),
        weight_std=(2**0.5,),
        learning_rates=(0.1,),
        momentum=0.0,
        steps=300,
        probe_steps=(1, 3, 10, 20, 30, 50, 75, 100, 150, 200, 250),
        probes=("shift", "surface"),
    )


def xiao2018_ten_thousand_layers() -> Config:
    """A plain tanh net of 10,000 layers without norm that trains, for its orthogonal weights at the critical scale.

    Command: `python train.py --preset xiao2018-ten-thousand-layers`.
    Source: Xiao et al. 2018 (arXiv:1806.05393), section 4 and figure 1, whose nets are convolutional. The weight scale
    is critical for these biases: the variance of pre-activations tends to 0.003, where the mean square singular value
    of every layer is 1 and those of 10,000 together are still close to one another.
    Hardware, time: 2 CPU cores, a quarter of an hour, 2 GB: hidden states of every hundredth layer are kept.
    Expect: the squared gradient by the last layer is that by the first to within a factor of 300, all of it from the
    first hundred layers, where the signal is still large; the loss falls.
    """
    return Config(
        nets=("plain",),
        norms=("none",),
        depths=(10_000,),
        seeds=(0,),
        activation="tanh",
        init="orthogonal",
        weight_std=(1.0031,),
        bias_std=(0.0002,),
        learning_rates=(1e-4,),
        remat="sqrt",
        steps=100,
        probe_steps=(10, 30),
        probe_batch_size=64,
        spectrum_batch_size=2,
        probes=("signals", "gradients", "spectra", "half-spectra"),
    )

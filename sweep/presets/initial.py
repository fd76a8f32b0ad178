"""Presets whose point is what networks are at initialization. Their one training step is not."""

from sweep.config import Config


def yang2019_explosion() -> Config:
    """Plain nets with batch norm at three weight scales: their gradients explode, whatever the scale.

    Command: `python train.py --preset yang2019-explosion`; other activations with `--activation`.
    Source: Yang et al. 2019 (arXiv:1902.08129), section 3 and corollary 3.6, for infinite width; here it is 512.
    Hardware, time: 2 CPU cores, a minute.
    Expect: the squared gradient grows by pi/(pi - 1) = 1.467 a layer of ReLUs towards the input, by 1.18 of tanh, and
    not at all in a linear net, (B - 2)/(B - 3) at batches of B.
    """
    return Config(
        nets=("plain",),
        norms=("batch",),
        depths=(16,),
        seeds=(0, 1, 2, 3),
        width=512,
        weight_std=(0.5, 1.0, 2.0),
        dataset="noise",
        steps=1,
        probe_batch_size=512,
        probes=("signals", "gradients"),
    )


def pennington2018_spectra() -> Config:
    """Plain nets at the critical scale: how the Jacobian's singular values spread with depth.

    Command: `python train.py --preset pennington2018-spectra`, and `--init orthogonal`; linear nets with
    `--activation linear --weight-std 1`.
    Source: Pennington et al. 2017 (arXiv:1711.04735) and 2018 (1802.09979), section 3; Penson & Zyczkowski 2011.
    Hardware, time: 2 CPU cores, a minute.
    Expect: the variance of the squared singular values, over their squared mean, is 2L for Gaussian and L for
    orthogonal weights; linear nets follow the Fuss-Catalan law, or are isometries.
    """
    return Config(
        nets=("plain",),
        norms=("none",),
        depths=(1, 2, 4, 8),
        seeds=(0, 1, 2, 3),
        width=384,
        weight_std=(2**0.5,),
        dataset="noise",
        steps=1,
        probe_batch_size=16,
        spectrum_batch_size=2,
        probes=("signals", "spectra"),
    )


def schoenholz2017_depth_scale() -> Config:
    """210 plain tanh nets, ten depths by 21 weight scales: they train as deep as correlations reach.

    Command: `python train.py --preset schoenholz2017-depth-scale`.
    Source: Schoenholz et al. 2017 (arXiv:1611.01232), figure 5: biases of variance 0.05, SGD. Not theirs: digits
    (MNIST), width 64 (300), 600 steps at a rate of 0.0005 with momentum (200 at 0.001).
    Hardware, time: 2 CPU cores, two minutes: one program for all.
    Expect: nets train down to about 6 xi_c layers, deepest near the critical weight scale of 1.33.
    """
    return Config(
        nets=("plain",),
        norms=("none",),
        depths=(2, 4, 8, 12, 16, 24, 32, 48, 64, 96),
        seeds=(0,),
        activation="tanh",
        weight_std=tuple(round(1 + 0.05 * i, 2) for i in range(21)),
        bias_std=(0.05**0.5,),
        learning_rates=(0.0005,),
        steps=600,
        probe_steps=(),
        probes=("signals", "gradients"),
    )


def desmith2020_identity() -> Config:
    """Residual nets with and without batch norm: it makes deep blocks tend to the identity.

    Command: `python train.py --preset desmith2020-identity`.
    Source: De & Smith 2020 (arXiv:2002.10444), sections 2 and 3.
    Hardware, time: 2 CPU cores, half a minute.
    Expect: with batch norm the variance grows by (pi - 1)/pi a block and the branch's share falls like 1/l; without it
    the variance doubles and the share is a half at every block.
    """
    return Config(
        nets=("residual",),
        depths=(24,),
        seeds=tuple(range(4)),
        width=384,
        order="pre",
        weight_std=(2**0.5,),
        dataset="noise",
        steps=1,
        probe_batch_size=384,
        probes=("signals", "gradients", "branches"),
    )


def balduzzi2017_shattering() -> Config:
    """Plain and residual nets of ReLUs: how alike the gradients at two inputs are.

    Command: `python train.py --preset balduzzi2017-shattering`.
    Source: Balduzzi et al. 2017 (arXiv:1702.08591), sections 2 and 3, where inputs lie on a line; here they are noise.
    Hardware, time: 2 CPU cores, half a minute.
    Expect: the gradients' correlation falls like 1/2^L in plain nets, (3/4)^L in residual ones, and 1/sqrt(L) in
    residual nets with batch norm; all of it for inputs whose patterns of active units are independent.
    """
    return Config(
        depths=(2, 4, 8, 16, 32),
        seeds=(0, 1, 2, 3),
        width=200,
        order="pre",
        weight_std=(2**0.5,),
        dataset="noise",
        steps=1,
        probes=("signals", "shattering", "representation"),
    )

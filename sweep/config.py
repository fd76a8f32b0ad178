"""What a sweep is: a frozen dataclass whose fields are the command line's flags."""

import operator
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import tyro

from nets import ACTIVATIONS, INITIALIZERS, NORMS, ORDERS, SKIP_STRENGTH
from nets.basic import SHORTCUTS
from nets.cnn import blocks_per_stage
from probes import PROBES
from sweep.augmentations import AUGMENTATIONS
from sweep.climb import REMATERIALIZATIONS
from sweep.data import DATASETS
from sweep.errors import UserError, unknown
from sweep.members import ARCHITECTURES
from sweep.mesh import read_mesh
from sweep.optimizers import OPTIMIZERS, SCHEDULES

# What a training step rounds to; None is JAX's default precision.
PRECISIONS = {"full": None, "bfloat16": "bfloat16"}

# The names each field may hold come from the registries, so that adding to a registry is all there is to adding a name.
CHOICES: dict[str, Iterable[str]] = {
    "arch": ARCHITECTURES,
    "nets": SKIP_STRENGTH,
    "norms": NORMS,
    "activation": ACTIVATIONS,
    "order": ORDERS,
    "init": INITIALIZERS,
    "shortcut": SHORTCUTS,
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "dataset": DATASETS,
    "augment": AUGMENTATIONS,
    "precision": PRECISIONS,
    "remat": REMATERIALIZATIONS,
    "probes": PROBES,
}


def _choice(field: str, several: bool = False) -> Any:
    names = "{" + ",".join(CHOICES[field]) + "}"
    return tyro.conf.arg(metavar=f"{names} [{names} ...]" if several else names)


@dataclass(frozen=True)
class Config:
    """Train many depths of a network at once, and measure what depth does to signals and gradients.

    Flags that take several values sweep: every combination is one member of the sweep. Members that differ only in
    numbers train together in one compiled program. With no flags this is the quickstart.
    """

    arch: Annotated[str, _choice("arch")] = "mlp"
    """Architecture: a perceptron, He et al. 2015's CNN of three stages, or a CNN of one size throughout."""
    nets: Annotated[tuple[str, ...], _choice("nets", True)] = ("plain", "residual")
    """Net kinds: without and with skip connections."""
    norms: Annotated[tuple[str, ...], _choice("norms", True)] = ("none", "batch")
    """Normalization of every layer."""
    depths: tuple[int, ...] = (2, 4, 8, 16, 32, 64)
    """Numbers of hidden blocks, each one weight matrix or convolution; for cnn layers with weights, 6n + 2."""
    seeds: tuple[int, ...] = (0, 1)
    """Seeds of initial weights, batch order and augmentation."""
    width: int = 64
    """Units in every hidden layer, channels of a CNN's first stage."""
    activation: Annotated[str, _choice("activation")] = "relu"
    """Activation function."""
    order: Annotated[str, _choice("order")] = "post"
    """Activation after the skip is added (He et al. 2015) or before the weights (He et al. 2016)."""
    init: Annotated[str, _choice("init")] = "normal"
    """Distribution of the initial weights."""
    shortcut: Annotated[str, _choice("shortcut")] = "A"
    """How skips of a CNN change size: by zeros (A) or a projection (B)."""
    weight_std: tuple[float, ...] = (1.0,)
    """Scale of the initial weights, variance weight_std^2/fan_in: 1 is LeCun's, 1.414 He's for ReLU. Sweeps."""
    bias_std: tuple[float, ...] = (0.0,)
    """Scale of the initial biases. Sweeps."""
    optimizer: Annotated[str, _choice("optimizer")] = "sgd"
    """Optimizer."""
    learning_rates: tuple[float, ...] = (0.01,)
    """Peak learning rates."""
    momentum: float = 0.9
    """Momentum of SGD; beta_1 of Adam and AdamW."""
    weight_decay: float | None = None
    """Decay of weight matrices and convolutions: decoupled for AdamW, by default 0.01; part of the gradient for SGD and
    Adam, by default 0."""
    schedule: Annotated[str, _choice("schedule")] = "constant"
    """Learning rate after warm-up: held, a cosine to zero at the last step, or divided by 10 at 1/2 and at 3/4."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises linearly from zero."""
    precision: Annotated[str, _choice("precision")] = "full"
    """What training steps compute in: single precision (double with JAX_ENABLE_X64=1), or bfloat16 with statistics,
    weights and everything measured in full."""
    remat: Annotated[str, _choice("remat")] = "none"
    """What the backward pass keeps of hidden states: all, or those of every sqrt(depth)-th layer, from which it
    computes the others again."""
    dataset: Annotated[str, _choice("dataset")] = "digits"
    """Data set; digits comes with scikit-learn, noise is white, the others are read from --data-dir."""
    data_dir: Path | None = None
    """Folder that holds the data set's files."""
    augment: Annotated[str, _choice("augment")] = "none"
    """What is done to training images at random: crop-flip pads 4 pixels, crops and mirrors."""
    batch_size: int = 128
    """Samples per step."""
    steps: int = 300
    """Training steps."""
    probes: Annotated[tuple[str, ...], _choice("probes", True)] = ("signals", "gradients", "spectra")
    """What to measure."""
    probe_steps: tuple[int, ...] | None = None
    """Steps at which to measure, besides 0 and the last; by default 1, 3, 10, 30, 100, 300, ..."""
    probe_batch_size: int = 128
    """Training samples that the probes see."""
    spectrum_batch_size: int = 8
    """Samples of these at which Jacobian spectra and tangent kernels are taken; coupled spectra use these samples' own
    batch statistics."""
    test_samples: int | None = None
    """Test samples that are evaluated, by default all."""
    checkpoint_minutes: float = 5.0
    """Minutes between checkpoints; with 0 there are only those at the end and when a run is told to stop."""
    keep_checkpoints: int = 2
    """Checkpoints of each program that are kept, the newest ones."""
    mesh: str | None = None
    """Devices: members=4,batch=2 spreads members over 4, and shares each batch among 2; by default members over all."""
    out: Path = Path("runs")
    """Folder that holds the runs."""
    name: str | None = None
    """Name of this run's folder in --out; by default data set, architecture and time."""
    report: bool = True
    """Draw the figures and write report.html when training is done."""

    def __post_init__(self) -> None:
        """Raises UserError at the first field that makes no sense, before anything is loaded or compiled."""
        hints = get_type_hints(type(self))
        for field in fields(self):
            flag = flag_name(field.name)
            value = _coerced(flag, hints[field.name], getattr(self, field.name))
            object.__setattr__(self, field.name, value)
            if isinstance(value, tuple):
                if not value and field.name != "probe_steps":
                    raise UserError(f"{flag} is empty; give at least one value")
                repeated = sorted({str(v) for v in value if value.count(v) > 1})
                if repeated:
                    raise UserError(f"{flag} repeats {', '.join(repeated)}; give every value once")
            if field.name in CHOICES:
                for name in value if isinstance(value, tuple) else (value,):
                    if name not in CHOICES[field.name]:
                        raise unknown(flag, name, CHOICES[field.name])
        for name, least in (
            ("depths", 1),
            ("width", 1),
            ("batch_size", 2),
            ("steps", 1),
            ("warmup_steps", 0),
            ("probe_batch_size", 2),
            ("spectrum_batch_size", 2),
            ("test_samples", 1),
            ("checkpoint_minutes", 0.0),
            ("keep_checkpoints", 1),
            ("seeds", 0),
            ("weight_std", 0.0),
            ("bias_std", 0.0),
            ("learning_rates", 0.0),
            ("momentum", 0.0),
            ("weight_decay", 0.0),
            ("probe_steps", 0),
        ):
            value = getattr(self, name)
            for number in value if isinstance(value, tuple) else () if value is None else (value,):
                if not least <= number < float("inf"):
                    raise UserError(f"{flag_name(name)} must be at least {least} and finite, got {number}")
        if self.arch == "cnn":
            for depth in self.depths:
                try:
                    blocks_per_stage(depth)
                except ValueError as error:
                    raise UserError(f"--depths: {error}; give --depths 8 14 20, say") from None
        elif self.shortcut != "A":
            raise UserError(f"--shortcut is of --arch cnn, whose blocks change size; --arch is {self.arch}")
        if max(self.seeds) >= 2**31:
            raise UserError(f"--seeds must be below 2^31, got {max(self.seeds)}")
        if self.momentum >= 1:
            raise UserError(f"--momentum must be below 1, got {self.momentum}")
        if self.mesh is not None and (shared := read_mesh(self.mesh).get("batch", 1)) > self.batch_size:
            raise UserError(f"--mesh batch={shared} is more devices than a batch has samples, {self.batch_size}")
        if self.spectrum_batch_size > self.probe_batch_size:
            raise UserError(
                f"--spectrum-batch-size must be at most --probe-batch-size {self.probe_batch_size}, "
                f"got {self.spectrum_batch_size}"
            )
        if self.warmup_steps > self.steps:
            raise UserError(f"--warmup-steps must be at most --steps {self.steps}, got {self.warmup_steps}")
        if self.probe_steps and max(self.probe_steps) > self.steps:
            raise UserError(f"--probe-steps must be at most --steps {self.steps}, got {max(self.probe_steps)}")
        if self.name is not None and (not self.name or Path(self.name).name != self.name):
            raise UserError(f"--name must be a folder's name without a path, got {self.name!r}")

    @property
    def measured_steps(self) -> tuple[int, ...]:
        """Every step at which the sweep is measured, in order: always 0 and the last."""
        chosen = self.probe_steps
        if chosen is None:
            chosen = tuple(m * 10**e for e in range(8) for m in (1, 3))
        return tuple(sorted({0, self.steps, *(s for s in chosen if s < self.steps)}))

    def to_dict(self) -> dict[str, Any]:
        """Plain values only, as written to `config.yaml`."""

        def plain(value: Any) -> Any:
            if isinstance(value, tuple):
                return list(value)
            return str(value) if isinstance(value, Path) else value

        return {name: plain(value) for name, value in asdict(self).items()}

    @classmethod
    def from_dict(cls, plain: dict[str, Any]) -> "Config":
        """The inverse of `to_dict`.

        Raises:
          UserError: an unknown field, or whatever the values' own checks refuse.
        """
        known = {field.name for field in fields(cls)}
        for name in plain:
            if name not in known:
                raise unknown("field", str(name), known)
        values: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in plain.items()
        }
        values |= {name: Path(values[name]) for name in ("out", "data_dir") if values.get(name) is not None}
        return cls(**values)


def flag_name(field: str) -> str:
    """The command line's spelling of a field."""
    return "--" + field.replace("_", "-")


def _coerced(flag: str, hint: Any, value: Any) -> Any:
    """The value as its field's type: from Python, a list or array may stand for a tuple, a string for a path.

    Raises:
      UserError: it cannot be read as that type.
    """
    if value is None and type(None) in get_args(hint):
        return None
    for kind in (hint, *get_args(hint)):
        if get_origin(kind) is tuple:
            values = (value,) if isinstance(value, str) or not isinstance(value, Iterable) else value
            return tuple(_coerced(flag, get_args(kind)[0], one) for one in values)
    kind = next((k for k in (hint, *get_args(hint)) if k in _READERS), hint)
    read, expected = _READERS[kind]
    try:
        return read(value)
    except (TypeError, ValueError):
        raise UserError(f"{flag} takes {expected}, got {value!r}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError
    return value


_READERS: dict[Any, tuple[Callable[[Any], Any], str]] = {
    int: (operator.index, "a whole number"),
    float: (float, "a number"),
    str: (_text, "a name"),
    bool: (bool, "True or False"),
    Path: (Path, "a path"),
}

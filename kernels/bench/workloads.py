"""Shapes that batch norm meets: members of sweeps, and the stages of convolutional networks."""

import math
from dataclasses import dataclass

import jax.numpy as jnp


@dataclass(frozen=True)
class Workload:
    """One call of batch norm.

    Attributes:
      shape: `[member, rows, features]` with `members`, else `[..., features]`.
      members: whether the first axis is one of members, each with its own statistics.
    """

    shape: tuple[int, ...]
    members: bool = False
    dtype: str = "float32"
    relu: bool = True
    residual: bool = False

    @property
    def name(self) -> str:
        extras = [self.dtype] + ["relu"] * self.relu + ["residual"] * self.residual
        return " ".join(["x".join(map(str, self.shape)) + (" members" if self.members else ""), *extras])

    @property
    def bytes(self) -> int:
        """Size of the input."""
        return math.prod(self.shape) * jnp.dtype(self.dtype).itemsize

    def traffic(self, part: str) -> int:
        """Bytes that a part must move: every large array once.

        Forward reads x (and the residual) and writes y; backward reads x and y's cotangent (and, for relu after a
        residual, y's sign, as y) and writes the cotangents of x (and of the residual).
        """
        forward = 2 + self.residual
        backward = 3 + self.residual * (1 + self.relu)
        return self.bytes * {"forward": forward, "keeping": forward, "backward": backward}.get(part, forward + backward)


SWEEPS = [
    Workload((members, 128, width), members=True) for members, width in ((48, 64), (24, 256), (8, 1024), (2, 4096))
]
CNNS = [
    Workload(shape)
    for shape in ((128, 32, 32, 16), (128, 16, 16, 32), (128, 8, 8, 64), (128, 32, 32, 64), (256, 8, 8, 512))
]
RESNET50 = [Workload(shape) for shape in ((32, 56, 56, 64), (32, 28, 28, 512), (32, 14, 14, 1024), (32, 7, 7, 2048))]
VARIANTS = [
    Workload((128, 32, 32, 64), relu=False),
    Workload((128, 32, 32, 64), residual=True),
    Workload((24, 128, 256), members=True, relu=False),
    Workload((24, 128, 256), members=True, residual=True),
    Workload((128, 32, 32, 64), dtype="bfloat16"),
    Workload((24, 128, 256), members=True, dtype="bfloat16"),
]
WORKLOADS = [*SWEEPS, *CNNS, *RESNET50, *VARIANTS]
QUICK = [Workload((24, 128, 64), members=True), Workload((128, 16, 16, 32))]

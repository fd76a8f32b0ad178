"""Where a strided convolution reads."""

from dataclasses import dataclass
from typing import Literal

Padding = Literal["same", "centred"]


@dataclass(frozen=True)
class Axis:
    """One spatial axis: `y[o] = sum_t x[o * stride + t - before] w[t]`, with x zero outside `0..size`.

    The output has ceil(size / stride) entries. `same` is XLA's: as little padding as that takes, an odd pixel of it
    after the image. `centred` puts an odd window's middle on every `stride`-th pixel, as PyTorch does with
    `padding=window // 2`. Without a stride they agree on odd windows.
    """

    size: int
    window: int
    stride: int
    padding: Padding = "same"

    @property
    def outputs(self) -> int:
        """Entries of y."""
        return -(-self.size // self.stride)

    @property
    def reach(self) -> int:
        """Entries of padded x that are read: from the first window's start to the last one's end."""
        return (self.outputs - 1) * self.stride + self.window

    @property
    def before(self) -> int:
        """Zeros before x."""
        return (self.window - 1) // 2 if self.padding == "centred" else max(self.reach - self.size, 0) // 2

    @property
    def after(self) -> int:
        """Zeros after x; negative where the last windows end before x does."""
        return self.reach - self.size - self.before


@dataclass(frozen=True)
class Geometry:
    """The spatial side of a convolution."""

    height: Axis
    width: Axis

    @classmethod
    def of(cls, size: tuple[int, int], window: tuple[int, int], stride: int, padding: Padding = "same") -> "Geometry":
        """Of images `size`, kernels `window`, both height by width."""
        return cls(*(Axis(n, k, stride, padding) for n, k in zip(size, window, strict=True)))

    @property
    def axes(self) -> tuple[Axis, Axis]:
        """Height and width."""
        return self.height, self.width

    @property
    def zeros(self) -> list[tuple[int, int]]:
        """Zeros around x, per axis."""
        return [(axis.before, max(axis.after, 0)) for axis in self.axes]

    @property
    def stride(self) -> int:
        """The same on both axes."""
        return self.height.stride

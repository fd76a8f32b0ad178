"""What every data set is loaded as."""

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float32, Int32, UInt8

from sweep.data.moments import Moments, moments


@dataclass(frozen=True)
class Dataset:
    """A classification data set, split for training and test: images as their files hold them, unscaled.

    `class_count` is for sets that know it; else the largest label says it.
    """

    train_images: UInt8[np.ndarray, "train height width channel"] | Float32[np.ndarray, "train height width channel"]
    train_labels: Int32[np.ndarray, " train"]
    test_images: UInt8[np.ndarray, "test height width channel"] | Float32[np.ndarray, "test height width channel"]
    test_labels: Int32[np.ndarray, " test"]
    class_count: int | None = None

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.class_count or int(max(self.train_labels.max(), self.test_labels.max())) + 1

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Height, width and channels."""
        _, height, width, channels = self.train_images.shape
        return height, width, channels

    @property
    def mean(self) -> Float32[np.ndarray, " channel"]:
        """Mean of each channel over the training images' samples and pixels."""
        return self._moments[0].astype(np.float32)

    @property
    def std(self) -> Float32[np.ndarray, " channel"]:
        """Standard deviation of each channel over the same; 1 for a constant channel, which has no scale."""
        std = self._moments[1].astype(np.float32)
        return np.where(std > 0, std, np.float32(1))

    @cached_property
    def _moments(self) -> Moments:
        return moments(self.train_images)

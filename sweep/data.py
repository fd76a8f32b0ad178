"""Data sets, whole and in memory: images scaled to zero mean and unit variance, labels as integers."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float, Int

from sweep.cifar import cifar10
from sweep.errors import UserError


@dataclass(frozen=True)
class Dataset:
    """A classification data set, split for training and test; one row per sample."""

    train_inputs: Float[np.ndarray, "train features"]
    train_labels: Int[np.ndarray, " train"]
    test_inputs: Float[np.ndarray, "test features"]
    test_labels: Int[np.ndarray, " test"]

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(max(self.train_labels.max(), self.test_labels.max())) + 1


Split = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]


def _digits(data_dir: Path | None) -> Split:
    """1,797 8x8 digits (Alpaydin & Kaynak 1998), 80 % to train on, every class in equal shares."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    train, test, train_labels, test_labels = train_test_split(
        images, labels, test_size=0.2, random_state=0, stratify=labels
    )
    return np.asarray(train), np.asarray(train_labels), np.asarray(test), np.asarray(test_labels)


def _cifar10(data_dir: Path | None) -> Split:
    if data_dir is None:
        raise UserError("--dataset cifar10 needs --data-dir, the folder that holds cifar-10-batches-py")
    return cifar10(data_dir)


DATASETS: dict[str, Callable[[Path | None], Split]] = {"digits": _digits, "cifar10": _cifar10}


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Loads a data set by name and standardizes it by the training images' mean and variance over all pixels.

    Raises:
      UserError: files that are missing or not what they should be.
    """
    train, train_labels, test, test_labels = DATASETS[name](data_dir)
    mean, std = train.mean(), train.std()

    def standardized(images: np.ndarray) -> np.ndarray:
        flat = images.reshape(len(images), -1).astype(np.float32)
        flat -= np.float32(mean)
        flat /= np.float32(std)
        return flat

    return Dataset(standardized(train), train_labels.astype(np.int32), standardized(test), test_labels.astype(np.int32))

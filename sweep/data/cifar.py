"""CIFAR-10 and CIFAR-100 (Krizhevsky 2009), 32x32 colour images, in both official layouts."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int32, UInt8

from sweep.data import pickled
from sweep.data.checks import checked_labels, refusal, refusing
from sweep.data.dataset import Dataset
from sweep.errors import UserError

_PIXELS = 3 * 32 * 32

# Planar images, all of red, then green, then blue, row by row; and their labels.
Batch = tuple[UInt8[np.ndarray, "sample 3072"], Int32[np.ndarray, " sample"]]


@dataclass(frozen=True)
class _Layout:
    """Where one layout's files are: a subfolder, the training batches' pattern, the test batch; and what reads them."""

    folder: str
    train: str
    test: str
    read: Callable[[Path], Batch]


def _read_pickled(path: Path, key: str, classes: int) -> Batch:
    """A batch of the python layout."""
    with refusing(path, "a CIFAR batch"):
        batch = pickled.arrays(path.read_bytes())
        if not {"data", key} <= batch.keys():
            raise ValueError(f"expected entries data and {key}, found {', '.join(batch) or 'none'}")
    images, labels = batch["data"], batch[key]
    # Only a flat list: a few nested ones that share their parts would become an array that fills the memory.
    if isinstance(labels, list) and all(type(label) is int for label in labels):
        labels = np.asarray(labels)
    if not (isinstance(images, np.ndarray) and isinstance(labels, np.ndarray)):
        found = f"{type(images).__name__} and {type(labels).__name__}"
        raise refusal(path, f"expected an array data, an array or list of whole numbers {key}, found {found}")
    if images.ndim != 2 or images.shape[1] != _PIXELS or images.dtype != np.uint8:
        raise refusal(path, f"expected uint8 images [n, {_PIXELS}], found {images.dtype} of shape {images.shape}")
    return images, checked_labels(path, labels, len(images), classes)


def _read_binary(path: Path, label_bytes: int, classes: int) -> Batch:
    """A batch of the binary layout: for each image its label, the last of the `label_bytes`, then its pixels."""
    with refusing(path, "a CIFAR batch"):
        content = path.read_bytes()
    record = label_bytes + _PIXELS
    if not content or len(content) % record:
        raise refusal(path, f"expected records of {record} bytes, found {len(content)} bytes")
    records = np.frombuffer(content, np.uint8).reshape(-1, record)
    return records[:, label_bytes:], checked_labels(path, records[:, label_bytes - 1], len(records), classes)


def _images(planar: UInt8[np.ndarray, "sample 3072"]) -> UInt8[np.ndarray, "sample 32 32 3"]:
    return np.ascontiguousarray(planar.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))


def _load(title: str, data_dir: Path, layouts: tuple[_Layout, ...], classes: int) -> Dataset:
    for layout in layouts:
        for folder in (data_dir, data_dir / layout.folder):
            with refusing(folder, "a folder of CIFAR batches"):
                train, test = sorted(folder.glob(layout.train)), folder / layout.test
            if train and os.path.exists(test):  # Path.exists raises where a folder may not be entered
                batches = [layout.read(path) for path in train]
                images, labels = (np.concatenate(parts) for parts in zip(*batches, strict=True))
                test_images, test_labels = layout.read(test)
                return Dataset(_images(images), labels, _images(test_images), test_labels, classes)
    files = " or ".join(f"{layout.train} and {layout.test} (there or in {layout.folder})" for layout in layouts)
    raise UserError(
        f"no {title} in {data_dir}: looked for {files}; "
        "get its python or binary version from https://www.cs.toronto.edu/~kriz/cifar.html"
    )


def cifar10(data_dir: Path) -> Dataset:
    """CIFAR-10 in `data_dir` or its subfolder; fewer than the five training batches will do.

    Raises:
      UserError: a file is missing, or is not a CIFAR-10 batch; nothing in it is executed.
    """
    layouts = (
        _Layout("cifar-10-batches-py", "data_batch_[1-5]", "test_batch", lambda p: _read_pickled(p, "labels", 10)),
        _Layout("cifar-10-batches-bin", "data_batch_[1-5].bin", "test_batch.bin", lambda p: _read_binary(p, 1, 10)),
    )
    return _load("CIFAR-10", data_dir, layouts, 10)


def cifar100(data_dir: Path) -> Dataset:
    """CIFAR-100 with its fine labels, in `data_dir` or its subfolder.

    Raises:
      UserError: a file is missing, or is not a CIFAR-100 batch; nothing in it is executed.
    """
    layouts = (
        _Layout("cifar-100-python", "train", "test", lambda p: _read_pickled(p, "fine_labels", 100)),
        _Layout("cifar-100-binary", "train.bin", "test.bin", lambda p: _read_binary(p, 2, 100)),
    )
    return _load("CIFAR-100", data_dir, layouts, 100)

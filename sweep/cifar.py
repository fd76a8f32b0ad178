"""CIFAR-10 in its official python layout, read without trusting the pickles (Krizhevsky 2009)."""

import pickle
from pathlib import Path

import numpy as np

from sweep.errors import UserError

_ADMITTED = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}


class _ArrayUnpickler(pickle.Unpickler):
    """Admits what a pickled NumPy array names, and nothing else: a file cannot make it call anything."""

    def find_class(self, module: str, name: str):
        if (module, name) not in _ADMITTED:
            raise pickle.UnpicklingError(f"names {module}.{name}, which no CIFAR file does")
        return super().find_class(module, name)


_UNREADABLE = (OSError, EOFError, pickle.UnpicklingError, ImportError)
_UNREADABLE += (AttributeError, IndexError, KeyError, TypeError, ValueError)  # what a damaged pickle raises


def _read(path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        with path.open("rb") as file:
            batch = _ArrayUnpickler(file, encoding="bytes").load()
        images, labels = np.asarray(batch[b"data"]), np.asarray(batch[b"labels"])
    except _UNREADABLE as error:
        raise UserError(f"{path} is not a CIFAR-10 batch: {error}") from error
    if images.ndim != 2 or not len(images) or images.shape[1] != 3072 or images.dtype != np.uint8:
        raise UserError(f"{path}: expected uint8 images [n, 3072], found {images.dtype} {images.shape}")
    if labels.shape != images.shape[:1] or labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{path}: expected {len(images)} labels from 0 to 9, found {labels.shape}")
    return images, labels


def cifar10(data_dir: Path) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Reads `data_batch_*` and `test_batch` from `data_dir` or its subfolder `cifar-10-batches-py`.

    Raises:
      UserError: a file is missing, or is not a CIFAR-10 batch; nothing in it is executed.
    """
    for folder in (data_dir, data_dir / "cifar-10-batches-py"):
        train, test = sorted(folder.glob("data_batch_*")), folder / "test_batch"
        if train and test.is_file():
            batches = [_read(path) for path in train]
            images, labels = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
            return images, labels, *_read(test)
    raise UserError(
        f"no CIFAR-10 in {data_dir}: looked for data_batch_1..5 and test_batch, there and in cifar-10-batches-py; "
        "get cifar-10-python.tar.gz from https://www.cs.toronto.edu/~kriz/cifar.html"
    )

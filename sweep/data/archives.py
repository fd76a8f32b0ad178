"""One's own arrays in a .npz archive, under Keras' names."""

import os
import zipfile
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from sweep.data.checks import check_alike, checked_labels, refusal, refusing
from sweep.data.dataset import Dataset
from sweep.data.moments import Images
from sweep.errors import UserError

_NAMES = ("x_train", "y_train", "x_test", "y_test")


def _archive(data_dir: Path) -> Path:
    """The file itself, or the one in the folder."""
    if data_dir.suffix == ".npz" or os.path.isfile(data_dir):
        return data_dir
    with refusing(data_dir, "a folder"):
        found = sorted(data_dir.glob("*.npz"))
    if len(found) == 1:
        return found[0]
    raise UserError(
        f"--dataset npz reads a .npz file or a folder that holds exactly one: {data_dir} holds {len(found)}"
    )


def _arrays(path: Path) -> list[Shaped[np.ndarray, "..."]]:
    with refusing(path, "a .npz archive"), zipfile.ZipFile(path) as archive:
        found = [name.removesuffix(".npy") for name in archive.namelist()]
        if not set(_NAMES) <= set(found):
            raise refusal(path, f"expected the arrays {', '.join(_NAMES)}, found {', '.join(found) or 'none'}")
        arrays = []
        for name in _NAMES:
            with archive.open(f"{name}.npy") as member:
                arrays.append(np.lib.format.read_array(member, allow_pickle=False))
                if member.read(1):  # which has the checksum compared, too
                    raise refusal(path, f"expected the end of {name} after shape {arrays[-1].shape}, found more")
        return arrays


def _images(path: Path, name: str, array: Shaped[np.ndarray, "..."]) -> Images:
    """[n, height, width, channel], [n, height, width], or rows [n, features], which become images one pixel high."""
    if array.ndim not in (2, 3, 4) or not array.size:
        raise refusal(path, f"expected {name} of shape [n, height, width, channel], found {array.shape}")
    if array.ndim == 2:
        array = array[:, None, :]
    if array.ndim == 3:
        array = array[..., None]
    if array.dtype == np.uint8:
        return np.ascontiguousarray(array)
    if array.dtype.kind != "f":
        raise refusal(path, f"expected {name} of uint8 or floating-point numbers, found {array.dtype}")
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite and is refused
        images = np.ascontiguousarray(array, np.float32)
    finite = np.isfinite(images).all((1, 2, 3))
    if not finite.all():
        raise refusal(path, f"expected finite numbers in {name}, found NaN or infinity in sample {finite.argmin()}")
    return images


def npz(data_dir: Path) -> Dataset:
    """Images x_train and x_test, channels last, uint8 or floating; whole-number labels y_train and y_test.

    Raises:
      UserError: a file, array, shape or number is missing or not what it should be; nothing is unpickled.
    """
    path = _archive(data_dir)
    train, train_labels, test, test_labels = _arrays(path)

    def labels(name: str, given: Shaped[np.ndarray, "..."], images: int):
        column = given[:, 0] if given.ndim == 2 and given.shape[1] == 1 else given  # Keras' CIFAR has [n, 1]
        return checked_labels(f"{path}: {name}", column, images, classes=len(train))

    images, test_images = _images(path, "x_train", train), _images(path, "x_test", test)
    check_alike(path, images, test_images)
    return Dataset(
        images,
        labels("y_train", train_labels, len(train)),
        test_images,
        labels("y_test", test_labels, len(test)),
    )

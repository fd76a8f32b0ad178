"""A folder of images sorted into classes: train/<class>/*.png and test/<class>/*.png, as for torchvision and Keras."""

import os
from pathlib import Path

import numpy as np
from jaxtyping import Int32

from sweep.data.checks import refusal, refusing
from sweep.data.dataset import Dataset
from sweep.data.pictures import stacked
from sweep.errors import UserError, unknown

_SUFFIXES = (".png", ".jpg", ".jpeg", ".bmp", ".webp")


def _classes(folder: Path) -> list[str]:
    with refusing(folder, "a folder of classes"):
        return sorted(entry.name for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))


def _files(folder: Path, classes: list[str]) -> tuple[list[Path], Int32[np.ndarray, " sample"]]:
    """The image files by class, then name, and the classes' numbers."""
    paths, labels = [], []
    for name in _classes(folder):
        if name not in classes:
            raise refusal(folder, str(unknown("class", name, classes)))
        with refusing(folder / name, "a folder of images"):
            found = sorted(path for path in (folder / name).iterdir() if path.suffix.lower() in _SUFFIXES)
        if not found:
            raise refusal(folder / name, f"expected images ({', '.join(_SUFFIXES)}), found none")
        paths += found
        labels += [classes.index(name)] * len(found)
    if not paths:
        raise refusal(folder, "expected a folder of images for each class, found none")
    return paths, np.asarray(labels, np.int32)


def image_folder(data_dir: Path) -> Dataset:
    """Reads train/<class>/* and test/<class>/*, PNG, JPEG, BMP or WebP; the classes are numbered by name.

    Raises:
      UserError: a folder is missing or empty, or an image is damaged, or of another size or number of channels.
    """
    train, test = data_dir / "train", data_dir / "test"
    if not (os.path.isdir(train) and os.path.isdir(test)):  # Path.is_dir raises where a folder may not be entered
        raise UserError(
            f"no image folder in {data_dir}: looked for train/<class> and test/<class>, folders of images "
            f"({', '.join(_SUFFIXES)}), one for each class"
        )
    classes = _classes(train)
    (paths, labels), (test_paths, test_labels) = _files(train, classes), _files(test, classes)
    images = stacked(((path, path) for path in paths), len(paths))
    test_images = stacked(((path, path) for path in test_paths), len(test_paths), images.shape[1:])
    return Dataset(images, labels, test_images, test_labels, len(classes))

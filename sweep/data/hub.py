"""Data sets of the Hugging Face library, from a folder on disk."""

from collections.abc import Iterator
from importlib import import_module
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from sweep.data.checks import checked_labels, refusal, refusing
from sweep.data.dataset import Dataset
from sweep.data.pictures import stacked
from sweep.errors import UserError

_LABELS = ("label", "labels", "fine_label")


def _library() -> Any:
    try:
        return import_module("datasets")
    except ImportError as error:
        raise UserError("--dataset huggingface needs `datasets`: pip install 'fathom[huggingface]'") from error


def _columns(where: str, library: Any, features: Any) -> tuple[str, str]:
    """The image column, and the label column: one of the usual names, or the only one of classes."""
    images = [name for name, feature in features.items() if isinstance(feature, library.Image)]
    classes = [name for name, feature in features.items() if isinstance(feature, library.ClassLabel)]
    usual = [name for name in _LABELS if name in features]
    if len(images) != 1 or not (usual or len(classes) == 1):
        raise refusal(
            where,
            f"expected one column of images and one of labels ({', '.join(_LABELS)}), found {', '.join(features)}",
        )
    return images[0], (usual or classes)[0]


def _encoded(where: str, rows: Any, column: str) -> Iterator[tuple[str, BytesIO]]:
    """Each row's image file. Its bytes only: a path could lead anywhere, and the library follows it."""
    with refusing(where, "rows of images"):
        for index, row in enumerate(rows):
            file = row[column]
            if not (file and file["bytes"]):
                raise refusal(f"{where}[{index}]", "expected the bytes of an image, found none")
            yield f"{where}[{index}]", BytesIO(file["bytes"])


def _read(
    where: str, library: Any, split: Any, shape: tuple[int, ...] | None, classes: int | None
) -> tuple[UInt8[np.ndarray, "sample height width channel"], Int32[np.ndarray, " sample"], int | None]:
    """Images, labels, and the number of classes where the label column tells it."""
    image_column, label_column = _columns(where, library, split.features)
    with refusing(where, "a table of images"):
        split = split.with_format(None)
        labels = np.asarray(split.select_columns([label_column])[:][label_column])
        rows = split.select_columns([image_column]).cast_column(image_column, library.Image(decode=False))
    feature = split.features[label_column]
    own = feature.num_classes if isinstance(feature, library.ClassLabel) else None
    labels = checked_labels(f"{where}: {label_column}", labels, len(split), own or classes or len(split))
    return stacked(_encoded(where, rows, image_column), len(split), shape), labels, own


def huggingface(data_dir: Path) -> Dataset:
    """Reads a `DatasetDict` that `save_to_disk` wrote: splits train and test, or validation where there is no test.

    Raises:
      UserError: the library is not installed, or the folder, a split, column, image or label is not what it should be.
    """
    library = _library()
    with refusing(data_dir, "a folder written by DatasetDict.save_to_disk"):
        splits = library.load_from_disk(str(data_dir))
    names = list(splits) if isinstance(splits, dict) else []
    test = next((name for name in ("test", "validation") if name in names), None)
    if "train" not in names or test is None:
        raise refusal(data_dir, f"expected splits train and test, or validation, found {', '.join(names) or 'none'}")
    images, labels, classes = _read(f"{data_dir}: train", library, splits["train"], None, None)
    test_images, test_labels, _ = _read(
        f"{data_dir}: {test}", library, splits[test], images.shape[1:], classes or len(images)
    )
    return Dataset(images, labels, test_images, test_labels, classes)

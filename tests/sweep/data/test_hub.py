"""Folders that the Hugging Face library wrote; without it, what to install."""

import io
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from sweep.data import load

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 5, 4, 3), np.uint8)


def test_without_the_library(tmp_path, refused, monkeypatch):
    monkeypatch.setitem(sys.modules, "datasets", None)
    refused("huggingface", tmp_path, r"needs `datasets`: pip install 'fathom\[huggingface\]'")


@pytest.fixture
def library(tmp_path, monkeypatch):
    """The library, its cache in the test's folder and its progress bars off."""
    monkeypatch.setenv("HF_HOME", str(tmp_path / "cache"))
    datasets = pytest.importorskip("datasets")
    datasets.disable_progress_bars()
    return datasets


def png(pixels):
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return {"bytes": file.getvalue(), "path": None}


def split(library, images=IMAGES, labels=(0, 2, 1, 1, 0, 0), column="label", label=None):
    files = [png(image) if isinstance(image, np.ndarray) else image for image in images]
    label = label or library.ClassLabel(names=["ant", "bee", "cat", "dog"])
    features = library.Features({"image": library.Image(), column: label})
    return library.Dataset.from_dict({"image": files, column: list(labels)[: len(files)]}, features)


def save(library, folder, **splits):
    library.DatasetDict(splits).save_to_disk(str(folder / "saved"))
    return folder / "saved"


@pytest.mark.peers
@pytest.mark.parametrize("test", ["test", "validation"])
@pytest.mark.parametrize("column", ["label", "labels", "fine_label", "species"])
def test_saved_splits(tmp_path, library, test, column):
    train = split(library, column=column).with_format("numpy")
    data = load(
        "huggingface", save(library, tmp_path, train=train, **{test: split(library, IMAGES[:2], column=column)})
    )
    np.testing.assert_array_equal(data.train_images, IMAGES)
    np.testing.assert_array_equal(data.test_images, IMAGES[:2])
    assert data.train_labels.tolist() == [0, 2, 1, 1, 0, 0]
    assert data.classes == 4


@pytest.mark.peers
def test_whole_numbers_for_labels(tmp_path, library):
    train = split(library, IMAGES[..., 0], label=library.Value("int64"))
    data = load("huggingface", save(library, tmp_path, train=train, test=train))
    np.testing.assert_array_equal(data.test_images, IMAGES[..., :1])
    assert data.classes == 3


BROKEN = {
    "no labels": (lambda d: {"train": split(d).remove_columns("label")}, "train: expected one column of .*found image"),
    "no images": (lambda d: {"train": split(d).remove_columns("image")}, "train: expected one column of .*found label"),
    "empty": (
        lambda d: {"train": split(d).select([])},
        "saved: not a folder written by |train: label: expected images, found none",
    ),
    "unlabelled": (lambda d: {"test": split(d, labels=[-1] * 6)}, "test: label: expected labels from 0 to 3, found -1"),
    "a missing label": (lambda d: {"train": split(d, labels=[None] * 6)}, "label: expected 6 labels, .* found object"),
    "text for labels": (
        lambda d: {"train": split(d, labels="abcdef", label=d.Value("string"))},
        "train: label: expected 6 labels, whole numbers, found <U1",
    ),
    "more classes than images": (
        lambda d: {"train": split(d, labels=[0, 1, 2, 3, 4, 6], label=d.Value("int32"))},
        "train: label: expected labels from 0 to 5, found 6",
    ),
    "an odd image": (
        lambda d: {"train": split(d, [IMAGES[0], IMAGES[1, :3]])},
        r"train\[1\]: expected 5x4x3 as the images before it, found 3x4x3",
    ),
    "an odd test image": (lambda d: {"test": split(d, IMAGES[..., 0])}, r"test\[0\]: expected 5x4x3 .*, found 5x4x1"),
    "a damaged image": (
        lambda d: {"train": split(d, [IMAGES[0], {"bytes": b"text", "path": None}])},
        r"train\[1\]: not an image: cannot identify",
    ),
    "a missing image": (
        lambda d: {"train": split(d, [None])},
        r"train\[0\]: expected the bytes of an image, found none",
    ),
}


@pytest.mark.peers
@pytest.mark.parametrize(("splits", "message"), BROKEN.values(), ids=list(BROKEN))
def test_splits_that_are_not_what_they_should_be(tmp_path, library, refused, splits, message):
    both = {"train": split(library), "test": split(library)}
    refused("huggingface", save(library, tmp_path, **(both | splits(library))), message)


@pytest.mark.peers
def test_folders_that_are_not_what_they_should_be(tmp_path, library, refused):
    refused("huggingface", tmp_path / "nowhere", "nowhere: not a folder written by DatasetDict.save_to_disk: ")
    refused("huggingface", tmp_path, "not a folder written by DatasetDict.save_to_disk: ")
    split(library).save_to_disk(str(tmp_path / "alone"))
    refused("huggingface", tmp_path / "alone", "expected splits train and test, or validation, found none")
    train = save(library, tmp_path / "half", train=split(library))
    refused("huggingface", train, "expected splits train and test, or validation, found train")
    folder = save(library, tmp_path, train=split(library), test=split(library))
    table = next((folder / "train").glob("*.arrow"))
    table.write_bytes(table.read_bytes()[:500])
    refused("huggingface", folder, "not a folder written by DatasetDict.save_to_disk: |not a table of images: ")
    shutil.rmtree(folder / "train")
    refused("huggingface", folder, "not a folder written by DatasetDict.save_to_disk: ")

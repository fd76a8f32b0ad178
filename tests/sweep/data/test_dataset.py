"""The data sets by name, the one that needs no files, and the statistics."""

import numpy as np
import pytest

from sweep.data import DATASETS, Dataset, load
from sweep.data.moments import moments
from sweep.errors import UserError


def dataset(images):
    labels = np.arange(len(images), dtype=np.int32)
    return Dataset(images, labels, images[:2], labels[:2])


def test_digits():
    data = load("digits")
    assert data.train_images.shape == (1437, 8, 8, 1)
    assert data.test_images.shape == (360, 8, 8, 1)
    assert data.train_images.dtype == np.uint8
    assert (data.train_images.min(), data.train_images.max()) == (0, 16)
    assert data.classes == 10
    assert data.image_shape == (8, 8, 1)
    # Every class has its share of the test set.
    assert np.bincount(data.test_labels).min() >= 35


@pytest.mark.parametrize("kind", [np.uint8, np.float32])
@pytest.mark.parametrize("shape", [(700, 16, 8, 3), (5, 7, 3, 1), (3, 1, 2**20, 1)], ids=["blocks", "few", "large"])
def test_mean_and_std_by_channel(kind, shape):
    # Of several blocks, one, and samples as large as a block; all in float64 is the slow twin.
    images = np.random.default_rng(0).integers(0, 256, shape).astype(kind)
    images = images if kind == np.uint8 else images / np.float32(255) + np.float32(100)
    mean, std = moments(images)
    # Twin and sums round differently, by 2^-53 of sums of 2^20 terms or fewer.
    np.testing.assert_allclose(mean, images.mean((0, 1, 2), dtype=np.float64), rtol=1e-10)
    np.testing.assert_allclose(std, images.astype(np.float64).std((0, 1, 2)), rtol=1e-10)
    data = dataset(images)
    np.testing.assert_array_equal(data.mean, mean.astype(np.float32))
    np.testing.assert_array_equal(data.std, std.astype(np.float32))


@pytest.mark.parametrize("value", [0, 7, 0.1, 1e30])
def test_a_constant_channel_has_std_one(value):
    images = np.random.default_rng(0).random((1000, 5, 5, 2), np.float32)
    images[..., 1] = value
    data = dataset(images)
    assert data.mean[1] == np.float32(value)
    assert data.std[1] == 1
    assert data.std[0] < 1
    if value == int(value) < 256:
        assert dataset(images.astype(np.uint8)).std[1] == 1


def test_classes_are_the_sets_own_or_what_the_labels_reach():
    images, labels = np.zeros((3, 2, 2, 1), np.uint8), np.array([0, 4, 1], np.int32)
    assert Dataset(images, labels, images, labels).classes == 5
    assert Dataset(images, labels, images, labels, 10).classes == 10


def test_a_set_of_files_needs_data_dir(refused):
    for name in set(DATASETS) - {"digits", "noise"}:
        refused(name, None, f"^--dataset {name} needs --data-dir, (the folder|a .npz file) that holds ")


def test_an_unknown_set():
    with pytest.raises(UserError, match="unknown data set 'cifar11'; did you mean 'cifar1"):
        load("cifar11")


def test_a_set_that_does_not_fit_in_memory(refused, monkeypatch):
    def too_large(data_dir):
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setitem(DATASETS, "digits", too_large)
    refused("digits", None, "--dataset digits does not fit in memory: Unable to allocate 9 TiB")


def test_noise_is_white_and_the_same_every_time():
    one, other = load("noise"), load("noise")
    np.testing.assert_array_equal(one.train_images, other.train_images)
    assert one.image_shape == (28, 28, 1)
    rows = one.train_images.reshape(2048, -1)
    # Standard errors of a mean of 1.6 million numbers, and of a correlation of 2048.
    assert abs(rows.mean()) < 4 / 1266
    assert np.abs(np.corrcoef(rows[:, :50].T) - np.eye(50)).max() < 5 / 2048**0.5
    assert set(one.train_labels) == set(range(10))

"""Data sets: what is loaded, and what is refused."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sweep.data import load
from sweep.errors import UserError

REAL = Path(__file__).parents[3] / "shared" / "data"


def write_batch(path, images, labels):
    path.write_bytes(pickle.dumps({b"data": images, b"labels": labels}, protocol=2))


@pytest.fixture
def cifar(tmp_path):
    rng = np.random.default_rng(0)
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        write_batch(folder / name, rng.integers(0, 256, (20, 3072), np.uint8), rng.integers(0, 10, 20).tolist())
    return tmp_path


def test_digits():
    data = load("digits")
    assert data.train_inputs.shape == (1437, 64)
    assert data.test_inputs.shape == (360, 64)
    assert data.classes == 10
    assert abs(data.train_inputs.mean()) < 1e-4
    assert abs(data.train_inputs.std() - 1) < 1e-4
    # Every class has its share of the test set.
    assert np.bincount(data.test_labels).min() >= 35


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10(cifar, inside):
    data = load("cifar10", cifar / "cifar-10-batches-py" if inside else cifar)
    assert data.train_inputs.shape == (40, 3072)
    assert data.test_inputs.shape == (20, 3072)


@pytest.mark.skipif(not REAL.exists(), reason="the CIFAR-10 images are not part of the project")
def test_real_cifar10():
    data = load("cifar10", REAL)
    assert data.train_inputs.shape == (10000, 3072)
    assert (np.bincount(data.train_labels) == 1000).all()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def test_a_hostile_file_runs_nothing(cifar, monkeypatch):
    monkeypatch.chdir(cifar)
    path = cifar / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(pickle.dumps({b"data": Hostile(), b"labels": []}))
    with pytest.raises(UserError, match=r"data_batch_1 is not a CIFAR-10 batch: names (posix|nt)\.system"):
        load("cifar10", cifar)
    assert not (cifar / "hostile").exists()


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda path: path.write_bytes(path.read_bytes()[:1000]), "is not a CIFAR-10 batch"),
        (lambda path: path.write_bytes(pickle.dumps([1, 2])), "is not a CIFAR-10 batch"),
        (lambda path: write_batch(path, np.zeros((5, 10), np.uint8), [0] * 5), r"expected uint8 images \[n, 3072\]"),
        (lambda path: write_batch(path, np.zeros((5, 3072), np.uint8), [0, 1, 2, 3, 10]), "expected 5 labels from 0"),
        (lambda path: write_batch(path, np.zeros((5, 3072), np.uint8), [0]), "expected 5 labels from 0 to 9"),
    ],
)
def test_broken_files(cifar, break_it, message):
    break_it(cifar / "cifar-10-batches-py" / "data_batch_2")
    with pytest.raises(UserError, match=message):
        load("cifar10", cifar)


def test_missing_files_say_what_was_looked_for(tmp_path):
    with pytest.raises(UserError, match=r"no CIFAR-10 in .*: looked for data_batch_1..5 and test_batch"):
        load("cifar10", tmp_path)
    with pytest.raises(UserError, match="--dataset cifar10 needs --data-dir"):
        load("cifar10")

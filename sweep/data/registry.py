"""The data sets by name."""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from sweep.data.archives import npz
from sweep.data.cifar import cifar10, cifar100
from sweep.data.dataset import Dataset
from sweep.data.folder import image_folder
from sweep.data.hub import huggingface
from sweep.data.idx import fashion_mnist, mnist
from sweep.errors import UserError, unknown


def digits(data_dir: Path | None) -> Dataset:
    """1,797 8x8 digits (Alpaydin & Kaynak 1998), 80 % to train on, every class in equal shares; of no files."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    images = np.asarray(images, np.uint8).reshape(-1, 8, 8, 1)  # whole numbers from 0 to 16
    labels = np.asarray(labels, np.int32)
    train, test = train_test_split(np.arange(len(labels)), test_size=0.2, random_state=0, stratify=labels)
    return Dataset(images[train], labels[train], images[test], labels[test], class_count=10)


def noise(data_dir: Path | None) -> Dataset:
    """2,560 28x28 images of white noise with labels at random: what theories of initialization assume; of no files."""
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2560, 28, 28, 1)).astype(np.float32)
    labels = rng.integers(10, size=2560, dtype=np.int32)
    return Dataset(images[:2048], labels[:2048], images[2048:], labels[2048:], class_count=10)


def _from(name: str, where: str, read: Callable[[Path], Dataset]) -> Callable[[Path | None], Dataset]:
    """`read` for a set that has files; without a path it says `where` they would be."""

    def loader(data_dir: Path | None) -> Dataset:
        if data_dir is None:
            raise UserError(f"--dataset {name} needs --data-dir, {where}")
        return read(data_dir)

    return loader


def _registered(*sets: tuple[str, str, Callable[[Path], Dataset]]) -> dict[str, Callable[[Path | None], Dataset]]:
    return {name: _from(name, where, read) for name, where, read in sets}


DATASETS: dict[str, Callable[[Path | None], Dataset]] = {"digits": digits, "noise": noise} | _registered(
    ("cifar10", "the folder that holds cifar-10-batches-py or cifar-10-batches-bin", cifar10),
    ("cifar100", "the folder that holds cifar-100-python or cifar-100-binary", cifar100),
    ("mnist", "the folder that holds train-images-idx3-ubyte and its like, gzipped or not", mnist),
    ("fashion-mnist", "the folder that holds train-images-idx3-ubyte and its like, gzipped or not", fashion_mnist),
    ("npz", "a .npz file that holds x_train, y_train, x_test and y_test", npz),
    ("image-folder", "the folder that holds train/<class> and test/<class>", image_folder),
    ("huggingface", "the folder that holds what DatasetDict.save_to_disk wrote", huggingface),
)


def load(name: str, data_dir: Path | None = None) -> Dataset:
    """Loads a data set by name.

    Raises:
      UserError: there is no such set, or its files are missing or not what they should be.
    """
    if name not in DATASETS:
        raise unknown("data set", name, DATASETS)
    try:
        return DATASETS[name](data_dir)
    except MemoryError as error:
        raise UserError(f"--dataset {name} does not fit in memory: {error}") from error

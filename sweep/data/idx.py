"""MNIST (LeCun et al. 1998) and Fashion-MNIST (Xiao et al. 2017): IDX files, gzipped or not."""

import gzip
import math
import os
from io import BufferedReader
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from sweep.data.checks import check_alike, checked_labels, refusal, refusing
from sweep.data.dataset import Dataset
from sweep.errors import UserError

_CLASSES = 10
_UNSIGNED_BYTES = 8  # the type's number in an IDX header
_CHUNK = 2**20
_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")


def _at_most(file: BufferedReader | gzip.GzipFile, limit: int) -> bytes:
    """Up to `limit` bytes; memory is taken as they come, since a damaged header can promise any number."""
    content = bytearray()
    while len(content) < limit and (chunk := file.read(min(_CHUNK, limit - len(content)))):
        content += chunk
    return bytes(content)


def read_idx(path: Path, dimensions: int) -> UInt8[np.ndarray, "..."]:
    """Reads bytes [n, ...]: the header is 0, 0, 8, the number of dimensions, and their sizes as big-endian uint32.

    Raises:
      UserError: another header, or more or fewer bytes than it promises; no more than those are unpacked.
    """
    magic = bytes((0, 0, _UNSIGNED_BYTES, dimensions))
    with refusing(path, "an IDX file"), path.open("rb") as raw:
        file = gzip.GzipFile(fileobj=raw) if path.suffix == ".gz" else raw
        header = _at_most(file, 4 + 4 * dimensions)
        if len(header) < 4 + 4 * dimensions or header[:4] != magic:
            raise refusal(path, f"expected an IDX header {magic.hex()} and {dimensions} sizes, found {header.hex()}")
        shape = tuple(int.from_bytes(header[start : start + 4], "big") for start in range(4, len(header), 4))
        promised = math.prod(shape)
        content = _at_most(file, promised + 1)  # one more tells a longer file, and has gzip compare its checksum
    if not promised or len(content) != promised:
        found = f"more than {promised}" if len(content) > promised else len(content)
        raise refusal(path, f"expected {promised} bytes of shape {shape}, at least one, found {found}")
    return np.frombuffer(content, np.uint8).reshape(shape)


def _spellings(name: str) -> list[str]:
    return [spelling + end for end in ("", ".gz") for spelling in (name, name.replace("-idx", ".idx"))]


def _find(folder: Path, name: str) -> Path | None:
    paths = (folder / spelling for spelling in _spellings(name))
    return next((path for path in paths if os.path.exists(path)), None)


def _load(title: str, data_dir: Path, folders: tuple[str, ...], source: str) -> Dataset:
    for folder in (data_dir, *(data_dir / name for name in folders)):
        paths = [path for name in _FILES if (path := _find(folder, name))]
        if len(paths) < len(_FILES):
            continue
        train, train_labels, test, test_labels = paths
        images, test_images = read_idx(train, 3)[..., None], read_idx(test, 3)[..., None]
        check_alike(folder, images, test_images)
        return Dataset(
            images,
            checked_labels(train_labels, read_idx(train_labels, 1), len(images), _CLASSES),
            test_images,
            checked_labels(test_labels, read_idx(test_labels, 1), len(test_images), _CLASSES),
            _CLASSES,
        )
    raise UserError(
        f"no {title} in {data_dir}: looked for {', '.join(_FILES)}, each with or without .gz, there and in "
        f"{' and '.join(folders)}; get them from {source}"
    )


def mnist(data_dir: Path) -> Dataset:
    """MNIST, 28x28 handwritten digits.

    Raises:
      UserError: a file is missing, or is not what it should be.
    """
    return _load("MNIST", data_dir, ("MNIST/raw", "mnist"), "https://yann.lecun.com/exdb/mnist/")


def fashion_mnist(data_dir: Path) -> Dataset:
    """Fashion-MNIST, 28x28 pieces of clothing.

    Raises:
      UserError: a file is missing, or is not what it should be.
    """
    source = "https://github.com/zalandoresearch/fashion-mnist"
    return _load("Fashion-MNIST", data_dir, ("FashionMNIST/raw", "fashion-mnist"), source)

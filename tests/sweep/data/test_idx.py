"""MNIST's files under all their names, and files that are not what they should be."""

import gzip
import tracemalloc

import numpy as np
import pytest

from sweep.data import load

RNG = np.random.default_rng(0)
TRAIN, TEST = RNG.integers(0, 256, (6, 5, 4), np.uint8), RNG.integers(0, 256, (3, 5, 4), np.uint8)
TRAIN_LABELS, TEST_LABELS = np.array([0, 9, 1, 2, 3, 4], np.uint8), np.array([7, 0, 9], np.uint8)
FILES = {
    "train-images-idx3-ubyte": TRAIN,
    "train-labels-idx1-ubyte": TRAIN_LABELS,
    "t10k-images-idx3-ubyte": TEST,
    "t10k-labels-idx1-ubyte": TEST_LABELS,
}


def header(*sizes):
    return bytes((0, 0, 8, len(sizes))) + b"".join(size.to_bytes(4, "big") for size in sizes)


def idx(array):
    return header(*array.shape) + array.tobytes()


def write(folder, end="", dot=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, array in FILES.items():
        content = gzip.compress(idx(array)) if end else idx(array)
        (folder / ((name.replace("-idx", ".idx") if dot else name) + end)).write_bytes(content)


@pytest.mark.parametrize("end", ["", ".gz"], ids=["raw", "gzipped"])
@pytest.mark.parametrize("dot", [False, True], ids=["-idx", ".idx"])
@pytest.mark.parametrize(
    ("name", "folder"),
    [
        ("mnist", "."),
        ("mnist", "MNIST/raw"),
        ("mnist", "mnist"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("fashion-mnist", "fashion-mnist"),
    ],
)
def test_files_as_they_are_spread(tmp_path, name, folder, dot, end):
    write(tmp_path / folder, end, dot)
    data = load(name, tmp_path)
    np.testing.assert_array_equal(data.train_images, TRAIN[..., None])
    np.testing.assert_array_equal(data.test_images, TEST[..., None])
    np.testing.assert_array_equal(data.train_labels, TRAIN_LABELS)
    np.testing.assert_array_equal(data.test_labels, TEST_LABELS)
    assert data.classes == 10


def test_each_set_finds_its_own_folder(tmp_path, refused):
    write(tmp_path / "MNIST" / "raw")
    assert load("mnist", tmp_path).classes == 10
    refused("fashion-mnist", tmp_path, "no Fashion-MNIST in .*: looked for train-images-idx3-ubyte, .*fashion-mnist$")
    (tmp_path / "MNIST" / "raw" / "t10k-labels-idx1-ubyte").unlink()
    refused("mnist", tmp_path, "no MNIST in .*: looked for .*, t10k-labels-idx1-ubyte, .*yann.lecun.com")


IMAGES, LABELS = "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"
BROKEN = {
    "empty": (IMAGES, b"", "expected an IDX header 00000803 and 3 sizes, found $"),
    "short header": (IMAGES, header(3, 5, 4)[:9], "expected an IDX header .*, found 000008030000000300$"),
    "of other dimensions": (IMAGES, idx(TEST_LABELS), "expected an IDX header 00000803 .*, found 00000801"),
    "of floats": (LABELS, b"\0\0\x0d\x01" + idx(TEST_LABELS)[4:], "expected an IDX header 00000801 .*, found 00000d01"),
    "truncated": (IMAGES, idx(TEST)[:-1], r"expected 60 bytes of shape \(3, 5, 4\), at least one, found 59"),
    "too long": (IMAGES, idx(TEST) + b"\0", "expected 60 bytes of .*, found more than 60"),
    "a header that promises 2^96 bytes": (IMAGES, header(*[2**32 - 1] * 3) + b"\1", "expected .* found 1$"),
    "another size": (IMAGES, idx(TEST[:, 1:]), "expected images .*, found 5x4x1 uint8 to train on and 4x4x1 uint8"),
    "no images": (IMAGES, header(0, 5, 4), r"expected 0 bytes of shape \(0, 5, 4\), at least one, found 0"),
    "too few labels": (LABELS, idx(TEST_LABELS[:2]), r"expected 3 labels, whole numbers, found uint8 of shape \(2,\)"),
    "a large label": (LABELS, idx(TEST_LABELS + np.uint8(1)), "expected labels from 0 to 9, found 10"),
}
COMPRESSED = gzip.compress(idx(TEST))
BROKEN |= {
    "not gzip": (f"{IMAGES}.gz", idx(TEST), "not an IDX file: Not a gzipped file"),
    "gzip, truncated": (f"{IMAGES}.gz", COMPRESSED[:-9], "not an IDX file: Compressed file ended"),
    "gzip without its checksum": (f"{IMAGES}.gz", COMPRESSED[:-8], "not an IDX file: Compressed file ended"),
    "gzip of another checksum": (f"{IMAGES}.gz", COMPRESSED[:-8] + bytes(8), "not an IDX file: CRC check failed"),
    "gzip, damaged": (
        f"{IMAGES}.gz",
        COMPRESSED[:10] + b"\7" + COMPRESSED[11:],
        "not an IDX file: Error -3 while decompressing",
    ),
    "gzip, then garbage": (f"{IMAGES}.gz", COMPRESSED + b"garbage", "not an IDX file: Not a gzipped file"),
    "gzip, then more": (f"{IMAGES}.gz", COMPRESSED * 2, "expected 60 bytes of .*, found more than 60"),
}


@pytest.mark.parametrize(("name", "content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_broken_files(tmp_path, refused, name, content, message):
    write(tmp_path)
    (tmp_path / name.removesuffix(".gz")).unlink()
    (tmp_path / name).write_bytes(content)
    refused("mnist", tmp_path, f"^{tmp_path}.*: {message}")


def test_a_folder_for_a_file(tmp_path, refused):
    write(tmp_path)
    (tmp_path / IMAGES).unlink()
    (tmp_path / IMAGES).mkdir()
    refused("mnist", tmp_path, f"{tmp_path / IMAGES}: cannot be read: Is a directory")


def test_a_gzip_bomb_is_not_unpacked(tmp_path, refused):
    write(tmp_path, ".gz")
    (tmp_path / f"{IMAGES}.gz").write_bytes(gzip.compress(idx(TEST) + bytes(2**26)))
    tracemalloc.start()
    try:
        refused("mnist", tmp_path, "found more than 60")
        assert tracemalloc.get_traced_memory()[1] < 2**22
    finally:
        tracemalloc.stop()

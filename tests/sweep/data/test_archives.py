"""One's own arrays, and archives that are not what they should be."""

import io
import os
import zipfile

import numpy as np
import pytest

from sweep.data import load

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (6, 4, 3, 2), np.uint8), np.array([0, 3, 1, 1, 2, 2])


def arrays(images=IMAGES, labels=LABELS, **others):
    return {"x_train": images, "y_train": labels, "x_test": images[:3], "y_test": labels[:3]} | others


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed], ids=["stored", "compressed"])
def test_the_file_or_its_folder(tmp_path, refused, save):
    path = tmp_path / "own.npz"
    save(path, **arrays(), more=np.zeros(3))
    for data_dir in (path, tmp_path):
        data = load("npz", data_dir)
        np.testing.assert_array_equal(data.train_images, IMAGES)
        np.testing.assert_array_equal(data.test_images, IMAGES[:3])
        assert data.train_labels.tolist() == LABELS.tolist()
        assert data.classes == 4
    save(tmp_path / "second.npz", **arrays())
    refused("npz", tmp_path, f"exactly one: {tmp_path} holds 2")
    refused("npz", tmp_path / "nowhere", "nowhere holds 0")
    refused("npz", tmp_path / "nowhere.npz", "nowhere.npz: cannot be read: No such file or directory")


@pytest.mark.parametrize(
    ("images", "shape"),
    [
        (IMAGES[..., 0], (6, 4, 3, 1)),
        (IMAGES[:, 0, :, 0], (6, 1, 3, 1)),
        (np.asfortranarray(IMAGES), (6, 4, 3, 2)),
        (IMAGES.astype(">f8") / 3, (6, 4, 3, 2)),
        (IMAGES.astype(np.float16), (6, 4, 3, 2)),
    ],
    ids=["no channel", "features", "Fortran order", "float64", "float16"],
)
def test_images_of_other_shapes_and_types(tmp_path, images, shape):
    np.savez(tmp_path / "own.npz", **arrays(images, LABELS[:, None].astype(">u2")))
    data = load("npz", tmp_path)
    assert data.train_images.dtype == (np.uint8 if images.dtype == np.uint8 else np.float32)
    np.testing.assert_array_equal(data.train_images, images.reshape(shape).astype(np.float32))
    assert data.train_labels.tolist() == LABELS.tolist()


class Hostile:
    def __reduce__(self):
        return os.system, ("touch hostile",)


def with_value(value, kind=np.float32):
    images = IMAGES.astype(kind)
    images[4, 1, 1, 1] = value
    return images


BROKEN = {
    "objects": (
        arrays(x_test=np.array([Hostile()])),
        "not a .npz archive: Object arrays cannot be loaded when allow_p",
    ),
    "a missing array": ({"x_train": IMAGES, "y": LABELS}, "expected the arrays x_train, .*, found x_train, y$"),
    "NaN": (arrays(with_value(np.nan)), "expected finite numbers in x_train, found NaN or infinity in sample 4"),
    "infinity": (arrays(with_value(-np.inf)), "expected finite numbers in x_train, .* in sample 4"),
    "beyond float32": (arrays(with_value(1e200, np.float64)), "expected finite numbers in x_train, .* in sample 4"),
    "integers": (arrays(IMAGES.astype(int)), "expected x_train of uint8 or floating-point numbers, found int64"),
    "five dimensions": (arrays(IMAGES[None]), r"expected x_train of shape \[n, height, width, channel\], found \(1, 6"),
    "a number": (arrays(x_test=np.uint8(1)), r"expected x_test of shape .*, found \(\)"),
    "no images": (arrays(IMAGES[:0], LABELS[:0]), r"expected x_train of shape .*, found \(0, 4, 3, 2\)"),
    "too few labels": (arrays(y_test=LABELS[:2]), r"y_test: expected 3 labels, whole numbers, found int64 .*\(2,\)"),
    "one-hot labels": (arrays(labels=np.eye(6, dtype=int)), r"y_train: expected 6 labels, .* of shape \(6, 6\)"),
    "fractions for labels": (arrays(labels=LABELS / 2), "y_train: expected 6 labels, whole numbers, found float64"),
    "a negative label": (arrays(labels=LABELS - 1), "y_train: expected labels from 0 to 5, found -1"),
    "more classes than images": (arrays(labels=LABELS + 2**40), "y_train: expected labels from 0 to 5, found 1099511"),
    "another test size": (arrays(x_test=IMAGES[:3, 1:]), "expected images .*, found 4x3x2 uint8 to train on and 3x3x2"),
    "another test type": (
        arrays(x_test=IMAGES[:3] / 2),
        "expected images .*, found 4x3x2 uint8 to train on and 4x3x2 float32 to test on",
    ),
}


@pytest.mark.parametrize(("content", "message"), BROKEN.values(), ids=list(BROKEN))
def test_arrays_that_are_not_what_they_should_be(tmp_path, monkeypatch, refused, content, message):
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "own.npz", **content)
    refused("npz", tmp_path / "own.npz", f"own.npz: {message}")
    assert not (tmp_path / "hostile").exists()


def npy(array):
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


MEMBERS = {
    "cut short": (npy(IMAGES)[:-1], "not a .npz archive: EOF"),
    "too long": (npy(IMAGES) + b"\0", r"expected the end of x_train after shape \(6, 4, 3, 2\), found more"),
    "empty": (b"", "not a .npz archive: "),
    "a header that promises 2^60 bytes": (npy(IMAGES).replace(b"(6, ", b"(%d, " % 2**57), "not a .npz archive: "),
    "a header of another kind": (npy(IMAGES).replace(b"'fortran_order'", b"'fortran_ordes'"), "not a .npz archive: "),
    "a header that is no Python": (npy(IMAGES).replace(b"{", b"(("), "not a .npz archive: "),
}


@pytest.mark.parametrize(("member", "message"), MEMBERS.values(), ids=list(MEMBERS))
def test_damaged_members(tmp_path, refused, member, message):
    path = tmp_path / "own.npz"
    with zipfile.ZipFile(path, "w") as archive:
        for name, array in arrays().items():
            archive.writestr(f"{name}.npy", member if name == "x_train" else npy(array))
    refused("npz", path, f"{path}: {message}")


def damaged(content):
    middle = content.index(IMAGES.tobytes()) + 20
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


ARCHIVES = {
    "empty": (lambda content: b"", "not a .npz archive: File is not a zip file"),
    "truncated": (lambda content: content[:-30], "not a .npz archive: File is not a zip file"),
    "a changed bit": (damaged, "not a .npz archive: Bad CRC-32 for file 'x_train.npy'"),
    "an array alone": (lambda content: npy(IMAGES), "not a .npz archive: File is not a zip file"),
    "encrypted": (lambda content: content.replace(b"PK\1\2-\3-\0\0", b"PK\1\2-\3-\0\1"), "not a .npz archive: "),
}


@pytest.mark.parametrize(("damage", "message"), ARCHIVES.values(), ids=list(ARCHIVES))
def test_damaged_archives(tmp_path, refused, damage, message):
    path = tmp_path / "own.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    path.write_bytes(damage(whole))
    assert path.read_bytes() != whole
    refused("npz", path, f"{path}: {message}")

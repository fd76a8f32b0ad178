"""CIFAR in both layouts, and pickles that are not."""

import errno
import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from sweep.data import load

RNG = np.random.default_rng(0)
IMAGES, LABELS = RNG.integers(0, 256, (20, 3072), np.uint8), RNG.integers(0, 10, 20).tolist()


def write_batch(path, images=IMAGES, labels=LABELS):
    path.write_bytes(pickle.dumps({b"data": images, b"labels": labels}))


@pytest.fixture
def cifar(tmp_path):
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    for name in ("data_batch_1", "data_batch_2", "test_batch"):
        write_batch(folder / name)
    return tmp_path


def nhwc(planar):
    """The images, pixel by pixel."""
    images = np.empty((len(planar), 32, 32, 3), np.uint8)
    for row, column, channel in np.ndindex(32, 32, 3):
        images[:, row, column, channel] = planar[:, 1024 * channel + 32 * row + column]
    return images


@pytest.mark.parametrize("inside", [False, True])
def test_cifar10(cifar, inside):
    data = load("cifar10", cifar / "cifar-10-batches-py" if inside else cifar)
    np.testing.assert_array_equal(data.train_images, np.concatenate([nhwc(IMAGES)] * 2))
    np.testing.assert_array_equal(data.test_images, nhwc(IMAGES))
    assert data.test_labels.tolist() == LABELS
    assert data.classes == 10


def test_cifar100_has_fine_labels(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    batch = {
        b"data": IMAGES,
        b"coarse_labels": [0] * 20,
        b"fine_labels": list(range(80, 100)),
        b"filenames": [b"a.png"],
    }
    for name in ("train", "test"):
        (tmp_path / "cifar-100-python" / name).write_bytes(pickle.dumps(batch, protocol=2))
    data = load("cifar100", tmp_path)
    np.testing.assert_array_equal(data.train_images, nhwc(IMAGES))
    assert data.train_labels.tolist() == list(range(80, 100))
    assert data.classes == 100


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize(
    ("name", "folder", "files", "coarse"),
    [
        ("cifar10", "cifar-10-batches-bin", ("data_batch_1.bin", "test_batch.bin"), b""),
        ("cifar100", "cifar-100-binary", ("train.bin", "test.bin"), b"\x63"),
    ],
    ids=["cifar10", "cifar100"],
)
def test_binary_layout(tmp_path, refused, name, folder, files, coarse, inside):
    (tmp_path / folder).mkdir()
    records = b"".join(coarse + bytes([label]) + row.tobytes() for label, row in zip(LABELS, IMAGES, strict=True))
    for file in files:
        (tmp_path / folder / file).write_bytes(records)
    data_dir = tmp_path / folder if inside else tmp_path
    data = load(name, data_dir)
    np.testing.assert_array_equal(data.train_images, nhwc(IMAGES))
    assert data.test_labels.tolist() == LABELS

    test = tmp_path / folder / files[1]
    test.write_bytes(records[:-1])
    refused(name, data_dir, f"{test}: expected records of {3073 + len(coarse)} bytes, found {len(records) - 1} bytes")
    test.write_bytes(b"")
    refused(name, data_dir, "found 0 bytes")
    test.write_bytes(coarse + b"\xff" + bytes(3072))
    refused(name, data_dir, rf"{test}: expected labels from 0 to {data.classes - 1}, found 255")


def of_python_2():
    """As Python 2 and NumPy 1 wrote the official files."""
    array = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\n(K\x00tU\x01btR"
    dtype = b"cnumpy\ndtype\n(U\x02u1K\x00K\x01tR(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
    content = b"T" + (3072).to_bytes(4, "little") + IMAGES[0].tobytes()
    state = b"(K\x01(K\x01M\x00\x0ct" + dtype + b"\x89" + content + b"tb"
    return b"\x80\x02}q\x01(U\x04dataq\x02" + array + state + b"U\x06labels]q\x03K\x07au."


def of_numpy_1(content):
    """NumPy 1 called its modules numpy.core; a name's length and the (optional) frame's go with it."""
    content = content.replace(b"\x8c\x16numpy._core.multiarray", b"\x8c\x15numpy.core.multiarray")
    content = content.replace(b"\x8c\x13numpy._core.numeric", b"\x8c\x12numpy.core.numeric")
    content = content.replace(b"cnumpy._core.", b"cnumpy.core.")
    return content[:2] + content[11:] if content[2:3] == pickle.FRAME else content


def pickled(protocol, **entries):
    batch = {b"data": np.asfortranarray(IMAGES[:1]), b"labels": np.array([7], ">i2")} | entries
    return pickle.dumps(batch, protocol)


@pytest.mark.parametrize(
    "content",
    [of_python_2()]
    + [pickled(protocol) for protocol in range(6)]
    + [of_numpy_1(pickled(protocol)) for protocol in range(6)]
    + [pickle.dumps({"data": IMAGES[:1], "labels": [7], "names": ["ä"]})],
    ids=["python 2"] + [f"numpy {major}, protocol {protocol}" for major in (2, 1) for protocol in range(6)] + ["text"],
)
def test_whoever_wrote_the_pickle(cifar, content):
    (cifar / "cifar-10-batches-py" / "test_batch").write_bytes(content)
    data = load("cifar10", cifar)
    np.testing.assert_array_equal(data.test_images, nhwc(IMAGES[:1]))
    assert data.test_labels.tolist() == [7]


class Calls:
    """Pickles as a call, and a state set on what it returns."""

    def __init__(self, function, *arguments, state=None):
        self.reduced = (function, arguments, state) if state else (function, arguments)

    def __reduce__(self):
        return self.reduced


def named(module, name, arguments=b"(t"):
    return b"\x80\x02c%s\n%s\n%sR." % (module, name, arguments)


def stacked_name(module, name):
    """By opcodes that take a name of any characters."""
    return b"\x80\x04\x8c%c%s\x8c%c%s\x93)R." % (len(module), module, len(name), name)


RECONSTRUCT = np.zeros(1).__reduce__()[0]
FROM_BUFFER = np.zeros(1).__reduce_ex__(5)[0]


HOSTILE = {
    "os.system": (pickle.dumps({b"data": Calls(os.system, "touch hostile")}), r"names (posix|nt)\.system"),
    "eval": (named(b"builtins", b"eval"), "names builtins.eval"),
    "numpy.load": (named(b"numpy", b"load"), "names numpy.load"),
    "an attribute": (named(b"numpy", b"ndarray.dump"), "names numpy.ndarray.dump"),
    "a name of two lines": (stacked_name(b"numpy\nos", b"a\x1b[2J\n"), r"names numpy os.a \[2J"),
    "encode otherwise": (
        named(b"_codecs", b"encode", b"(X\x01\x00\x00\x00aX\x04\x00\x00\x00zlibt"),
        "calls encode",
    ),
    "reconstruct another class": (
        pickle.dumps(Calls(RECONSTRUCT, np.dtype, (0,), b"b")),
        "calls _reconstruct",
    ),
    "reconstruct a large array": (
        pickle.dumps(Calls(RECONSTRUCT, np.ndarray, (2**50,), b"b")),
        "calls _reconstruct",
    ),
    "ndarray itself": (named(b"numpy", b"ndarray", b"(K\x01t"), "calls ndarray"),
    "buffer of another order": (
        pickle.dumps(Calls(FROM_BUFFER, b"1234", np.dtype("u1"), (4,), "A")),
        "calls _frombuffer",
    ),
    "buffer of objects": (
        pickle.dumps(Calls(FROM_BUFFER, b"1234", np.dtype("O"), (4,), "C")),
        "holds an array of 'O8'",
    ),
    "array of objects": (pickle.dumps(np.array([b"1", None], object)), "holds an array of 'O8'"),
    "array of floats": (pickle.dumps(np.zeros(2)), "holds an array of 'f8'"),
    "array of structures": (pickle.dumps(np.zeros(2, [("a", "u1")])), "holds an array of 'V1'"),
    "structure in the state": (
        pickle.dumps(Calls(np.dtype, "u1", state=(3, "|", None, ("a",), {"a": 1}, 1, 1, 0))),
        "array of structures",
    ),
    "number in the byte order": (
        pickle.dumps(Calls(np.dtype, "u1", state=(3, "9,", None, None, None, -1, -1, 0))),
        "array of structures",
    ),
    "another array state": (
        pickle.dumps(Calls(RECONSTRUCT, np.ndarray, (0,), b"b", state=([1],))),
        "NumPy would not have written",
    ),
    "memo of 16 GiB": (b"\x80\x02]r\xff\xff\xff\x7f.", "numbers an object 2147483647 of at most 2"),
    "tuples in tuples for a key": (b"\x80\x02})" + b"\x85" * 10**6 + b"K\x00s.", "holds more than 1000 tuples"),
    "bytes of an exbibyte": (
        b"\x80\x04\x8e" + (2**60).to_bytes(8, "little") + b"abc.",
        "expected 1152921504606846976 bytes",
    ),
    "state on a name": (
        b"\x80\x02c_codecs\nencode\n}(X\x04\x00\x00\x00nameX\x04\x00\x00\x00evalub.",
        "",
    ),
    "persistent number": (b"\x80\x02P1\n.", ""),
    "persistent name": (b"\x80\x02Pname\n.", ""),
    "extension": (b"\x80\x02\x82\x01.", ""),
}


@pytest.mark.parametrize(("content", "message"), HOSTILE.values(), ids=list(HOSTILE))
def test_a_hostile_file_runs_nothing(cifar, monkeypatch, refused, content, message):
    monkeypatch.chdir(cifar)
    path = cifar / "cifar-10-batches-py" / "data_batch_1"
    path.write_bytes(content)
    refused("cifar10", cifar, f"{path}: not a CIFAR batch: .*{message}")
    assert not (cifar / "hostile").exists()


def nested_lists():
    """8 lists of 10 that share their parts: 10^8 numbers as an array."""
    labels = [0] * 10
    for _ in range(7):
        labels = [labels] * 10
    return labels


BROKEN = {
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:1000]), "not a CIFAR batch"),
    "empty": (lambda path: path.write_bytes(b""), "not a CIFAR batch"),
    "another object": (
        lambda path: path.write_bytes(pickle.dumps([1, 2])),
        "not a CIFAR batch: holds a list, not a dictionary",
    ),
    "no entries": (lambda path: path.write_bytes(pickle.dumps({})), "expected entries data and labels, found none"),
    "images that are lists": (
        lambda path: write_batch(path, IMAGES.tolist()),
        "expected an array data, .* found list and ndarray",
    ),
    "images of ten bytes": (
        lambda path: write_batch(path, IMAGES[:, :10]),
        r"expected uint8 images \[n, 3072\], found uint8 .*\(20, 10\)",
    ),
    "no images": (lambda path: write_batch(path, IMAGES[:0], []), "expected images, found none"),
    "a large label": (
        lambda path: write_batch(path, labels=[10, *LABELS[1:]]),
        "expected labels from 0 to 9, found 10",
    ),
    "a negative label": (
        lambda path: write_batch(path, labels=[-1, *LABELS[1:]]),
        "expected labels from 0 to 9, found -1",
    ),
    "too few labels": (
        lambda path: write_batch(path, labels=[0]),
        r"expected 20 labels, whole numbers, found int64 of shape \(1,\)",
    ),
    "fractions for labels": (
        lambda path: write_batch(path, labels=[0.5] * 20),
        "expected .* list of whole numbers labels, found ndarray and list",
    ),
    "huge labels": (
        lambda path: write_batch(path, labels=[2**70] * 20),
        "expected 20 labels, whole numbers, found object",
    ),
    "nested labels": (
        lambda path: write_batch(path, labels=nested_lists()),
        "expected .* list of whole numbers labels, found ndarray and list",
    ),
    "a folder": (lambda path: (path.unlink(), path.mkdir()), "cannot be read: Is a directory"),
    "a link to itself": (
        lambda path: (path.unlink(), path.symlink_to(path)),
        "cannot be read: Too many levels of symbolic links",
    ),
}


@pytest.mark.parametrize(("break_it", "message"), BROKEN.values(), ids=list(BROKEN))
def test_broken_files(cifar, refused, break_it, message):
    path = cifar / "cifar-10-batches-py" / "data_batch_2"
    break_it(path)
    refused("cifar10", cifar, f"{path}: .*{message}")


@pytest.mark.parametrize("layout", ["cifar-10-batches-py", "cifar-10-batches-bin"])
def test_a_folder_that_may_not_be_read(tmp_path, refused, monkeypatch, layout):
    def glob(folder, pattern):
        if folder.name == layout:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(folder))
        return iter(())

    monkeypatch.setattr(Path, "glob", glob)  # who runs the tests may be allowed to read everything
    refused("cifar10", tmp_path, f"{tmp_path / layout}: cannot be read: Permission denied")


@pytest.mark.parametrize(
    ("name", "looked_for"),
    [
        ("cifar10", r"no CIFAR-10 in .*: looked for data_batch_\[1-5\] and test_batch .* or data_batch_\[1-5\].bin"),
        ("cifar100", "no CIFAR-100 in .*: looked for train and test .* or train.bin and test.bin .*cs.toronto.edu"),
    ],
    ids=["cifar10", "cifar100"],
)
def test_missing_files_say_what_was_looked_for(tmp_path, refused, name, looked_for):
    refused(name, tmp_path, looked_for)
    refused(name, tmp_path / "nowhere", looked_for)

"""Folders of images by class, and images that are not like the others."""

import numpy as np
import pytest
from PIL import Image

from sweep.data import load

RNG = np.random.default_rng(0)
COLOUR, GREY = RNG.integers(0, 256, (5, 4, 3), np.uint8), RNG.integers(0, 256, (5, 4), np.uint8)


def write(folder, image, suffix="png"):
    for name in ("train/cat/b", "train/cat/a", "train/ant/a", "test/cat/a"):
        path = folder / f"{name}.{suffix}"
        path.parent.mkdir(parents=True, exist_ok=True)
        image.save(path)


@pytest.mark.parametrize("suffix", ["png", "PNG", "bmp"])
@pytest.mark.parametrize("pixels", [COLOUR, GREY], ids=["colour", "grey"])
def test_classes_by_name(tmp_path, pixels, suffix):
    write(tmp_path, Image.fromarray(pixels), suffix)
    Image.fromarray(255 - pixels).save(tmp_path / "train" / "ant" / f"a.{suffix}")
    (tmp_path / "train" / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "train" / ".thumbnails").mkdir()
    data = load("image-folder", tmp_path)
    expected = pixels.reshape(5, 4, -1)
    np.testing.assert_array_equal(data.train_images, [255 - expected, expected, expected])
    assert data.train_labels.tolist() == [0, 1, 1]
    np.testing.assert_array_equal(data.test_images, [expected])
    assert data.test_labels.tolist() == [1]
    assert data.classes == 2


@pytest.mark.parametrize("suffix", ["jpg", "jpeg", "webp"])
def test_lossy_images(tmp_path, suffix):
    write(tmp_path, Image.new("RGB", (16, 8), (200, 100, 50)), suffix)
    data = load("image-folder", tmp_path)
    assert data.image_shape == (8, 16, 3)
    np.testing.assert_allclose(data.train_images[0, 0, 0], (200, 100, 50), atol=4)  # what a plain colour loses


def transparent_palette():
    image = Image.fromarray(COLOUR).quantize(4)
    image.info["transparency"] = bytes(range(4))
    return image


@pytest.mark.parametrize(
    ("image", "channels"),
    [
        (Image.fromarray(GREY > 99), 1),
        (Image.merge("LA", [Image.fromarray(GREY)] * 2), 1),
        (Image.fromarray(COLOUR).convert("RGBA"), 3),
        (Image.fromarray(COLOUR).quantize(4), 3),
        (transparent_palette(), 3),
    ],
    ids=["bilevel", "grey with alpha", "alpha", "palette", "transparent palette"],
)
def test_other_modes(tmp_path, image, channels):
    write(tmp_path, image)
    data = load("image-folder", tmp_path)
    assert data.image_shape == (5, 4, channels)
    expected = image.convert("L") if channels == 1 else image.convert("RGBA").convert("RGB")
    np.testing.assert_array_equal(data.test_images[0].squeeze(), np.asarray(expected))


def replace(path, content):
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        content.save(path)


ODD = {
    "another size": (lambda whole: Image.fromarray(COLOUR[:4]), "expected 5x4x3 as the images before it, found 4x4x3"),
    "another mode": (lambda whole: Image.fromarray(GREY), "expected 5x4x3 as the images before it, found 5x4x1"),
    "truncated": (lambda whole: whole[:-40], "not an image: "),
    "cut in its header": (lambda whole: whole[:20], "not an image: "),
    "empty": (lambda whole: b"", "not an image: cannot identify image file"),
    "text": (lambda whole: b"text", "not an image: cannot identify image file"),
    "a changed bit": (lambda whole: whole[:60] + bytes([whole[60] ^ 1]) + whole[61:], "not an image: "),
    "16 bits": (lambda whole: Image.new("I;16", (4, 5)), "not an image: expected 8 bits a channel, found .* mode I;16"),
    "another format": (
        lambda whole: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 4 5\n",
        "not an image: cannot ident",
    ),
    "a bomb": (lambda whole: whole[:16] + b"\0\1\0\0\0\1\0\0" + whole[24:], "not an image: "),
}


@pytest.mark.parametrize("name", ["train/cat/a.png", "test/cat/a.png"], ids=["train", "test"])
@pytest.mark.parametrize(("content", "message"), ODD.values(), ids=list(ODD))
def test_the_first_odd_image_is_named(tmp_path, refused, name, content, message):
    write(tmp_path, Image.fromarray(COLOUR))
    path = tmp_path / name
    replace(path, content(path.read_bytes()))
    refused("image-folder", tmp_path, f"{path}: {message}")


def test_folders_that_are_not_what_they_should_be(tmp_path, refused):
    refused("image-folder", tmp_path / "nowhere", "no image folder in .*nowhere: looked for train/<class> and test/<cl")
    write(tmp_path, Image.fromarray(GREY))
    (tmp_path / "test" / "cta").mkdir()
    refused("image-folder", tmp_path, f"{tmp_path / 'test'}: unknown class 'cta'; did you mean 'cat'")
    (tmp_path / "test" / "cta").rmdir()
    (tmp_path / "train" / "bee").mkdir()
    refused("image-folder", tmp_path, r"train/bee: expected images \(.png, .*\), found none")
    (tmp_path / "train" / "bee" / "folder.png").mkdir()
    refused("image-folder", tmp_path, "train/bee/folder.png: cannot be read: Is a directory")
    (tmp_path / "test" / "cat" / "a.png").unlink()
    (tmp_path / "test" / "cat").rmdir()
    (tmp_path / "train" / "bee" / "folder.png").rmdir()
    (tmp_path / "train" / "bee").rmdir()
    refused("image-folder", tmp_path, f"{tmp_path / 'test'}: expected a folder of images for each class, found none")

"""Encoded images, decoded to arrays of one shape."""

from collections.abc import Iterable
from io import BytesIO
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from sweep.data.checks import refusal, refusing, size

FORMATS = ("PNG", "JPEG", "BMP", "WEBP")  # named, so that no file reaches a decoder that runs other programs
_GREY = ("1", "L", "LA", "La")
_DEEP = ("I", "F")  # 16 or 32 bits a pixel, which conversion to 8 would cut off at 255


def pixels(source: Path | BytesIO) -> UInt8[np.ndarray, "height width channel"]:
    """Decodes an image: grey ones keep their one channel, all others become red, green and blue.

    Raises:
      Exception: what Pillow raises for a damaged image.
    """
    with Image.open(source, formats=FORMATS) as image:
        if image.mode.startswith(_DEEP):
            raise ValueError(f"expected 8 bits a channel, found Pillow's mode {image.mode}")
        # A palette's transparency is lost with a warning unless it is first made a channel.
        opaque = image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image
        array = np.asarray(opaque.convert("L" if image.mode in _GREY else "RGB"))
    return array[..., None] if array.ndim == 2 else array


def stacked(
    sources: Iterable[tuple[Path | str, Path | BytesIO]], count: int, shape: tuple[int, ...] | None = None
) -> UInt8[np.ndarray, "sample height width channel"]:
    """Decodes `count` images, given with what to call each in an error, of one shape: `shape`, or else the first's.

    Raises:
      UserError: one is damaged, or of another shape.
    """
    images = None
    for index, (where, source) in enumerate(sources):
        with refusing(where, "an image"):
            image = pixels(source)
        if images is None:
            images = np.empty((count, *(shape or image.shape)), np.uint8)
        if image.shape != images.shape[1:]:
            raise refusal(
                where, f"expected {size(images.shape[1:])} as the images before it, found {size(image.shape)}"
            )
        images[index] = image
    assert images is not None, "callers refuse an empty set"
    return images

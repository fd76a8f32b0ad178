"""What is said of a file that is not what it should be."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32, Shaped

from sweep.errors import UserError

_LONGEST = 300


def refusal(where: Path | str, reason: str) -> UserError:
    """The error for `where`: one printable line, whatever a hostile file made the reason say."""
    line = f"{where}: {reason[:_LONGEST]}"
    return UserError("".join(character if character.isprintable() else " " for character in line))


@contextmanager
def refusing(where: Path | str, what: str) -> Iterator[None]:
    """Turns what goes wrong inside into the error that `where` is not `what`.

    It catches every exception, so only decoding belongs inside: what a damaged file makes a decoder raise is written
    nowhere.

    Raises:
      UserError: anything was raised inside.
    """
    try:
        yield
    except UserError:
        raise
    except OSError as error:
        reason = f"cannot be read: {error.strerror}" if error.strerror else f"not {what}: {error}"
        raise refusal(where, reason) from error
    except Exception as error:
        raise refusal(where, f"not {what}: {str(error) or type(error).__name__}") from error


def checked_labels(
    where: Path | str, labels: Shaped[np.ndarray, "..."], images: int, classes: int
) -> Int32[np.ndarray, " sample"]:
    """`labels` as integers of one kind.

    Raises:
      UserError: there are none, or they are not whole numbers from 0 to `classes` - 1, one for each of the `images`.
    """
    if not images:
        raise refusal(where, "expected images, found none")
    if labels.shape != (images,) or labels.dtype.kind not in "iu":
        raise refusal(where, f"expected {images} labels, whole numbers, found {labels.dtype} of shape {labels.shape}")
    if labels.min() < 0 or labels.max() >= classes:
        odd: Int[np.ndarray, " odd"] = labels[(labels < 0) | (labels >= classes)]
        raise refusal(where, f"expected labels from 0 to {classes - 1}, found {odd[0]}")
    return labels.astype(np.int32)


def check_alike(where: Path | str, train: Shaped[np.ndarray, "..."], test: Shaped[np.ndarray, "..."]) -> None:
    """Raises UserError unless training and test images are of one size and type."""
    if train.shape[1:] != test.shape[1:] or train.dtype != test.dtype:
        found = f"{size(train.shape[1:])} {train.dtype} to train on and {size(test.shape[1:])} {test.dtype} to test on"
        raise refusal(where, f"expected images of one size and type, found {found}")


def size(shape: tuple[int, ...]) -> str:
    """Height, width and channels as people write them: 32x32x3."""
    return "x".join(map(str, shape))

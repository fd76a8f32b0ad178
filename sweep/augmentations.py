"""What is done to training images at random, by name. Add one here and `--augment` knows it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array
from jaxtyping import Float, Key

# Pixels that a crop may move an image by.
PAD = 4


def none(
    key: Key[Array, ""], images: Float[Array, "batch height width channel"]
) -> Float[Array, "batch height width channel"]:
    """The images as they are."""
    del key
    return images


def crop_and_flip(
    key: Key[Array, ""], images: Float[Array, "batch height width channel"]
) -> Float[Array, "batch height width channel"]:
    """Pads 4 pixels of the mean around every image, cuts its size out of that anywhere, and mirrors half of them.

    Source: Lee et al. 2015 (Deeply-supervised nets), as He et al. 2015, section 4.2, use it.
    """
    batch, height, width, _ = images.shape
    for_crop, for_flip = jax.random.split(key)
    top, left = jax.random.randint(for_crop, (2, batch, 1, 1), 0, 2 * PAD + 1)
    flip = jax.random.bernoulli(for_flip, 0.5, (batch, 1, 1))
    across = jnp.arange(width)
    rows = top + jnp.arange(height)[:, None]
    columns = left + jnp.where(flip, across[::-1], across)
    padded = jnp.pad(images, ((0, 0), (PAD, PAD), (PAD, PAD), (0, 0)))
    return padded[jnp.arange(batch)[:, None, None], rows, columns]


AUGMENTATIONS: dict[str, Callable[[Array, Array], Array]] = {"none": none, "crop-flip": crop_and_flip}

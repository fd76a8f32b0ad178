"""Mean and variance of every feature, in one pass, right for large means and for many rows.

E[x²] - E[x]² loses the variance where the mean is large. Subtracting one of the feature's own samples first restores it
(Chan, Golub & LeVeque 1983, section 1): among n rows no sample is further than sqrt(n) standard deviations from the
mean, so the relative error is at most n units of rounding. Rows are therefore summed in blocks, which bounds n, lets
CPUs sum in parallel, and whose results combine exactly by Chan's rule (ibid., section 2), as those of devices do.

The mean is returned in two parts, a sample and the rest, since their sum has too few digits to centre with when it is
large against the standard deviation.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jax import Array, lax
from jaxtyping import Bool, Float

from kernels.batchnorm.rows import BLOCK, blocks, sums, total


class Statistics(NamedTuple):
    """Statistics by feature: the mean is `shift + offset`, the variance biased, `counts` the rows that count."""

    shift: Float[Array, " features"]
    offset: Float[Array, " features"]
    var: Float[Array, " features"]
    counts: Float[Array, ""] | Float[Array, " features"]

    @property
    def mean(self) -> Float[Array, " features"]:
        return self.shift + self.offset


def _of_rows(
    x: Float[Array, "*blocks rows features"], mask: Bool[Array, "*blocks rows #features"] | None
) -> Statistics:
    """Statistics of each block by one pass over its rows."""
    if mask is None:
        count = jnp.asarray(x.shape[-2], x.dtype)
        shift = x[..., 0, :]
        centred = x - shift[..., None, :]
    else:
        mask = jnp.broadcast_to(mask, x.shape)
        count = mask.sum(-2, dtype=x.dtype)
        first = jnp.expand_dims(mask.argmax(-2), -2)
        shift = jnp.where(count > 0, jnp.take_along_axis(x, first, -2)[..., 0, :], 0)
        centred = jnp.where(mask, x - shift[..., None, :], 0)
    safe = jnp.maximum(count, 1)
    first, second = (added / safe for added in sums([centred, jnp.square(centred)]))
    return Statistics(shift, first, jnp.maximum(second - first * first, 0), count)


def combined(parts: list[Statistics]) -> Statistics:
    """The statistics of all rows from those of blocks, each `[block, features]` (Chan's rule)."""
    shift, offset, var, count = (
        jnp.concatenate([jnp.broadcast_to(part[i], part.shift.shape) for part in parts]) for i in range(4)
    )
    everyone = total(count)
    safe = jnp.maximum(everyone, 1)
    origin = jnp.take_along_axis(shift, (count > 0).argmax(0)[None], 0)[0]
    offset = (shift - origin) + offset
    mean = total(count * offset) / safe
    return Statistics(origin, mean, total(count * (var + jnp.square(offset - mean))) / safe, everyone)


def local(x: Float[Array, "rows features"], mask: Bool[Array, "rows #features"] | None) -> Statistics:
    """Statistics of the rows of one device. `x` has the precision to compute in."""
    if len(x) < 2 * BLOCK:
        return _of_rows(x, mask)
    found = combined([_of_rows(*part) for part in zip(blocks(x), blocks(mask), strict=False)])
    return found if mask is not None else found._replace(counts=jnp.asarray(len(x), x.dtype))


def across(statistics: Statistics, axis_name: str | tuple[str, ...], groups: list[list[int]] | None) -> Statistics:
    """The statistics of all devices' rows, whatever the share of each; exact by Chan's rule."""

    def summed(value: Array) -> Array:
        return lax.psum(value, axis_name, axis_index_groups=groups)

    shift, offset, var, count = statistics
    count = jnp.broadcast_to(jnp.asarray(count, shift.dtype), shift.shape)
    everyone = summed(count)
    safe = jnp.maximum(everyone, 1)
    origin = summed(count * (shift + offset)) / safe
    offset = (shift - origin) + offset
    first, second = summed(jnp.stack([count * offset, count * (var + offset * offset)])) / safe
    return Statistics(origin, first, jnp.maximum(second - first * first, 0), everyone)

"""Linear maps with hand-written transposes, against JAX's own derivative of the same."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import lax

from kernels.linear import Direction, linear_map, opaque


def _push(operands, inputs):
    (a,), (x, y) = operands, inputs
    terms = [jnp.sin(a) @ x] if x is not None else []
    terms += [y * a[:, 0]] if y is not None else []
    return (sum(terms),)


def _pull(operands, cotangents):
    (a,), (out,) = operands, cotangents
    return jnp.sin(a).T @ out, out * a[:, 0]


MAP = Direction(_push), Direction(_pull)


def ours(a, x, y):
    return linear_map(*MAP, (a,), (x, y), outputs=1)[0]


def plain(a, x, y):
    return _push((a,), (x, y))[0]


def arguments(*leading):
    keys = jax.random.split(jax.random.key(0), 3)
    shapes = ((3, 4), (4,), (3,))
    return tuple(jax.random.normal(key, (*leading, *shape)) for key, shape in zip(keys, shapes, strict=True))


def close(actual, expected):
    jax.tree.map(lambda a, e: np.testing.assert_allclose(a, e, rtol=1e-10, atol=1e-12), actual, expected)


def loss(function):
    return lambda *args: jnp.sin(function(*args)).sum()


@pytest.mark.parametrize("axes", [(0, 0, 0), (None, 0, None), (0, None, None), (None, None, 0)])
def test_mapped_and_differentiated_twice(double, axes):
    args = tuple(a if axis is None else b for a, b, axis in zip(arguments(), arguments(5), axes, strict=True))
    found = []
    for function in (ours, plain):
        mapped = jax.vmap(function, in_axes=axes)
        gradient = jax.grad(loss(mapped), (0, 1, 2))
        found.append((gradient(*args), jax.jvp(gradient, args, args), jax.jit(mapped)(*args)))
    close(*found)


def test_transposed_in_part_of_its_inputs(double):
    a, x, y = arguments()
    for function in (lambda x: ours(a, x, None), lambda x: ours(a, x, y) - ours(a, jnp.zeros(4), y)):
        close(jax.vjp(function, x)[1](y), (jnp.sin(a).T @ y,))


def test_in_a_scan(double):
    a, x, _ = arguments()

    def through(function):
        return lambda a: lax.scan(lambda x, _: (a.T @ function(a, x, None), None), x, None, length=3)[0].sum()

    for second in (jax.grad, jax.hessian):
        close(second(through(ours))(a), second(through(plain))(a))


def test_the_transpose_is_the_one_given():
    """A wrong one is used as it is: nothing derives it behind one's back."""
    a, x, y = arguments()
    wrong = Direction(lambda operands, cotangents: (jnp.full(4, 7.0), jnp.zeros(3)))
    pulled = jax.grad(lambda x: linear_map(MAP[0], wrong, (a,), (x, y), outputs=1)[0].sum())(x)
    np.testing.assert_array_equal(pulled, 7.0)


def test_opaque_functions_are_differentiated_by_their_plain_form(double):
    cube = Direction(
        lambda operands, _: (jax.pure_callback(lambda x: x**3, operands[0], operands[0]),), lambda o, _: (o[0] ** 3,)
    )

    def through(x):
        return lax.scan(lambda x, _: (opaque(cube, (x,), outputs=1)[0], None), x, None, length=2)[0]

    close(through(1.1), 1.1**9)
    close(jax.grad(jax.grad(through))(1.1), 72 * 1.1**7)

"""Variable types beyond Flax's own."""

from flax import nnx


class Hyperparameter(nnx.Variable):
    """A number that belongs to the network but is not trained, such as a skip strength.

    Being an array and not a Python number, it can differ between networks that run in one compiled program.
    """

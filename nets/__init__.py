"""Flax NNX modules: what a researcher edits. Nothing here knows of sweeps."""

from nets.activations import ACTIVATIONS
from nets.batchnorm import BatchNorm
from nets.blocks import ORDERS, Block, PostActivation, PreActivation
from nets.initializers import INITIALIZERS
from nets.mlp import MLP
from nets.network import Network, Part
from nets.norms import NORMS, NoNorm
from nets.stack import Stack
from nets.variables import Hyperparameter

__all__ = [
    "ACTIVATIONS",
    "INITIALIZERS",
    "MLP",
    "NORMS",
    "ORDERS",
    "BatchNorm",
    "Block",
    "Hyperparameter",
    "Network",
    "NoNorm",
    "Part",
    "PostActivation",
    "PreActivation",
    "Stack",
]

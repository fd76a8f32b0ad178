"""Flax NNX modules: what a researcher edits. Nothing here knows of sweeps."""

from nets.activations import ACTIVATIONS
from nets.basic import BasicBlock
from nets.batchnorm import BatchNorm
from nets.blocks import ORDERS, SKIP_STRENGTH, Block, PostActivation, PreActivation
from nets.cnn import CNN
from nets.initializers import INITIALIZERS
from nets.mlp import MLP
from nets.network import Network, Part, Trace
from nets.norms import NORMS, NoNorm
from nets.stack import Stack
from nets.variables import Hyperparameter

__all__ = [
    "ACTIVATIONS",
    "CNN",
    "INITIALIZERS",
    "MLP",
    "NORMS",
    "ORDERS",
    "SKIP_STRENGTH",
    "BasicBlock",
    "BatchNorm",
    "Block",
    "Hyperparameter",
    "Network",
    "NoNorm",
    "Part",
    "PostActivation",
    "PreActivation",
    "Stack",
    "Trace",
]

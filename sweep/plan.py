"""Which members a config asks for, and which of them share a program."""

from itertools import product

from sweep.config import Config
from sweep.members import ImageShape, Member, Structure


def members_of(config: Config) -> tuple[Member, ...]:
    """Every combination of a sweep's values, members of one structure side by side."""
    return tuple(
        Member(net, norm, depth, seed, learning_rate, weight_std, bias_std)
        for norm, net, depth, seed, learning_rate, weight_std, bias_std in product(
            config.norms,
            config.nets,
            config.depths,
            config.seeds,
            config.learning_rates,
            config.weight_std,
            config.bias_std,
        )
    )


def structures_of(config: Config, image_shape: ImageShape, out_features: int) -> dict[Structure, tuple[Member, ...]]:
    """The programs of a sweep and the members each trains, in the order of `members_of`."""
    groups: dict[Structure, tuple[Member, ...]] = {}
    for member in members_of(config):
        structure = Structure(
            config.arch,
            member.norm,
            config.width,
            config.activation,
            config.order,
            config.init,
            config.shortcut,
            image_shape,
            out_features,
        )
        groups[structure] = (*groups.get(structure, ()), member)
    return groups

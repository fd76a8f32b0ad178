"""Which of a sweep's members train on which device."""

from collections import defaultdict
from collections.abc import Sequence
from math import ceil

from sweep.members import Member


def _by_depth(members: Sequence[Member]) -> dict[int, list[Member]]:
    """The members of each depth, deepest first; those of one seed, who see the same batches, side by side."""
    groups: dict[int, list[Member]] = defaultdict(list)
    for member in sorted(members, key=lambda member: (-member.depth, member.seed)):
        groups[member.depth].append(member)
    return groups


def shard_count(members: Sequence[Member], devices: int) -> int:
    """On how many devices, at most, these members are done soonest: the fewest that leave one the least layers."""
    counts = {depth: len(group) for depth, group in _by_depth(members).items()}

    def layers(shards: int) -> int:
        return sum(depth * ceil(count / shards) for depth, count in counts.items())

    return min(range(1, devices + 1), key=layers)


def place(members: Sequence[Member], shards: int) -> tuple[Member, ...]:
    """The members of one shard after the other, each deepest first and all of the same depths, as one program needs.

    Where the members of a depth do not divide evenly, its last one is trained again in the places left over.
    """
    found: list[list[Member]] = [[] for _ in range(shards)]
    for group in _by_depth(members).values():
        each = ceil(len(group) / shards)
        filled = group + [group[-1]] * (each * shards - len(group))
        for shard, start in zip(found, range(0, len(filled), each), strict=True):
            shard += filled[start : start + each]
    return tuple(member for shard in found for member in shard)

"""Who trains on which device."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sweep.devices import Grid
from sweep.errors import UserError
from sweep.members import Member, traits_of
from sweep.mesh import grid_for
from sweep.placement import place, shard_count


def member(depth, seed=0, rate=0.1):
    return Member("plain", "none", depth, seed, rate, 1.0, 0.0)


@pytest.mark.parametrize(
    ("counts", "devices", "expected"),
    [
        ({4: 4, 2: 4}, 2, 2),  # half each
        ({4: 1}, 8, 1),  # nothing to spread
        ({4: 3}, 2, 2),  # two here and, one of them twice, two there: sooner than three
        ({4: 6}, 5, 3),  # two each, as on four or five
        ({4: 2, 2: 2}, 1, 1),
    ],
)
def test_the_fewest_devices_that_are_done_soonest(counts, devices, expected):
    members = [member(depth, seed) for depth, count in counts.items() for seed in range(count)]
    assert shard_count(members, devices) == expected


def test_the_mesh_that_was_asked_for():
    two, nine = [member(4), member(4, 1)], [member(4, seed) for seed in range(9)]
    assert grid_for(None, [two, nine], 8) == Grid(5, 1)  # two each, as on eight
    assert grid_for(None, [two], 8) == Grid(2, 1)
    assert grid_for("members=3", [two], 8) == Grid(3, 1)
    assert grid_for("batch=4", [nine], 8) == Grid(2, 4)
    assert grid_for("members=4,batch=2", [nine], 8) == Grid(4, 2)
    for mesh in ("members=4,batch=2", "batch=8"):
        with pytest.raises(UserError, match=r"takes 8 devices, and there are 7; JAX_NUM_CPU_DEVICES=8 makes"):
            grid_for(mesh, [two], 7)


@given(st.lists(st.tuples(st.integers(1, 5), st.integers(0, 3)), min_size=1, max_size=20), st.integers(1, 5))
def test_everybody_has_a_place_in_shards_of_the_same_depths(drawn, shards):
    members = [member(depth, seed, rate=float(i)) for i, (depth, seed) in enumerate(drawn)]
    placed = place(members, shards)
    assert {*placed} == {*members}
    size = len(placed) // shards
    depths = [[one.depth for one in placed[i * size : (i + 1) * size]] for i in range(shards)]
    assert all(of_shard == depths[0] == sorted(depths[0], reverse=True) for of_shard in depths)
    # No more places than one short of another shard at every depth.
    assert len(placed) <= len(members) + (shards - 1) * len({*depths[0]})
    traits = traits_of(placed, shards)
    for shard in range(shards):
        own = [one.seed for one in placed[shard * size : (shard + 1) * size]]
        assert traits.seeds[shard][traits.place[shard]].tolist() == traits.seed[shard].tolist() == own
    assert traits.learning_rate.ravel().tolist() == [one.learning_rate for one in placed]

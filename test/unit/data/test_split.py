"""The split of episodes into training and validation."""

import itertools
from collections import Counter

import numpy as np
import pytest

from mobile_vla_ros.data.split import Repeats, find_repeats, split_episodes
from mobile_vla_ros.errors import UserError


def episodes_with(*counts: int) -> dict[str, str]:
    """Return id → instruction, with this many episodes of each instruction."""
    return {
        f'{number}-{index}': f'go to box {number}'
        for number, count in enumerate(counts)
        for index in range(count)
    }


def sides(instructions, val_share, seed=0, groups=()):
    """Split, and count each side's instructions."""
    training, val = split_episodes(instructions, val_share, seed, groups)
    assert sorted(training + val) == sorted(instructions)
    return tuple(Counter(instructions[one] for one in side) for side in (training, val))


def test_the_split_is_by_episode_seeded_and_spread_over_instructions():
    """The split does not leak, and each instruction is on both sides."""
    instructions = {f'{colour}{i}': colour for colour in ('red', 'blue') for i in range(10)}
    training, val = split_episodes(instructions, 0.2, seed=3)
    assert not set(training) & set(val)
    assert sorted(training + val) == sorted(instructions)
    assert sorted(instructions[name] for name in val) == ['blue', 'blue', 'red', 'red']
    assert (training, val) == split_episodes(instructions, 0.2, seed=3)
    assert val != split_episodes(instructions, 0.2, seed=4)[1]
    with pytest.raises(UserError, match='too few episodes'):
        split_episodes({'a': 'go'}, 0.2, 0)


@pytest.mark.parametrize('seed', range(5))
def test_a_rare_instruction_is_on_both_sides(seed):
    """Regression: with every n-th episode, half of the instructions with two were on one side."""
    training, val = sides(episodes_with(80, *[2] * 10), 0.2, seed)
    assert len(training) == len(val) == 11
    assert val.total() == 20


@pytest.mark.parametrize(
    ('counts', 'share', 'held', 'validating'),
    [
        ([3] * 20, 0.2, 12, 12),  # the share is 12 episodes: one of each of 12 instructions
        ([3] * 20, 0.01, 1, 1),  # never empty
        ([3] * 20, 0.99, 20, 40),  # every instruction keeps an episode to train on
        ([1] * 10, 0.2, 2, 2),  # instructions with one episode count as one instruction
        ([1] * 10, 0.99, 9, 9),
        ([8, 1, 1, 1, 1], 0.15, 2, 2),
        ([1, 1], 0.01, 1, 1),
    ],
)
def test_extreme_shares_and_instructions(counts, share, held, validating):
    """As many instructions as fit into the share validate; all are trained on."""
    training, val = sides(episodes_with(*counts), share)
    assert (len(val), val.total()) == (held, validating)
    if min(counts) > 1:
        assert len(training) == len(counts)


def test_another_episode_moves_few_others():
    """Adding an episode leaves nearly all others on their side."""
    instructions = episodes_with(40, 40, 40)
    before = set(split_episodes(instructions, 0.2, 0)[1])
    after = set(split_episodes({**instructions, 'new': 'go to box 1'}, 0.2, 0)[1])
    assert len(before ^ after) <= 2


def reference_episodes():
    """Return the reference run's id → instruction, and its groups of equal commands."""
    rng = np.random.default_rng(0)
    of = [*range(16), *rng.integers(0, 16, 231 - 16)]
    instructions = {
        f'take{number:03}': f'go to box {group % 4}' for number, group in enumerate(of)
    }
    groups = [
        [name for name, own in zip(instructions, of, strict=True) if own == group]
        for group in range(16)
    ]
    return instructions, groups


def test_grouped_episodes_stay_on_one_side():
    """16 distinct trajectories of 231 episodes; every instruction still validates."""
    instructions, groups = reference_episodes()
    for seed in range(5):
        training, val = split_episodes(instructions, 0.2, seed, groups)
        assert all(len({name in val for name in group}) == 1 for group in groups)
        assert 0.15 < len(val) / 231 < 0.3
        assert {instructions[name] for name in val} == set(instructions.values())
        assert {instructions[name] for name in training} == set(instructions.values())
    apart = Repeats(231, groups).across(split_episodes(instructions, 0.2, 0)[0])
    assert len(apart) == 16, 'without grouping, every group leaks'


@pytest.mark.parametrize(
    'groups',
    [
        [['0-0', '0-1', '0-2', '0-3', '0-4']],
        [['0-0', '0-1', '0-2']],
        [['0-0', '0-1', '0-2', '0-3'], ['0-4', '1-0']],
        [['0-0', '1-0'], ['0-1', '1-1']],
        [['0-0', '0-1', '0-2', '0-3', '0-4'], ['1-0', '1-1', '1-2']],
    ],
)
@pytest.mark.parametrize('share', [0.01, 0.2, 0.5, 0.99])
def test_no_grouping_empties_a_side(groups, share):
    """For groups of any size, both sides have episodes."""
    training, val = split_episodes(episodes_with(5, 3), share, 0, groups)
    assert training and val
    for group in groups:
        assert len({name in val for name in group}) == 1


@pytest.mark.parametrize('share', [0, 1, -0.1, float('nan')])
def test_a_share_that_leaves_a_side_empty_is_refused(share):
    """Both sides are required."""
    with pytest.raises(UserError, match='validation share is out of range'):
        split_episodes(episodes_with(5), share, 0)


def test_episodes_that_are_all_alike_cannot_be_split_by_group():
    """With an error, not an empty side."""
    with pytest.raises(UserError, match='all 5 episodes drive nearly the same commands'):
        split_episodes(episodes_with(5), 0.2, 0, [list(episodes_with(5))])


def test_repeats_are_counted_among_moving_episodes():
    """Two drives, one of them three times, and idle episodes."""
    ways = {
        name: np.full((20, 3), speed, np.float32)
        for name, speed in (('d', 1.0), ('a', 1.0), ('c', 0.5), ('b', 1.0))
    }
    found = find_repeats(
        {**ways, 'e': np.zeros((0, 3), np.float32), 'f': np.zeros((0, 3), np.float32)}
    )
    assert (found.driven, found.distinct, found.groups) == (4, 2, [['a', 'b', 'd']])
    assert found.across(['a', 'c']) == [['a', 'b', 'd']]
    for train in itertools.chain([['a', 'b', 'd']], [['c', 'e']]):
        assert found.across(train) == []

"""Which takes train and which validate."""

import pytest

from mobile_vla_ros.data.split import split_episodes
from mobile_vla_ros.errors import UserError


def test_the_split_is_by_take_seeded_and_spread_over_instructions():
    """SEED.md, 6: the split must not leak, and each instruction is on both sides."""
    instructions = {f'{colour}{i}': colour for colour in ('red', 'blue') for i in range(10)}
    training, val = split_episodes(instructions, 0.2, seed=3)
    assert not set(training) & set(val)
    assert sorted(training + val) == sorted(instructions)
    assert sorted(instructions[name] for name in val) == ['blue', 'blue', 'red', 'red']
    assert (training, val) == split_episodes(instructions, 0.2, seed=3)
    assert val != split_episodes(instructions, 0.2, seed=4)[1]
    with pytest.raises(UserError, match='too few takes'):
        split_episodes({'a': 'go'}, 0.2, 0)

"""Which episodes train and which validate: by episode, seeded, spread over the instructions."""

import hashlib
from collections.abc import Mapping

from mobile_vla_ros.errors import UserError


def split_episodes(instructions: Mapping[str, str], val_share: float,
                   seed: int) -> tuple[list[str], list[str]]:
    """
    Split episodes into a training and a validation side.

    Episodes are ordered by instruction and, within one, by a hash of seed and id; every n-th goes
    to validation. So each instruction gives its share as nearly as whole episodes allow, and
    adding an episode moves few others across.

    :param instructions: instruction of each episode id.
    :param val_share: share of the episodes that validate, more than 0 and less than 1.
    :returns: sorted ids of the training side and of the validation side, neither empty.
    """
    if not 0 < val_share < 1:
        raise UserError('the validation share is out of range', got=val_share,
                        expected='more than 0 and less than 1')
    if len(instructions) < 2:
        raise UserError('too few takes to train and to validate', got=len(instructions),
                        expected='at least 2', remedy='record more takes')

    def key(episode_id: str) -> tuple[str, str]:
        return (instructions[episode_id],
                hashlib.sha256(f'{seed}/{episode_id}'.encode()).hexdigest())

    ordered = sorted(instructions, key=key)
    wanted = min(max(1, round(val_share * len(ordered))), len(ordered) - 1)
    val = {ordered[int((i + 0.5) * len(ordered) / wanted)] for i in range(wanted)}
    return sorted(set(ordered) - val), sorted(val)

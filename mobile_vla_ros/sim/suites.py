"""Named suites of scenes, each with seeds of its own, so that no suite shares a scene."""

from collections.abc import Callable
from dataclasses import dataclass

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.sim.scene import Scene, begin_near, generate

# Every suite owns this many seeds, counted from its own first one.
SEEDS_PER_SUITE = 10_000_000


@dataclass(frozen=True)
class Suite:
    """
    One family of scenes.

    :param block: which block of seeds it owns; never given to another suite.
    :param make: makes the scene of a seed.
    """

    block: int
    about: str
    make: Callable[[int], Scene]


SUITES = {
    'train': Suite(0, 'takes to learn from; the wheels slip a little in every other one',
                   lambda seed: generate(seed, slip=0.06 * (seed % 2))),
    'pictures': Suite(1, 'what the small backbone learns to name; nobody drives in them',
                      lambda seed: generate(seed, counts=(1, 2, 3, 4))),
    'unseen_layouts': Suite(2, 'the same kind of scene, none of them in the takes', generate),
    'near': Suite(3, 'takes that begin just before the target, some of them too near',
                  lambda seed: begin_near(generate(seed))),
}


def scene(suite: str, index: int) -> Scene:
    """
    Return the scene of one trial; the same suite and index always give the same scene.

    :raises UserError: for an unknown suite, or an index outside of it.
    """
    if suite not in SUITES:
        raise UserError('unknown suite', got=repr(suite), expected=', '.join(SUITES),
                        remedy=did_you_mean(suite, SUITES))
    if not 0 <= index < SEEDS_PER_SUITE:
        raise UserError('a suite has no such trial', got=index,
                        expected=f'0 to {SEEDS_PER_SUITE - 1}')
    return SUITES[suite].make(SUITES[suite].block * SEEDS_PER_SUITE + index)

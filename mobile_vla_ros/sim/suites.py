"""Named suites of scenes, each with its own seeds, so that no two share a scene."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.sim.layouts import begin_near, draw_scene, other_instruction
from mobile_vla_ros.sim.scene import (
    BESIDE,
    DIFF,
    GO_TO,
    KINDS,
    OF_TWO,
    OMNI,
    PAIRS,
    PASS,
    STOP,
    Disturbance,
    Scene,
)

# Results of two versions are not comparable: raise it when any scene changes.
VERSION = 2

# Every suite owns this many seeds, counted from its own first one.
SEEDS_PER_SUITE = 10_000_000

# Pairs that no episode shows: one of each colour.
HELD_OUT_PAIRS = (
    ('red', 'cone'),
    ('green', 'ball'),
    ('blue', 'cylinder'),
    ('yellow', 'box'),
    ('purple', 'ball'),
    ('orange', 'cone'),
)
TAUGHT_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)

# The tasks of `train` in turn: harder ones more often.
LESSONS = (
    GO_TO,
    PASS,
    OF_TWO,
    GO_TO,
    PASS,
    BESIDE,
    GO_TO,
    PASS,
    OF_TWO,
    STOP,
    GO_TO,
    PASS,
    BESIDE,
    GO_TO,
    PASS,
    OF_TWO,
    GO_TO,
    PASS,
    BESIDE,
    PASS,
)

# The demo's episodes are the first scenes of `train`; `seen` drives in these again.
SEEN_SCENES = 50


@dataclass(frozen=True)
class Suite:
    """
    One family of scenes.

    :param block: its block of seeds; no two suites share one, except `seen` and `train`.
    :param make: makes the scene of a seed for a base.
    :param drives: scenes per trial, all of which must succeed.
    :param yardstick: whether it measures a policy.
    :param base: of its scenes, ``omni`` or ``diff``.
    """

    block: int
    about: str
    make: Callable[[int, str], Scene]
    drives: int = 1
    yardstick: bool = True
    base: str = OMNI


def _taught(seed: int, base: str) -> Scene:
    return draw_scene(seed, pairs=TAUGHT_PAIRS, base=base)


def _train(seed: int, base: str) -> Scene:
    return draw_scene(
        seed,
        LESSONS[seed % len(LESSONS)],
        pairs=TAUGHT_PAIRS,
        slip=0.06 * (seed // len(LESSONS) % 2),
        base=base,
    )


def _near(seed: int, base: str) -> Scene:
    kind = (GO_TO, PASS, OF_TWO, PASS, BESIDE)[seed % 5]
    return begin_near(draw_scene(seed, kind, pairs=TAUGHT_PAIRS, base=base))


def _pictures(seed: int, base: str) -> Scene:
    return draw_scene(seed, tuple(KINDS)[seed % 4], base=base)


def _unseen_pairs(seed: int, base: str) -> Scene:
    scene = draw_scene(seed, targets=HELD_OUT_PAIRS, base=base)
    if scene.task.kind == STOP:  # names no object
        scene = draw_scene(seed, GO_TO, targets=HELD_OUT_PAIRS, base=base)
    return scene


def _swap(seed: int, base: str) -> Scene:
    scene = _taught(seed - seed % 2, base)
    return other_instruction(scene) if seed % 2 else scene


def _disturbed(seed: int, base: str) -> Scene:
    rng = np.random.default_rng([seed, 7])
    pushes: list[tuple[float, float, float]] = []
    for begin in (rng.uniform(0.5, 2.0), rng.uniform(2.5, 4.5)):
        direction = rng.uniform(-np.pi, np.pi)
        speed = rng.uniform(0.2, 0.5)
        pushes.append(
            (float(begin), float(speed * np.cos(direction)), float(speed * np.sin(direction)))
        )
    disturbance = Disturbance(tuple(pushes), drop=0.05, late=0.1)
    return replace(_taught(seed, base), disturbance=disturbance)


_OMNI_SUITES = {
    'train': Suite(
        0,
        'episodes to learn from; the wheels slip a little in every other twenty',
        _train,
        yardstick=False,
    ),
    'pictures': Suite(
        1,
        'scenes for the small backbone to name; nobody drives in them',
        _pictures,
        yardstick=False,
    ),
    'near': Suite(
        3, 'episodes that begin near the end, some of them beyond it', _near, yardstick=False
    ),
    'seen': Suite(
        0,
        "the episodes' own scenes, driven again",
        lambda seed, base: _train(seed - seed % SEEDS_PER_SUITE + seed % SEEN_SCENES, base),
    ),
    'unseen_layouts': Suite(2, 'the same kind of scenes, none of them in the episodes', _taught),
    'unseen_pairs': Suite(
        4, 'the target has a colour and shape that no episode shows together', _unseen_pairs
    ),
    'unseen_wording': Suite(
        5,
        'instructions in sentences that no episode has',
        lambda seed, base: draw_scene(seed, pairs=TAUGHT_PAIRS, unseen_wording=True, base=base),
    ),
    'swap': Suite(
        6,
        'the same scene twice, the second time with another instruction; a trial is both',
        _swap,
        drives=2,
    ),
    'disturbed': Suite(7, 'pushes off course, lost and late frames', _disturbed),
}


# The same for a base that cannot strafe, with seeds of its own.
DIFF_PREFIX = 'diff_'
SUITES = _OMNI_SUITES | {
    DIFF_PREFIX + name: replace(suite, block=suite.block + len(_OMNI_SUITES), base=DIFF)
    for name, suite in _OMNI_SUITES.items()
    if name != 'pictures'  # the backbone is the same
}


def for_base(suite: str, base: str) -> str:
    """Return the name of a suite's scenes for a base; a name that has a base already stays."""
    return suite if base == OMNI or suite.startswith(DIFF_PREFIX) else DIFF_PREFIX + suite


def scene(suite: str, index: int) -> Scene:
    """
    Return one scene of a suite; the same suite and index always give the same scene.

    :raises UserError: for an unknown suite, or an index outside it.
    """
    if suite not in SUITES:
        raise UserError(
            'unknown suite',
            got=repr(suite),
            expected=', '.join(SUITES),
            remedy=did_you_mean(suite, SUITES),
        )
    if not 0 <= index < SEEDS_PER_SUITE:
        raise UserError(
            'no such trial in a suite', got=index, expected=f'0 to {SEEDS_PER_SUITE - 1}'
        )
    drawn = SUITES[suite]
    return drawn.make(drawn.block * SEEDS_PER_SUITE + index, drawn.base)

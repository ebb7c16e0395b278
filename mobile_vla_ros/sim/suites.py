"""Named suites of scenes, each with seeds of its own, so that no suite shares a scene."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.sim.layouts import begin_near, draw_scene, other_instruction
from mobile_vla_ros.sim.scene import (
    BESIDE,
    GO_TO,
    KINDS,
    OF_TWO,
    PAIRS,
    PASS,
    STOP,
    Disturbance,
    Scene,
)

# A figure of one version says nothing about another: raise it when any scene changes.
VERSION = 2

# Every suite owns this many seeds, counted from its own first one.
SEEDS_PER_SUITE = 10_000_000

# Pairs that no take shows: one of each colour.
HELD_OUT_PAIRS = (
    ('red', 'cone'),
    ('green', 'ball'),
    ('blue', 'cylinder'),
    ('yellow', 'box'),
    ('purple', 'ball'),
    ('orange', 'cone'),
)
TAUGHT_PAIRS = tuple(pair for pair in PAIRS if pair not in HELD_OUT_PAIRS)

# What is taught, in turn: what is harder to copy, more often.
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

# The demo's takes come from the first scenes of `train`; `seen` drives in these again.
SEEN_SCENES = 50


@dataclass(frozen=True)
class Suite:
    """
    One family of scenes.

    :param block: which block of seeds it owns; given to no other suite, but `seen` is `train`.
    :param make: makes the scene of a seed.
    :param drives: how many scenes in a row make one trial, which needs all of them right.
    :param yardstick: whether it is one to measure a policy by.
    """

    block: int
    about: str
    make: Callable[[int], Scene]
    drives: int = 1
    yardstick: bool = True


def _taught(seed: int) -> Scene:
    return draw_scene(seed, pairs=TAUGHT_PAIRS)


def _train(seed: int) -> Scene:
    return draw_scene(
        seed,
        LESSONS[seed % len(LESSONS)],
        pairs=TAUGHT_PAIRS,
        slip=0.06 * (seed // len(LESSONS) % 2),
    )


def _near(seed: int) -> Scene:
    kind = (GO_TO, PASS, OF_TWO, PASS, BESIDE)[seed % 5]
    return begin_near(draw_scene(seed, kind, pairs=TAUGHT_PAIRS))


def _pictures(seed: int) -> Scene:
    return draw_scene(seed, tuple(KINDS)[seed % 4])


def _unseen_pairs(seed: int) -> Scene:
    scene = draw_scene(seed, targets=HELD_OUT_PAIRS)
    if scene.task.kind == STOP:  # no object is named in it
        scene = draw_scene(seed, GO_TO, targets=HELD_OUT_PAIRS)
    return scene


def _swap(seed: int) -> Scene:
    scene = _taught(seed - seed % 2)
    return other_instruction(scene) if seed % 2 else scene


def _disturbed(seed: int) -> Scene:
    rng = np.random.default_rng([seed, 7])
    pushes = []
    for begin in (rng.uniform(0.5, 2.0), rng.uniform(2.5, 4.5)):
        direction = rng.uniform(-np.pi, np.pi)
        speed = rng.uniform(0.2, 0.5)
        pushes.append(
            (float(begin), float(speed * np.cos(direction)), float(speed * np.sin(direction)))
        )
    return replace(_taught(seed), disturbance=Disturbance(tuple(pushes), drop=0.05, late=0.1))


SUITES = {
    'train': Suite(
        0,
        'takes to learn from; the wheels slip a little in every other twenty',
        _train,
        yardstick=False,
    ),
    'pictures': Suite(
        1,
        'what the small backbone learns to name; nobody drives in them',
        _pictures,
        yardstick=False,
    ),
    'near': Suite(
        3, 'takes that begin just before the end, some of them beyond it', _near, yardstick=False
    ),
    'seen': Suite(
        0, "the takes' own scenes, driven again", lambda seed: _train(seed % SEEN_SCENES)
    ),
    'unseen_layouts': Suite(2, 'the same kind of scene, none of them in the takes', _taught),
    'unseen_pairs': Suite(
        4, 'the target is of a colour and shape that no take shows together', _unseen_pairs
    ),
    'unseen_wording': Suite(
        5,
        'told in sentences that no take has',
        lambda seed: draw_scene(seed, pairs=TAUGHT_PAIRS, unseen_wording=True),
    ),
    'swap': Suite(
        6,
        'the same scene twice, the second time with another instruction; a trial is both',
        _swap,
        drives=2,
    ),
    'disturbed': Suite(7, 'pushed off course, frames lost and late', _disturbed),
}


def scene(suite: str, index: int) -> Scene:
    """
    Return one scene of a suite; the same suite and index always give the same scene.

    :raises UserError: for an unknown suite, or an index outside of it.
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
            'a suite has no such trial', got=index, expected=f'0 to {SEEDS_PER_SUITE - 1}'
        )
    return SUITES[suite].make(SUITES[suite].block * SEEDS_PER_SUITE + index)

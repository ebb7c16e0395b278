"""Scenes and suites: determined by a seed, unambiguous, and drivable."""

import hashlib
import itertools
import math
import re
from collections import Counter
from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.layouts import draw_scene, other_instruction
from mobile_vla_ros.sim.scene import (
    BASE_RADIUS_M,
    BESIDE,
    COLOURS,
    GO_TO,
    KINDS,
    OF_TWO,
    PAIRS,
    PASS,
    SHAPES,
    STOP,
    Task,
    draw_appearance,
)
from mobile_vla_ros.sim.suites import HELD_OUT_PAIRS
from mobile_vla_ros.sim.wording import UNSEEN_WORDINGS, WORDINGS, plural

DRIVEN = [name for name in suites.SUITES if name != 'pictures']
TAUGHT = [name for name in DRIVEN if not name.endswith('unseen_pairs')]


@cache
def scenes(suite: str, count: int) -> list:
    return [suites.scene(suite, index) for index in range(count)]


@pytest.mark.parametrize('suite', suites.SUITES)
def test_a_trial_is_the_same_scene_every_time(suite):
    """The same suite and index give an equal scene; another index gives another."""
    assert suites.scene(suite, 7) == suites.scene(suite, 7)
    assert suites.scene(suite, 7) != suites.scene(suite, 8)


def test_no_two_suites_share_a_seed():
    """Blocks of seeds are disjoint, so a policy is never tried on a scene of its episodes."""
    blocks = [suite.block for name, suite in suites.SUITES.items() if not name.endswith('seen')]
    assert len(set(blocks)) == len(blocks)
    last = suites.scene('train', suites.SEEDS_PER_SUITE - 1).seed
    assert last < min(
        suites.scene(name, 0).seed for name in suites.SUITES if name not in ('train', 'seen')
    )
    for base in ('', 'diff_'):
        assert suites.scene(f'{base}seen', 53) == suites.scene(f'{base}train', 3)


def test_seen_repeats_the_scenes_of_the_episodes():
    """It measures memory: its scenes are the first ones of `train`."""
    for index in range(suites.SEEN_SCENES):
        assert suites.scene('seen', index) == suites.scene('train', index)
    assert suites.scene('seen', suites.SEEN_SCENES) == suites.scene('train', 0)


def test_an_unknown_suite_is_refused_with_the_known_ones():
    """The error names every suite and the nearest spelling."""
    with pytest.raises(UserError, match=r"unseen_layouts.*mean 'unseen_layouts'"):
        suites.scene('unseen_layout', 0)


@pytest.mark.parametrize('index', [-1, suites.SEEDS_PER_SUITE])
def test_an_index_outside_a_suite_is_refused(index):
    """An index can never reach into another suite's seeds."""
    with pytest.raises(UserError, match='no such trial'):
        suites.scene('train', index)


@pytest.mark.parametrize('suite', ['unseen_layouts', 'unseen_wording', 'disturbed'])
def test_each_kind_of_task_has_its_fraction(suite):
    """Counts of 400 scenes stay within four standard deviations of KINDS."""
    counts = Counter(scene.task.kind for scene in scenes(suite, 400))
    assert set(counts) == set(KINDS)
    for kind, share in KINDS.items():
        assert abs(counts[kind] - 400 * share) < 4 * math.sqrt(400 * share * (1 - share))


def test_near_has_every_kind_that_ends_at_an_object():
    """Passing is hardest to learn, and has two of five."""
    counts = Counter(scene.task.kind for scene in scenes('near', 80))
    assert counts == {GO_TO: 16, PASS: 32, BESIDE: 16, OF_TWO: 16}


def test_lessons_alternate():
    """The first episodes are as varied as all of them, and have every kind."""
    assert [scene.task.kind for scene in scenes('train', 40)] == [*suites.LESSONS] * 2
    assert set(suites.LESSONS) == set(KINDS)


def named(scene) -> dict[str, str]:
    """Return the words that a scene's instruction must contain."""
    task, words = scene.task, {}
    if task.target is not None:
        words['thing'] = f'{scene.goal.colour} {scene.goal.shape}'
    if task.side:
        words['side'] = task.side
    if task.obstacles:
        name = scene.objects[task.obstacles[0]].name
        words['obstacle'] = name if len(task.obstacles) == 1 else f'{name}es'
    return words


@pytest.mark.parametrize('suite', DRIVEN)
def test_an_instruction_names_its_task_and_nothing_else(suite):
    """The object, the side and the obstacle of the scene."""
    for scene in scenes(suite, 120):
        words, text = named(scene), scene.instruction
        if scene.task.kind == OF_TWO:
            assert words['thing'] in text or plural(words['thing']) in text
        for what in set(words) - ({'thing'} if scene.task.kind == OF_TWO else set()):
            assert re.search(rf'\b{words[what]}\b', text), (text, words)
        sides = set(re.findall(r'\b(left|right)\b', text))
        assert sides == ({scene.task.side} if scene.task.side else set())
        colours = set(re.findall('|'.join(COLOURS), text))
        assert colours == {word.split()[0] for word in words.values()} & set(COLOURS)
        assert (scene.goal is None) == (scene.task.kind == STOP)


def test_a_name_is_unique_except_for_pairs_with_sides():
    """A name occurs twice only if the side distinguishes the objects; obstacles share theirs."""
    for scene in scenes('train', 400):
        counts = Counter(thing.name for thing in scene.objects)
        if scene.task.kind == OF_TWO:
            assert sorted(counts.values(), reverse=True)[:2] in ([2], [2, 1])
            assert counts[scene.goal.name] == 2
            other = next(
                thing
                for i, thing in enumerate(scene.objects)
                if thing.name == scene.goal.name and i != scene.task.target
            )
            assert (scene.goal.y > other.y) == (scene.task.side == 'left')
        elif scene.task.kind == PASS:
            obstacles = [scene.objects[i] for i in scene.task.obstacles]
            assert len({thing.name for thing in obstacles}) == 1
            assert scene.goal.name not in {thing.name for thing in obstacles}
            assert all(thing.x + thing.radius < scene.goal.x for thing in obstacles)
            assert len(scene.objects) == len(obstacles) + 1
        else:
            assert set(counts.values()) == {1}
            assert 1 <= len(counts) <= 4


def test_left_and_right_are_equally_frequent():
    """Neither the kind nor the place of the goal reveals the side."""
    for kind in (OF_TWO, BESIDE, PASS):
        sides = [scene.task.side for scene in scenes('train', 400) if scene.task.kind == kind]
        assert 0.3 < sides.count('left') / len(sides) < 0.7
        assert set(sides) == {'left', 'right'}


@pytest.mark.parametrize('suite', TAUGHT)
def test_a_held_out_pair_is_in_no_other_suite(suite):
    """Neither as a goal, nor beside it, nor as an obstacle."""
    for scene in scenes(suite, 300):
        assert not {(thing.colour, thing.shape) for thing in scene.objects} & set(HELD_OUT_PAIRS)


def test_every_target_of_unseen_pairs_is_held_out():
    """Each of them, and never a stop, which names no object."""
    goals = Counter((scene.goal.colour, scene.goal.shape) for scene in scenes('unseen_pairs', 300))
    assert set(goals) == set(HELD_OUT_PAIRS)
    assert {colour for colour, _ in HELD_OUT_PAIRS} == set(COLOURS)


def patterns(wordings: dict) -> list[re.Pattern]:
    thing = rf'(?:{"|".join(COLOURS)}) (?:{"|".join(SHAPES)})'
    fields = {
        'thing': thing,
        'things': f'{thing}e?s',
        'obstacle': f'{thing}(?:es)?',
        'side': '(?:left|right)',
    }
    return [re.compile(text.format(**fields)) for texts in wordings.values() for text in texts]


def test_unseen_sentences_match_no_template_of_the_episodes_and_vice_versa():
    """Nor a template of another kind."""
    taught, unseen = patterns(WORDINGS), patterns(UNSEEN_WORDINGS)
    for suite in DRIVEN:
        own, other = taught, unseen
        if suite.endswith('unseen_wording'):
            own, other = unseen, taught
        for scene in scenes(suite, 120):
            assert any(one.fullmatch(scene.instruction) for one in own), scene.instruction
            assert not any(one.fullmatch(scene.instruction) for one in other), scene.instruction


def test_every_sentence_occurs():
    """In the episodes and in the unseen wordings."""
    for suite, wordings in (('train', WORDINGS), ('unseen_wording', UNSEEN_WORDINGS)):
        sentences = {scene.instruction for scene in scenes(suite, 400)}
        for one in patterns(wordings):
            assert any(one.fullmatch(text) for text in sentences), one.pattern


def test_swap_changes_the_task_in_the_same_world():
    """Scenes 2k and 2k + 1 look the same but need different drives."""
    kinds = set()
    for first, second in zip(scenes('swap', 200)[::2], scenes('swap', 200)[1::2], strict=True):
        assert replace(second, task=first.task, instruction=first.instruction) == first
        assert second.instruction != first.instruction
        assert (second.task.target, second.task.side) != (first.task.target, first.task.side)
        if first.task.side and first.task.kind != OF_TWO:
            assert second.task.target == first.task.target
        kinds.add(first.task.kind)
    assert kinds == set(KINDS)


def test_the_other_instruction_of_a_pair_means_the_other_object():
    """Left becomes right, and the target with it."""
    scene = next(one for one in scenes('train', 100) if one.task.kind == OF_TWO)
    other = other_instruction(scene)
    assert other.goal.name == scene.goal.name
    assert other.task.target != scene.task.target
    assert {scene.task.side, other.task.side} == {'left', 'right'}
    assert (other.goal.y > scene.goal.y) == (other.task.side == 'left')


def test_every_colour_and_shape_is_a_goal_in_every_direction():
    """Over a suite the goal has each colour and shape, and is left, ahead and right."""
    goals = [scene.goal for scene in scenes('train', 400) if scene.task.kind == GO_TO]
    assert {goal.colour for goal in goals} == set(COLOURS)
    assert {goal.shape for goal in goals} == set(SHAPES)
    lateral = np.array([goal.y for goal in goals])
    assert all(
        np.mean(part) > 0.2 for part in (lateral > 0.35, abs(lateral) < 0.35, lateral < -0.35)
    )


def test_the_goal_depends_on_the_instruction():
    """The places of the objects do not show the goal: a blind choice is mostly wrong."""
    four = [
        scene
        for scene in scenes('train', 400)
        if len(scene.objects) == 4 and scene.task.kind == GO_TO
    ]
    ranks = [sorted(thing.y for thing in scene.objects).index(scene.goal.y) for scene in four]
    assert max(np.bincount(ranks, minlength=4)) / len(four) < 0.4


def test_the_path_straight_ahead_to_any_object_is_free():
    """The base fits past every neighbour of the object that it stands in front of."""
    for scene in scenes('train', 400):
        things = () if scene.task.kind == PASS else scene.objects
        for thing in things:
            others = [other for other in things if other is not thing]
            assert all(abs(other.y - thing.y) > BASE_RADIUS_M + other.radius for other in others)


def test_every_object_is_completely_visible_at_the_start():
    """No object is cut off by the first image, and none is hidden except behind an obstacle."""
    arena = Arena(128, 128)
    for scene in scenes('unseen_layouts', 48):
        if scene.task.kind == STOP:  # starts in the middle of a drive
            continue
        arena.reset(scene)
        seen = arena.objects_in_view()
        assert set(np.unique(seen)) - {-1} == set(range(len(scene.objects)))
        assert (seen[:, [0, -1]] == -1).all()
        # Without its neighbours, an object has not one pixel more.
        pixels = (seen == scene.task.target).sum()
        arena.reset(replace(scene, objects=(scene.goal,), task=Task(GO_TO, 0)))
        alone = (arena.objects_in_view() == 0).sum()
        assert pixels > alone / 3 if scene.task.kind == PASS else pixels == alone
    arena.close()


def test_clutter_is_dull_and_stands_at_the_walls():
    """No instruction can mean it, and it is farther away than any target."""
    clutter = [thing for scene in scenes('train', 200) for thing in scene.clutter]
    assert len(clutter) > 200
    assert any(not scene.clutter for scene in scenes('train', 200))
    for thing in clutter:
        assert max(thing.rgb) - min(thing.rgb) < 0.25
        assert thing.colour not in COLOURS
        assert thing.x > 4 or abs(thing.y) > 1.9


def test_only_a_stop_task_starts_with_a_rolling_base():
    """And it rolls fast enough that it must stop."""
    for scene in scenes('train', 300):
        speed = math.hypot(*scene.start_velocity)
        assert speed > 0.1 if scene.task.kind == STOP else speed == 0


def test_only_disturbed_scenes_have_two_pushes_and_lost_frames():
    """The disturbances are in the scene, drawn from its seed."""
    for scene in scenes('disturbed', 60):
        first, second = scene.disturbance.pushes
        assert 0.5 <= first[0] < 2.0 < second[0] <= 4.5
        assert all(0.2 <= math.hypot(*push[1:]) <= 0.5 for push in (first, second))
        assert (scene.disturbance.drop, scene.disturbance.late) == (0.05, 0.1)
    for suite in set(DRIVEN) - {'disturbed', 'diff_disturbed'}:
        for scene in scenes(suite, 20):
            assert not scene.disturbance.pushes
            assert scene.disturbance.delay_of(scene.seed, 100) == 0


def test_kind_and_pairs_can_be_chosen():
    """The arguments of draw_scene replace its random choices."""
    two = (('red', 'box'), ('blue', 'box'), ('green', 'cone'), ('purple', 'cone'))
    for seed in range(20):
        for kind in KINDS:
            scene = draw_scene(seed, kind, pairs=two)
            assert scene.task.kind == kind
            assert {(thing.colour, thing.shape) for thing in scene.objects} <= set(two)
    assert set(HELD_OUT_PAIRS) < set(PAIRS)


def test_floor_and_walls_are_duller_than_any_object():
    """Floor and walls are nearly grey, so that a colour in the image belongs to an object."""
    for seed in range(300):
        appearance = draw_appearance(np.random.default_rng(seed))
        for rgb in (*appearance.floor_rgb, *appearance.wall_rgb):
            assert max(rgb) - min(rgb) < 0.25
        assert 0 < appearance.camera_tilt < math.radians(20)
    assert min(max(rgb) - min(rgb) for rgb in COLOURS.values()) > 0.4


def test_a_differential_base_needs_no_sideways_step():
    """Its tasks end in view, and nothing stands in a straight way to an object."""
    kinds = Counter()
    for scene in scenes('diff_train', 120):
        kinds[scene.task.kind] += 1
        assert scene.base == 'diff'
        assert scene.start_velocity[1] == 0
        if scene.task.kind == PASS:
            continue
        x, y, _ = scene.start
        for goal, other in itertools.permutations(scene.objects, 2):
            way, off = np.array([goal.x - x, goal.y - y]), np.array([other.x - x, other.y - y])
            part = np.clip(off @ way / (way @ way), 0, 1)
            assert np.hypot(*(off - part * way)) > other.radius + BASE_RADIUS_M
    assert set(kinds) == {GO_TO, OF_TWO, PASS, STOP}


def test_scenes_of_an_omnidirectional_base_are_those_of_version_2():
    """Figures of one version are comparable: raise the version when this digest changes."""
    drawn = [repr(suites.scene(name, index)) for name in DRIVEN[:8] for index in range(10)]
    assert DRIVEN[7] == 'disturbed'
    digest = hashlib.sha256('\n'.join(drawn).encode()).hexdigest()
    assert (suites.VERSION, digest[:16]) == (2, '96b585957b9aea89')

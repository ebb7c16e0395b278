"""Scenes and suites: everything follows from a seed, and a scene can be driven and seen."""

import math

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.scene import BASE_RADIUS_M, COLOURS, SHAPES, generate


@pytest.mark.parametrize('suite', suites.SUITES)
def test_a_trial_is_the_same_scene_every_time(suite):
    """The same suite and index give an equal scene; another index gives another."""
    assert suites.scene(suite, 7) == suites.scene(suite, 7)
    assert suites.scene(suite, 7) != suites.scene(suite, 8)


def test_no_two_suites_share_a_seed():
    """Blocks of seeds are disjoint, so a policy is never tried on a scene of its takes."""
    blocks = [suite.block for suite in suites.SUITES.values()]
    assert len(set(blocks)) == len(blocks)
    last = suites.scene('train', suites.SEEDS_PER_SUITE - 1).seed
    assert last < min(suites.scene(name, 0).seed for name in suites.SUITES if name != 'train')


def test_an_unknown_suite_is_refused_with_the_known_ones():
    """The sentence names every suite and the nearest spelling."""
    with pytest.raises(UserError, match=r"unseen_layouts.*mean 'unseen_layouts'"):
        suites.scene('unseen_layout', 0)


@pytest.mark.parametrize('index', [-1, suites.SEEDS_PER_SUITE])
def test_an_index_outside_of_a_suite_is_refused(index):
    """An index can never reach into another suite's seeds."""
    with pytest.raises(UserError, match='no such trial'):
        suites.scene('train', index)


def test_scenes_hold_two_to_four_distinct_things_and_name_one_of_them():
    """The instruction means exactly one object: no scene has a pair of colour and shape twice."""
    for index in range(300):
        scene = suites.scene('train', index)
        names = [thing.name for thing in scene.objects]
        assert 2 <= len(names) <= 4
        assert len(set(names)) == len(names)
        assert scene.instruction == f'go to the {names[scene.target]}'


def test_every_colour_and_shape_is_asked_for_in_every_direction():
    """Over a suite the goal has each colour and shape, and lies left, ahead and right."""
    scenes = [suites.scene('train', index) for index in range(300)]
    assert {scene.goal.colour for scene in scenes} == set(COLOURS)
    assert {scene.goal.shape for scene in scenes} == set(SHAPES)
    lateral = np.array([scene.goal.y for scene in scenes])
    assert all(np.mean(part) > 0.2 for part in
               (lateral > 0.35, abs(lateral) < 0.35, lateral < -0.35))


def test_where_to_drive_depends_on_the_instruction():
    """No place of an object tells whether it is the goal: a blind choice is wrong mostly."""
    scenes = [suites.scene('train', index) for index in range(400)]
    four = [scene for scene in scenes if len(scene.objects) == 4]
    ranks = [sorted(thing.y for thing in scene.objects).index(scene.goal.y) for scene in four]
    assert max(np.bincount(ranks, minlength=4)) / len(four) < 0.4


def test_the_way_straight_ahead_to_any_object_is_free():
    """The base fits past every neighbour of the object that it stands in front of."""
    for index in range(300):
        things = suites.scene('train', index).objects
        for thing in things:
            others = [other for other in things if other is not thing]
            assert all(abs(other.y - thing.y) > BASE_RADIUS_M + other.radius for other in others)


def test_every_object_is_wholly_visible_at_the_start():
    """Nothing hides anything, and nothing is cut by the edge of the first picture."""
    arena = Arena(128, 128)
    for index in range(40):
        scene = suites.scene('unseen_layouts', index)
        arena.reset(scene)
        seen = arena.objects_in_view()
        assert set(np.unique(seen)) - {-1} == set(range(len(scene.objects)))
        assert (seen[:, [0, -1]] == -1).all()
        # With its neighbours gone, an object shows not one pixel more.
        pixels = (seen == scene.target).sum()
        arena.reset(_alone(scene))
        assert (arena.objects_in_view() == 0).sum() == pixels
    arena.close()


def _alone(scene):
    from dataclasses import replace
    return replace(scene, objects=(scene.goal,), target=0)


def test_a_look_stays_duller_than_any_object():
    """Floor and walls are near grey, so that a colour in the picture is an object's."""
    for seed in range(200):
        look = generate(seed).look
        for rgb in (*look.floor_rgb, look.wall_rgb):
            assert max(rgb) - min(rgb) < 0.25
        assert 0 < look.camera_tilt < math.radians(20)
    assert min(max(rgb) - min(rgb) for rgb in COLOURS.values()) > 0.4

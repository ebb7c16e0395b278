"""The arena: a base with limits and lag, a judge, a camera, and an expert that succeeds."""

import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import (
    COLLISION,
    RUNNING,
    SUCCESS,
    TIMEOUT,
    WRONG,
    Arena,
    BaseLimits,
    Judge,
)
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.layouts import draw_scene, other_instruction
from mobile_vla_ros.sim.scene import (
    BASE_RADIUS_M,
    BESIDE,
    GO_TO,
    KINDS,
    OF_TWO,
    PASS,
    PUSH_S,
    STOP,
    Disturbance,
    Scene,
    SceneObject,
    Task,
    draw_appearance,
    passing_line,
    stop_place,
)
from velocities import twist

ROOT = Path(__file__).resolve().parents[3]
PERIOD_NS = 100_000_000
BOX = SceneObject('box', 'red', (0.8, 0.1, 0.1), x=2.0, y=0.0, radius=0.2, height=0.4)
BALL = SceneObject('ball', 'blue', (0.1, 0.2, 0.8), x=2.0, y=1.0, radius=0.2, height=0.4)
DRIVEN = [name for name in suites.SUITES if name != 'pictures']
APPEARANCE = draw_appearance(np.random.default_rng(5))


def scene_of(*objects, start=(0.0, 0.0, 0.0), task=None, **rest) -> Scene:
    return Scene(
        seed=5,
        objects=objects,
        task=task or Task(GO_TO, 0),
        start=start,
        appearance=APPEARANCE,
        instruction='not read here',
        **rest,
    )


def end_of(arena, scene, command, period_ns=25_000_000) -> str:
    """Return the outcome of a scene under one constant command."""
    arena.reset(scene)
    while arena.state == RUNNING:
        arena.step(command, period_ns)
    return arena.state


def drive(arena, expert, period_ns=PERIOD_NS):
    while arena.state == RUNNING:
        arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), period_ns)


@pytest.fixture
def arena():
    one = Arena(96, 96)
    yield one
    one.close()


@pytest.mark.parametrize(
    ('suite', 'wobble'), [('train', 0.08), *((suite, 0.0) for suite in DRIVEN)]
)
def test_the_expert_succeeds_in_time_and_touches_nothing(arena, suite, wobble):
    """In 25 scenes of each suite."""
    states, seconds = [], []
    for index in range(25):
        scene = suites.scene(suite, index)
        arena.reset(scene)
        drive(arena, Expert(scene, index, wobble=wobble))
        states.append(arena.state)
        seconds.append(arena.time_ns / 1e9)
    assert states == [SUCCESS] * 25
    assert arena.min_gap > 0.03
    # A differential base is slower, and begins farther before an obstacle.
    assert max(seconds) < (14 if scene.base == 'diff' else 12) < Judge().timeout_s
    if not suite.endswith('near'):
        assert 4 < np.median(seconds) < 7


@pytest.mark.parametrize('suite', DRIVEN)
def test_no_path_of_the_expert_is_near_clutter(arena, suite):
    """Clutter is visible but never an obstacle."""
    rows = 0
    for index in range(20):
        scene = suites.scene(suite, index)
        if not scene.clutter:
            continue
        arena.reset(scene)
        expert = Expert(scene, index)
        while arena.state == RUNNING:
            assert min(_apart(thing, arena.pose) for thing in scene.clutter) > 0.3
            arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
            rows += 1
    assert rows > 60


def test_no_place_to_stop_beside_an_object_is_near_clutter():
    """On either side, since a swapped instruction means the other side."""
    scenes = [draw_scene(seed, BESIDE) for seed in range(400)]
    places = [
        (one, stop_place(one)) for scene in scenes for one in (scene, other_instruction(scene))
    ]
    assert min(_apart(thing, place) for one, place in places for thing in one.clutter) > 0.3


def _apart(thing, place) -> float:
    """Return the distance in metres between the base at a place and a box or cylinder."""
    dx, dy = abs(thing.x - place[0]), abs(thing.y - place[1])
    if thing.shape == 'box':
        return math.hypot(max(dx - thing.radius, 0), max(dy - thing.radius, 0)) - BASE_RADIUS_M
    return math.hypot(dx, dy) - thing.radius - BASE_RADIUS_M


def test_episodes_that_start_near_the_goal_show_a_stop(arena):
    """They start just before the goal, some beyond it: the expert backs off without contact."""
    too_near = 0
    ends = [
        scene
        for scene in (suites.scene('near', index) for index in range(140))
        if scene.task.kind != PASS
    ]
    for index, scene in enumerate(ends):
        arena.reset(scene)
        x, y, _ = scene.start
        ahead, aside = stop_place(scene)
        assert -0.58 < x - ahead < 0.19
        assert abs(y - aside) < 0.21
        expert = Expert(scene, index, wobble=0.08)
        too_near += expert.command(arena.pose, arena.velocity, 0)[0] < 0
        for _ in range(60):
            arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
        assert arena.state == SUCCESS
        assert math.dist(arena.pose[:2], (ahead, aside)) < 0.1
    assert 8 < too_near < 40


def test_episodes_that_start_beside_an_obstacle_show_how_to_pass_it(arena):
    """They start on the instructed side, too near or too far away: the expert corrects that."""
    beside = [
        scene
        for scene in (suites.scene('near', index) for index in range(100))
        if scene.task.kind == PASS
    ]
    off = []
    for index, scene in enumerate(beside):
        arena.reset(scene)
        obstacle = scene.objects[scene.task.obstacles[0]]
        assert -0.61 < scene.start[0] - obstacle.x < 0.51
        off.append(scene.start[1] - passing_line(scene))
        drive(arena, Expert(scene, index, wobble=0.08))
        assert arena.state == SUCCESS
        assert arena.min_gap > 0.04
    assert min(off) < -0.15
    assert max(off) > 0.1


@pytest.mark.parametrize('kind', [kind for kind in KINDS if kind != STOP])
def test_the_expert_keeps_its_heading_and_uses_two_axes(arena, kind):
    """A policy with the default axes can copy it: it commands only linear_x and linear_y."""
    scene = draw_scene(3, kind)
    arena.reset(scene)
    expert, sent = Expert(scene), []
    while arena.state == RUNNING:
        sent.append(expert.command(arena.pose, arena.velocity, arena.time_ns))
        arena.step(sent[-1], PERIOD_NS)
    sent = np.array(sent)
    assert (sent[:, 2:] == 0).all()
    assert 0.35 < np.hypot(sent[:, 0], sent[:, 1]).max() <= 0.5
    for _ in range(8):  # an episode continues after the success
        last = expert.command(arena.pose, arena.velocity, arena.time_ns)
        arena.step(last, PERIOD_NS)
    assert (last == 0).all()
    assert math.dist(arena.pose[:2], stop_place(scene)) < 0.1
    assert arena.pose[2] == pytest.approx(scene.start[2])


def test_the_expert_sends_only_zeros_to_stop(arena):
    """The base rolls at first, so that the episode shows a stop."""
    scene = draw_scene(3, STOP)
    arena.reset(scene)
    rolled = math.hypot(*arena.velocity[:2])
    assert rolled > 0.1
    while arena.state == RUNNING:
        sent = Expert(scene, wobble=0.08).command(arena.pose, arena.velocity, arena.time_ns)
        assert (sent == 0).all()
        arena.step(sent, PERIOD_NS)
    assert arena.state == SUCCESS
    assert 0.01 < math.dist(arena.pose[:2], scene.start[:2]) < 0.4


def test_the_expert_s_command_depends_only_on_the_pose(arena):
    """No memory: another expert at the same pose sends the same."""
    scene = suites.scene('train', 3)
    arena.reset(scene)
    expert = Expert(scene, 1)
    for _ in range(20):
        sent = expert.command(arena.pose, arena.velocity, arena.time_ns)
        assert (sent == Expert(scene, 1).command(arena.pose, (9.0, 9.0, 9.0), 0)).all()
        arena.step(sent, PERIOD_NS)


def test_the_expert_obeys_the_instruction(arena):
    """The same scene with another goal ends at the other object."""
    scene = draw_scene(2, GO_TO)
    assert len(scene.objects) > 1
    for target in range(len(scene.objects)):
        other = replace(scene, task=Task(GO_TO, target))
        arena.reset(other)
        drive(arena, Expert(other))
        assert arena.state == SUCCESS
        gaps = [arena.gap(i) for i in range(len(scene.objects))]
        assert int(np.argmin(gaps)) == target


@pytest.mark.parametrize('kind', KINDS)
def test_the_expert_of_the_other_instruction_ends_elsewhere(arena, kind):
    """The swapped instruction needs another drive; the first drive does not fulfil it."""
    for seed in range(4):
        scene = draw_scene(seed, kind)
        other = other_instruction(scene)
        ends = []
        for one in (scene, other):
            arena.reset(one)
            drive(arena, Expert(one))
            assert arena.state == SUCCESS
            ends.append(arena.pose[:2])
        if kind != PASS:  # whose goal is at the same object
            assert math.dist(*ends) > 0.3
        arena.reset(other)
        drive(arena, Expert(scene))
        assert arena.state != SUCCESS


def test_the_target_is_in_view_until_the_stop(arena):
    """In every frame of the expert's drive the target covers enough pixels."""
    frames = 0
    for index in range(14):
        scene = suites.scene('unseen_layouts', index)
        if scene.task.kind not in (GO_TO, OF_TWO):
            continue
        arena.reset(scene)
        expert = Expert(scene)
        while arena.state == RUNNING:
            pixels = (arena.objects_in_view() == scene.task.target).sum()
            assert pixels > 0.003 * 96 * 96
            arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
            frames += 1
    assert frames > 200


@pytest.mark.parametrize('kind', [BESIDE, PASS])
def test_a_part_of_the_goal_is_nearly_always_in_view(arena, kind):
    """Beside it and on the way around an obstacle, in 90 % of the frames."""
    seen = []
    for seed in range(5):
        scene = draw_scene(seed, kind)
        arena.reset(scene)
        expert = Expert(scene)
        while arena.state == RUNNING:
            seen.append((arena.objects_in_view() == scene.task.target).any())
            arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
    assert len(seen) > 100
    assert np.mean(seen) >= 0.9


@pytest.mark.parametrize('command', [twist(0.5), twist(0.5, 0.1)])
def test_driving_into_an_object_is_a_collision_and_ends_the_trial(arena, command):
    """At the contact; the base stays there, and later events do not count."""
    arena.reset(scene_of(BOX))
    for _ in range(100):
        arena.step(command, PERIOD_NS)
    assert arena.state == COLLISION
    assert arena.min_gap == 0
    place = arena.pose
    arena.step(twist(-0.5), PERIOD_NS)
    assert arena.state == COLLISION
    assert arena.pose == place
    assert 3_000_000_000 < arena.elapsed_ns < 5_000_000_000 < arena.time_ns


def test_a_wall_is_an_obstacle(arena):
    """Driving sideways ends at the wall."""
    arena.reset(scene_of(BOX))
    while arena.state == RUNNING:
        arena.step(twist(0, 0.6), PERIOD_NS)
    assert arena.state == COLLISION
    assert arena.pose[1] == pytest.approx(2.5 - 0.05 - BASE_RADIUS_M, abs=0.03)


@pytest.mark.parametrize(
    ('start', 'state', 'after_s'),
    [
        ((1.3, 0.0, 0.0), SUCCESS, 0.3),  # stands 0.32 m in front of it
        ((1.0, 0.0, 0.0), TIMEOUT, 20.0),  # 0.62 m: too far
        ((1.3, 0.0, 1.2), TIMEOUT, 20.0),  # near, but facing elsewhere
        ((1.3, 1.0, 0.0), WRONG, 2.5),  # at the other object
        ((1.0, 1.0, 0.0), TIMEOUT, 20.0),  # only near the other object
    ],
)
def test_only_standing_in_front_of_the_target_is_success(arena, start, state, after_s):
    """Near, in front, standing, and at the instructed object."""
    assert end_of(arena, scene_of(BOX, BALL, start=start), twist()) == state
    assert arena.time_ns == after_s * 1e9


def test_a_short_stop_at_the_other_object_is_not_yet_wrong(arena):
    """A base that continues before settled_s may still reach the target."""
    arena.reset(scene_of(BOX, BALL, start=(1.3, 1.0, 0.0)))
    arena.step(twist(), 2_300_000_000)
    assert arena.state == RUNNING
    while arena.pose[1] > 0.1:
        arena.step(twist(0, -0.4), PERIOD_NS)
    arena.step(twist(), 1_000_000_000)
    assert arena.state == SUCCESS


@pytest.mark.parametrize(('target', 'state'), [(0, SUCCESS), (1, WRONG)])
def test_of_two_equal_objects_only_the_one_on_the_instructed_side_counts(arena, target, state):
    """At the correct one it is a success, at its twin it is wrong."""
    scene = scene_of(
        BOX,
        replace(BOX, y=1.0),
        start=(1.3, 0.0, 0.0),
        task=Task(OF_TWO, target, 'right' if target == 0 else 'left'),
    )
    assert end_of(arena, scene, twist()) == state


@pytest.mark.parametrize(
    ('side', 'y', 'state'),
    [
        ('left', 0.6, SUCCESS),
        ('right', -0.6, SUCCESS),
        ('right', 0.6, TIMEOUT),
        ('left', -0.6, TIMEOUT),  # the other side
        ('left', 0.0, TIMEOUT),
        ('left', 0.95, TIMEOUT),
    ],
)  # in front of it; too far aside
def test_beside_an_object_only_the_instructed_side_counts(arena, side, y, state):
    """Standing anywhere else never becomes a success, however long."""
    scene = scene_of(BOX, start=(1.2, y, 0.0), task=Task(BESIDE, 0, side))
    assert end_of(arena, scene, twist()) == state


@pytest.mark.parametrize(
    ('side', 'y', 'state'),
    [
        ('left', 0.7, RUNNING),
        ('right', -0.7, RUNNING),
        ('right', 0.7, WRONG),
        ('left', -0.7, WRONG),
    ],
)
def test_passing_on_the_other_side_is_wrong_at_once(arena, side, y, state):
    """Once the base is level with the obstacle; on the instructed side the trial continues."""
    block = replace(BOX, x=1.0, height=0.2)
    arena.reset(
        scene_of(
            block, replace(BALL, x=3.5, y=0.0), start=(0.0, y, 0.0), task=Task(PASS, 1, side, (0,))
        )
    )
    while arena.pose[0] < 0.99:
        arena.step(twist(0.4), 25_000_000)
        assert arena.state == RUNNING
    arena.step(twist(0.4), 100_000_000)
    assert arena.state == state


def test_the_side_of_two_obstacles_is_that_of_both(arena):
    """Two boxes side by side: left of one but right of their middle counts as right."""
    left, right = replace(BOX, x=1.0, y=0.9), replace(BOX, x=1.0, y=-0.9)
    for side, state in (('right', RUNNING), ('left', WRONG)):
        arena.reset(
            scene_of(
                left,
                right,
                replace(BALL, x=3.5, y=0.0),
                start=(0.8, -0.3, 0.0),
                task=Task(PASS, 2, side, (0, 1)),
            )
        )
        arena.step(twist(0.4), 1_000_000_000)
        assert arena.state == state


def test_waiting_at_an_obstacle_is_not_wrong(arena):
    """Nor success: the obstacle is not a goal."""
    scene = scene_of(
        BOX, replace(BALL, x=4.0, y=0.0), start=(1.3, 0.0, 0.0), task=Task(PASS, 1, 'left', (0,))
    )
    assert end_of(arena, scene, twist()) == TIMEOUT


def test_in_a_stop_task_standing_is_success_and_rolling_on_is_wrong(arena):
    """Zero stops it in time; its initial speed does not."""
    scene = scene_of(BOX, start_velocity=(0.4, 0.0), task=Task(STOP))
    assert end_of(arena, scene, twist()) == SUCCESS
    assert 2.0 < arena.elapsed_ns / 1e9 < 2.6
    assert end_of(arena, scene, twist(0.4)) == WRONG
    assert arena.elapsed_ns / 1e9 == pytest.approx(Judge().stop_s, abs=0.03)


@pytest.mark.parametrize(('stops_s', 'state'), [(1.0, SUCCESS), (1.4, WRONG), (2.0, WRONG)])
def test_a_late_stop_is_wrong(arena, stops_s, state):
    """The base needs some tenths of a second to stand, so 1.4 s is too late for 1.5."""
    arena.reset(scene_of(replace(BOX, x=4.0), start_velocity=(0.4, 0.0), task=Task(STOP)))
    arena.step(twist(0.4), round(stops_s * 1e9))
    arena.step(twist(), 3_000_000_000)
    assert arena.state == state


def test_driving_off_after_a_stop_is_wrong(arena):
    """The base must stay where it is."""
    arena.reset(scene_of(replace(BOX, x=4.0), start_velocity=(0.4, 0.0), task=Task(STOP)))
    arena.step(twist(), 1_800_000_000)
    assert arena.state == RUNNING
    arena.step(twist(0.4), 500_000_000)
    assert arena.state == WRONG


def test_the_base_starts_with_the_scene_s_velocity(arena):
    """It rolls on, and keeps that speed under the same command."""
    arena.reset(scene_of(BOX, start_velocity=(0.3, 0.2), task=Task(STOP)))
    assert arena.velocity == (0.3, 0.2, 0.0)
    arena.step(twist(0.3, 0.2), 500_000_000)
    assert arena.pose[:2] == pytest.approx((0.15, 0.1))


def test_a_push_moves_the_base_for_its_time(arena):
    """Ahead and to the left in the base's axes, for PUSH_S, under a zero command."""
    push = Disturbance(pushes=((0.5, 0.3, -0.2),))
    arena.reset(scene_of(BOX, start=(0.0, 0.0, math.pi / 2), disturbance=push))
    arena.step(twist(), 475_000_000)
    assert arena.pose[:2] == (0.0, 0.0)
    arena.step(twist(), 1_000_000_000)
    moved = 0.2 * PUSH_S, 0.3 * PUSH_S
    assert arena.pose[:2] == pytest.approx(moved, abs=0.01)
    assert arena.velocity == (0.0, 0.0, 0.0)  # of the wheels, which did not turn


def test_lost_and_late_frames_depend_on_seed_and_stamp():
    """A tenth is lost, a fifth is late by late_s; repeatable, and different for another seed."""
    wrong = Disturbance(drop=0.1, late=0.2, late_s=0.15)
    stamps = range(0, 200_000_000_000, 100_000_000)
    delays = [wrong.delay_of(5, stamp) for stamp in stamps]
    assert set(delays) == {None, 0, 150_000_000}
    assert delays.count(None) / len(delays) == pytest.approx(0.1, abs=0.03)
    assert delays.count(150_000_000) / len(delays) == pytest.approx(0.2, abs=0.04)
    assert delays == [wrong.delay_of(5, stamp) for stamp in stamps]
    assert delays != [wrong.delay_of(6, stamp) for stamp in stamps]


def test_rolling_past_the_target_is_no_success(arena):
    """The base must stop there."""
    arena.reset(scene_of(BOX, start=(1.3, -0.4, 0.0)))
    while arena.pose[1] < 0.5:
        arena.step(twist(0, 0.4), PERIOD_NS)
        assert arena.state == RUNNING


@pytest.mark.parametrize(
    ('command', 'axis', 'sign'),
    [(twist(0.3), 0, 1), (twist(0, 0.3), 1, 1), (twist(0, -0.3), 1, -1), (twist(turn=0.5), 2, 1)],
)
def test_axes_are_forward_left_and_anticlockwise(arena, command, axis, sign):
    """REP 103, in the base's own frame."""
    arena.reset(scene_of(BOX))
    arena.step(command, 1_000_000_000)
    moved = np.array(arena.pose)
    assert sign * moved[axis] > 0.2
    assert np.delete(moved, axis) == pytest.approx([0, 0], abs=1e-9)


def test_a_turned_base_drives_along_its_own_axes(arena):
    """linear_x of a base that looks left moves it left in the room."""
    arena.reset(scene_of(BOX, start=(0.0, 0.0, math.pi / 2)))
    arena.step(twist(0.3), 1_000_000_000)
    assert arena.pose[0] == pytest.approx(0, abs=1e-6)
    assert arena.pose[1] > 0.2


def test_speed_and_acceleration_have_limits_and_the_wheels_lag(arena):
    """For any command."""
    limits = BaseLimits()
    arena.reset(scene_of(replace(BOX, x=4.0), start=(-1.0, 0.0, 0.0)))
    before = np.zeros(2)
    for _ in range(40):
        arena.step(twist(5.0, 5.0, 50.0), 25_000_000)
        now = np.array(arena.velocity[:2])
        assert math.hypot(*now) <= limits.planar + 1e-9
        assert math.hypot(*(now - before)) <= limits.planar_acceleration * 0.025 + 1e-9
        assert arena.velocity[2] <= limits.turn + 1e-9
        before = now
    assert math.hypot(*before) == pytest.approx(limits.planar, rel=0.01)

    arena.reset(scene_of(BOX))
    arena.step(twist(0.1), 50_000_000)
    assert 0 < arena.velocity[0] < 0.05


def test_the_same_commands_give_the_same_drive_and_images(arena):
    """The seed determines poses bit by bit, pixels, wheel slip and noise."""

    def once():
        scene = suites.scene('train', 21)
        assert scene.slip > 0
        arena.reset(scene)
        expert, record = Expert(scene, wobble=0.05), []
        for _ in range(15):
            arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
            record.append((arena.pose, arena.render()))
        return record

    for (pose_a, image_a), (pose_b, image_b) in zip(once(), once(), strict=True):
        assert pose_a == pose_b
        assert (image_a == image_b).all()


def test_the_caller_s_step_does_not_change_the_drive(arena):
    """Ten steps of 0.1 s and forty of 0.025 s end at the same place."""
    places = []
    for count, period in ((10, 100_000_000), (40, 25_000_000)):
        arena.reset(suites.scene('train', 1))
        for _ in range(count):
            arena.step(twist(0.4, 0.2), period)
        places.append(arena.pose)
    assert places[0] == places[1]


def test_slip_moves_only_a_driving_base(arena):
    """The drift is in the wheels, so a base at rest stays where it is."""
    scene = replace(scene_of(BOX), slip=0.1)
    arena.reset(scene)
    arena.step(twist(), 2_000_000_000)
    assert arena.pose == scene.start
    arena.step(twist(0.4), 2_000_000_000)
    assert abs(arena.pose[1]) > 0.005


def test_images_have_the_sensor_s_noise(arena):
    """Two images of a standing base differ by the scene's noise."""
    scene = scene_of(BOX)
    arena.reset(replace(scene, appearance=replace(scene.appearance, noise=4.0)))
    first = arena.render().astype(float)
    arena.step(twist(), PERIOD_NS)
    second = arena.render().astype(float)
    assert first.shape == (96, 96, 3)
    assert 3 < (first - second).std() / math.sqrt(2) < 5


def test_an_image_shows_left_objects_on_the_left(arena):
    """Columns of the image run from the robot's left to its right, rows from the top."""
    red = replace(BOX, y=0.6)
    arena.reset(scene_of(red, replace(BALL, y=-0.6)))
    image = arena.render().astype(int)
    reddest = np.argwhere(image[..., 0] - image[..., 2] > 80)
    bluest = np.argwhere(image[..., 2] - image[..., 0] > 60)
    assert reddest[:, 1].max() < 48 < bluest[:, 1].min()
    sky, floor = image[2].mean(), image[-2].mean()
    assert sky > floor


def test_a_command_must_be_six_finite_numbers(arena):
    """Other values raise."""
    arena.reset(scene_of(BOX))
    for wrong in (np.zeros(2), np.full(6, np.nan)):
        with pytest.raises(ValueError, match='6 finite numbers'):
            arena.step(wrong, PERIOD_NS)


def test_an_invalid_size_is_refused():
    """The error names the valid sizes."""
    with pytest.raises(UserError, match='16 to 1920'):
        Arena(0, 224)


def python(code: str, **env) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, '-c', code],
        capture_output=True,
        text=True,
        timeout=120,
        env={**os.environ, 'PYTHONPATH': str(ROOT), **env},
    )


DRAW = """
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.sim.arena import Arena
from mobile_vla_ros.sim.suites import scene
arena = Arena(64, 64)
arena.reset(scene('train', 0))
arena.step([0.1, 0, 0, 0, 0, 0], 100_000_000)
try:
    print(arena.render().shape)
except UserError as error:
    print('refused:', error)
"""


def test_without_gl_the_arena_drives_and_an_image_is_refused_with_a_sentence():
    """The error at the first image names the packages to install."""
    done = python(DRAW, MUJOCO_GL='disable')
    assert done.returncode == 0, done.stderr
    assert 'refused: the camera cannot render' in done.stdout
    assert 'apt-get install libosmesa6' in done.stdout


def test_the_interpreter_ends_quietly_with_an_arena_left_open():
    """Nothing is printed at exit: the GL context is released before OSMesa is unloaded."""
    done = python(DRAW)
    assert done.returncode == 0
    assert '(64, 64, 3)' in done.stdout
    assert done.stderr == ''


def test_sim_imports_neither_torch_nor_ros_and_changes_no_environment():
    """The arena can be used where neither is installed; MUJOCO_GL is chosen at its first use."""
    done = python(
        'import os, sys; before = dict(os.environ);'
        'import mobile_vla_ros.sim.arena, mobile_vla_ros.sim.expert;'
        'assert os.environ == before;'
        'print(sorted({"torch", "rclpy", "transformers", "mujoco"} & set(sys.modules)))'
    )
    assert done.stdout.strip() == '[]', done.stderr


def test_a_differential_base_never_strafes(arena):
    """linear_y moves it no millimetre; a turn and a drive have the limits of its kind."""
    arena.reset(scene_of(replace(BOX, x=4.5, y=2.0), base='diff'))
    x, y, yaw = arena.pose
    arena.step(twist(0.0, 1.0), 1_000_000_000)
    assert arena.pose == (x, y, yaw)
    arena.step(twist(2.0, 1.0, 5.0), 1_000_000_000)
    assert arena.velocity == (pytest.approx(0.46, abs=0.01), 0.0, pytest.approx(1.9, abs=0.01))


def test_a_caster_that_must_swivel_delays_the_base(arena):
    """Backwards it gathers speed later than forwards; once swivelled, it is as fast."""
    ways = []
    for ahead in (0.3, -0.3):
        arena.reset(scene_of(replace(BOX, x=4.5, y=2.0), base='diff'))
        first = arena.pose[0]
        arena.step(twist(ahead), 500_000_000)
        ways.append(abs(arena.pose[0] - first))
        arena.step(twist(ahead), 1_000_000_000)
        assert abs(arena.velocity[0]) == pytest.approx(0.3, abs=0.01)
    assert ways[1] < 0.9 * ways[0]

"""Driving scenes through live nodes: all processes, no mocks."""

import fcntl
import math
import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.live import drive_live
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import RUNNING, SUCCESS, TIMEOUT, Arena
from mobile_vla_ros.sim.expert import Expert
from ros_helpers import attached, wait_until

ROOT = Path(__file__).resolve().parents[3]
PERIOD_NS = 50_000_000


def in_process(index: int) -> tuple[float, float]:
    """Return the expert's final x and y in metres in a scene of unseen_layouts."""
    arena = Arena()
    scene = suites.scene('unseen_layouts', index)
    arena.reset(scene)
    expert = Expert(scene, index)
    while arena.state == RUNNING:
        arena.step(expert.command(arena.pose, arena.velocity, arena.time_ns), PERIOD_NS)
    assert arena.state == SUCCESS
    return arena.pose[:2]


def test_the_expert_ends_at_the_same_place_as_in_process(tmp_path, capfd):
    """Three scenes through arena, guard and runner: the same places, and one dict per scene."""
    trials = drive_live(
        policy=None, suite='unseen_layouts', first=4, count=3, speed=4.0, log=tmp_path / 'log'
    )
    assert [trial['trial'] for trial in trials] == [4, 5, 6]
    for trial in trials:
        scene = suites.scene('unseen_layouts', trial['trial'])
        assert trial['outcome'] == 'success'
        assert trial['instruction'] == scene.instruction
        assert {len(row) for row in trial['path']} == {3}
        assert trial['path'][0] == pytest.approx(scene.start, abs=0.1)
        assert math.dist(trial['path'][-1][:2], in_process(trial['trial'])) < 0.15
        assert 1.5 < trial['elapsed_s'] < 12
    assert {path.name for path in (tmp_path / 'log').iterdir()} == {
        'sim.log',
        'guard.log',
        'arena_runner.log',
    }
    assert attached(tmp_path / 'log') == set()
    assert 'success=3/3' in capfd.readouterr().err


def test_a_policy_drives_and_its_image_can_be_blanked(tmp_path, small_run):
    """Inference and guard, one scene; an untrained policy does not succeed."""
    (trial,) = drive_live(
        policy=small_run / 'best',
        suite='unseen_layouts',
        first=0,
        count=1,
        control='image',
        speed=5.0,
        log=tmp_path / 'log',
        quiet=True,
    )
    assert trial['outcome'] in (TIMEOUT, 'collision', 'wrong')
    assert trial['elapsed_s'] > 0
    assert 'instruction: ' in (tmp_path / 'log' / 'inference.log').read_text()


@pytest.mark.parametrize(
    ('changed', 'words'),
    [
        ({'count': 0}, 'nothing to drive'),
        ({'suite': 'unseen_layout'}, 'unseen_layouts'),
        ({'first': -1}, 'no such trial'),
        ({'control': 'instruction', 'policy': Path('x')}, 'cannot be driven through live nodes'),
        ({'control': 'image'}, '--policy'),
        ({'speed': 50.0}, 'speed'),
        ({'policy': Path('nowhere')}, 'nowhere'),
    ],
)
def test_bad_use_is_refused_before_anything_starts(tmp_path, changed, words):
    """With a sentence, and without any process or file."""
    given = {
        'policy': None,
        'suite': 'unseen_layouts',
        'first': 0,
        'count': 1,
        'log': tmp_path / 'log',
        **changed,
    }
    with pytest.raises(UserError, match=words):
        drive_live(**given)
    assert not (tmp_path / 'log').exists()


def test_a_node_that_ends_early_is_reported_with_its_output(tmp_path):
    """Without GL: the arena's message, and no process left running."""
    with pytest.raises(UserError, match='apt-get install libosmesa6'):
        drive_live(
            policy=None,
            suite='train',
            first=0,
            count=1,
            log=tmp_path / 'log',
            quiet=True,
            env={'MUJOCO_GL': 'disable', 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST'},
        )
    assert attached(tmp_path / 'log') == set()


def test_a_lost_terminal_leaves_nothing_running(tmp_path):
    """During a drive over an ssh that ends: every started node has ended with the command."""
    log = tmp_path / 'log'
    code = (
        'from pathlib import Path; from mobile_vla_ros.rollout.live import drive_live; '
        "drive_live(policy=None, suite='train', first=0, count=50, "
        f'log=Path({str(log)!r}))'
    )
    terminal, its_end = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', code],
        cwd=ROOT,
        start_new_session=True,
        stdin=its_end,
        stdout=its_end,
        stderr=its_end,
        preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
    )
    os.close(its_end)
    try:
        runner = log / 'arena_runner.log'
        wait_until(lambda: runner.exists() and '{' in runner.read_text(), 60.0, 'the first trial')
        assert len(attached(log)) == 3
        os.close(terminal)
        assert process.wait(30) != 0
        assert attached(log) == set()
    finally:
        process.kill()
        process.wait()

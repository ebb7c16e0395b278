"""Trials through live nodes: the expert's episodes, and refused starts."""

import json
import math
import threading
import time
from itertools import count

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.scene import STOP, stop_place
from ros_helpers import assert_refused

TIMEOUT_S = 60.0
TO_STOP = next(i for i in count() if suites.scene('train', i).task.kind == STOP)
FAST = {'real_time_factor': 4.0, 'publish_clock': True}


@pytest.fixture
def follow_instruction(client):
    """Report each instruction like the recorder, half a second late; return the reported ones."""
    timers: list[threading.Timer] = []

    def follow() -> list[str]:
        publisher = client.node.create_publisher(DiagnosticStatus, 'recorder/status', 10)
        reported: list[str] = []

        def report(instruction: str) -> None:
            reported.append(instruction)
            values = {'instruction': instruction}
            publisher.publish(status_message('recorder', 'idle', values, DiagnosticStatus.OK))

        def receive(message: String) -> None:
            # Not in the executor's thread, which responds to recorder/start meanwhile.
            timers.append(threading.Timer(0.5, report, [message.data]))
            timers[-1].start()

        client.node.create_subscription(String, 'instruction', receive, LATCHED)
        return reported

    yield follow
    for timer in timers:
        timer.cancel()
        timer.join()


def lines(process) -> list[dict]:
    return [json.loads(line) for line in process.output.splitlines() if line.startswith('{')]


def test_the_expert_succeeds_over_the_loopback(nodes, client):
    """Two trials through DDS, directly to the base; one line per trial has pose and time."""
    nodes.start('sim_node', params=FAST)
    runner = nodes.start(
        'arena_runner',
        remappings={'teleop/cmd_vel': 'cmd_vel'},
        params={
            'suite': 'unseen_layouts',
            'first_trial': 4,
            'trials': 2,
            'expert': True,
            'record': False,
        },
    )
    assert runner.wait(TIMEOUT_S) == 0
    trials = lines(runner)
    assert [trial['trial'] for trial in trials] == [4, 5]
    for trial in trials:
        scene = suites.scene('unseen_layouts', trial['trial'])
        assert trial['outcome'] == 'success', runner.output
        assert trial['instruction'] == scene.instruction
        assert 2.5 < trial['elapsed_s'] < 12
        assert trial['path'][0] == pytest.approx(scene.start, abs=0.1)
        x, y, yaw = trial['path'][-1]
        assert math.dist((x, y), stop_place(scene)) < 0.2
        assert yaw == pytest.approx(scene.start[2], abs=0.01)
        assert 'episode' not in trial


def test_the_expert_drives_through_the_guard(nodes, client):
    """As for recording episodes: teleop/cmd_vel, the guard, cmd_vel."""
    nodes.start('sim_node', params=FAST)
    nodes.start(
        'guard_node',
        params={
            'arm_at_start': True,
            'use_sim_time': True,
            'rate_hz': 80.0,
            'max_acceleration': [8.0, 8.0, 16.0],
        },
    )
    runner = nodes.start('arena_runner', params={'expert': True, 'record': False})
    assert runner.wait(TIMEOUT_S) == 0
    assert lines(runner)[0]['outcome'] == 'success'


def test_each_episode_is_started_and_ended_with_its_outcome(nodes, client, follow_instruction):
    """
    start, then success, once per trial; the recorder's response is in the line.

    An episode starts only when the recorder has the instruction of its scene.
    """
    called, started = [], []
    reported = follow_instruction()
    for name in ('start', 'success', 'failure'):

        def answer(_request, response, name=name):
            called.append(name)
            if name == 'start':
                started.append(reported[-1:])
            response.success, response.message = True, f'episode-{len(called)}.h5'
            return response

        client.node.create_service(Trigger, f'recorder/{name}', answer)
    nodes.start('sim_node', params=FAST)
    runner = nodes.start(
        'arena_runner',
        remappings={'teleop/cmd_vel': 'cmd_vel'},
        params={'expert': True, 'trials': 2},
    )
    assert runner.wait(TIMEOUT_S) == 0
    assert called == ['start', 'success'] * 2
    assert started == [[trial['instruction']] for trial in lines(runner)]
    assert [trial['episode'] for trial in lines(runner)] == ['episode-2.h5', 'episode-4.h5']


def test_an_episode_of_a_stop_has_the_rolling_and_the_standing_base(
    nodes, client, follow_instruction
):
    """Even with a slow recorder the scene starts after the episode, and lasts hold_s longer."""
    odom = client.subscribe('odom', Odometry)
    commands = client.subscribe('teleop/cmd_vel', Twist)
    called = {}
    follow_instruction()
    for name in ('start', 'success', 'failure'):

        def answer(_request, response, name=name):
            if name == 'start':
                time.sleep(1.0)  # four seconds of the arena's time
            called[name] = len(odom)  # index of the next message
            response.success = True
            return response

        client.node.create_service(Trigger, f'recorder/{name}', answer)
    nodes.start('sim_node', params={**FAST, 'real_time_factor': 4.0})
    nodes.start('guard_node', params={'arm_at_start': True, 'use_sim_time': True})
    client.wait_for(lambda: len(odom), TIMEOUT_S, 'odometry')  # otherwise it may miss the episode
    runner = nodes.start(
        'arena_runner',
        params={'expert': True, 'first_trial': TO_STOP, 'hold_s': 1.0, 'use_sim_time': True},
    )
    assert runner.wait(TIMEOUT_S) == 0
    (trial,) = lines(runner)
    assert set(called) == {'start', 'success'}, runner.output
    assert trial['outcome'] == 'success'
    scene = suites.scene('train', TO_STOP)
    assert trial['path'][0] == pytest.approx(scene.start, abs=0.1)
    assert 0.01 < math.dist(trial['path'][-1][:2], scene.start[:2]) < 0.4
    assert commands.last == Twist()

    first, last = (odom.messages[i] for i in (called['start'], called['success'] - 1))
    places = [(one.pose.pose.position.x, one.pose.pose.position.y) for one in (first, last)]
    assert math.dist(*places) > 0.01
    began_s, ended_s = (
        one.header.stamp.sec + one.header.stamp.nanosec / 1e9 for one in (first, last)
    )
    assert ended_s - began_s > trial['elapsed_s'] + 0.9


def test_a_recorder_that_refuses_ends_the_run_with_its_sentence(nodes, client, follow_instruction):
    """The sentence is printed, the exit status is 2, and no trial is reported."""

    def refuse(_request, response):
        response.success, response.message = False, 'no camera'
        return response

    follow_instruction()
    for name in ('start', 'success', 'failure'):
        client.node.create_service(Trigger, f'recorder/{name}', refuse)
    nodes.start('sim_node', params=FAST)
    runner = nodes.start(
        'arena_runner', params={'expert': True}, remappings={'teleop/cmd_vel': 'cmd_vel'}
    )
    assert runner.wait(TIMEOUT_S) == 2
    assert 'no camera' in runner.output
    assert lines(runner) == []


def test_without_the_expert_it_only_observes(nodes, client):
    """No trial before the first proposal, nothing on teleop/cmd_vel, and an end by timeout."""
    commands = client.subscribe('teleop/cmd_vel', Twist)
    nodes.start('sim_node', params={**FAST, 'trial_timeout_s': 3.0})
    resets = client.subscribe('sim/status', DiagnosticStatus)
    runner = nodes.start('arena_runner', params={'trials': 2})
    client.wait_for(
        lambda: 'timeout' in [status.message for status in resets.messages],
        TIMEOUT_S,
        'the end of the scene that is loaded without a reset',
    )
    assert lines(runner) == []
    client.publish('policy/cmd_vel', TwistStamped())
    assert runner.wait(TIMEOUT_S) == 0
    assert [trial['outcome'] for trial in lines(runner)] == ['timeout', 'timeout']
    assert len(commands) == 0


def test_a_base_that_does_not_follow_is_reported_before_any_episode(nodes, client):
    """For a guard that is not armed: a sentence with the remedy, and no failed trial."""
    nodes.start('sim_node', params=FAST)
    nodes.start('guard_node', params={'use_sim_time': True})
    runner = nodes.start(
        'arena_runner', params={'expert': True, 'record': False, 'patience_s': 4.0}
    )
    assert runner.wait(TIMEOUT_S) == 2
    assert 'the guard is armed' in runner.output
    assert lines(runner) == []


@pytest.mark.parametrize(
    ('params', 'words'),
    [
        ({'suite': 'nowhere'}, ["'nowhere'", 'train']),
        ({'patience_s': 1.0, 'expert': True}, ['the arena does not answer', 'Start its node']),
        ({'patience_s': 1.0}, ['the policy is silent', 'Start sim_node']),
    ],
)
def test_a_bad_start_ends_with_a_sentence(nodes, params, words):
    """An unknown suite, or no arena at all: exit status 2, no traceback."""
    assert_refused(nodes.start('arena_runner', params=params), words, TIMEOUT_S)

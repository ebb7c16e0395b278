"""Policies that are code, in the live inference node: the same drive, and the same faults."""

import os
import shlex
import signal
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from std_msgs.msg import String

from driven import FAULT, OK, Drive, FaultyCamera
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.rollout.live import drive_live

EXAMPLES = Path(__file__).resolve().parents[3] / 'examples'
PEER = Path(__file__).resolve().parents[2] / 'helpers' / 'peer.py'
RED_SCENE = 11  # of unseen_layouts: go to the red box
MOODY = """
import time
import numpy as np
from mobile_vla_ros import ActionSpec, Plan, spec_without_network

class Moody:
    def __init__(self):
        self.spec = spec_without_network('moody', ActionSpec(), window=1, chunk=5)
        self.fresh = False
    def reset(self):
        self.fresh = True
    def infer(self, window, instruction):
        assert self.fresh, 'reset() was not called'
        if instruction == 'raise':
            raise ValueError('bad mood')
        if instruction == 'exit':
            raise SystemExit(1)
        if instruction == 'hang':
            time.sleep(3)
        twists = np.zeros((5, 6))
        twists[:, 0] = np.nan if instruction == 'nan' else 0.0
        return Plan(window[-1].stamp_ns, twists[:2] if instruction == 'lie' else twists, 10.0)

class Broken:
    def __init__(self):
        raise OSError('no weights')
"""
MOODS = {
    'raise': 'the policy failed: ValueError: bad mood',
    'exit': 'the policy failed: SystemExit: 1',
    'lie': 'a plan that its spec does not promise',
    'nan': 'NaN or inf',
    'hang': 'action chunk exhausted',
}


def test_the_example_drives_a_scene_through_the_nodes(tmp_path, monkeypatch):
    """Camera, frame buffer, playback, preflight and guard of any drive: it reaches the object."""
    monkeypatch.syspath_prepend(EXAMPLES)
    (trial,) = drive_live(
        policy=Path('custom_policy:RedPolicy'),
        suite='unseen_layouts',
        first=RED_SCENE,
        count=1,
        speed=1.0,
        log=tmp_path / 'log',
        quiet=True,
        env={**isolated(), 'PYTHONPATH': str(EXAMPLES)},
    )
    assert ' red ' in trial['instruction']
    assert trial['outcome'] == 'success', (tmp_path / 'log' / 'inference.log').read_text()


@pytest.fixture
def moody(tmp_path):
    """The environment of a node that finds the module `moody`."""
    (tmp_path / 'moody.py').write_text(MOODY)
    return {'PYTHONPATH': os.pathsep.join([str(tmp_path), os.environ.get('PYTHONPATH', '')])}


def test_what_it_does_wrong_is_a_fault_and_the_drive_goes_on_after(nodes, client, moody):
    """
    It raises, lies, computes NaN or hangs: nothing is proposed until it is well again.

    And nobody makes the node import more over ROS.
    """
    received = Drive(client)
    nodes.start('inference_node', params={'policy': 'moody:Moody', 'instruction': 'go'}, env=moody)
    with FaultyCamera(client):
        received.until(OK, timeout_s=60)
        for mood, sentence in MOODS.items():
            client.publish('instruction', String(data=mood), LATCHED)
            received.until(FAULT, sentence)
            client.publish('instruction', String(data='go'), LATCHED)
            received.until(OK)
        value = ParameterValue(type=ParameterType.PARAMETER_STRING, string_value='moody:Broken')
        done = client.call(
            'inference/set_parameters',
            SetParameters,
            SetParameters.Request(parameters=[Parameter(name='next_policy', value=value)]),
        )
        assert 'named when the node is started' in done.results[0].reason
        assert not done.results[0].successful


def test_one_that_cannot_be_made_ends_the_node_with_a_sentence(nodes, moody):
    """Nothing drives, as without a policy."""
    process = nodes.start('inference_node', params={'policy': 'moody:Broken'}, env=moody)
    assert process.wait(60) == 2
    assert 'the policy moody:Broken cannot be made; got OSError: no weights' in process.output
    assert 'Traceback' not in process.output


@contextmanager
def driven_by_a_process(nodes, client):
    """Yield a node that drives by a process, what it sends, and that process."""
    received = Drive(client)
    command = f'process:{shlex.quote(sys.executable)} -I -S {PEER}'
    node = nodes.start('inference_node', params={'policy': command, 'instruction': 'go'})
    with FaultyCamera(client):
        received.until(OK, timeout_s=60)
        (peer,) = psutil.Process(node.pid).children()
        yield node, received, peer


def test_a_killed_process_of_a_policy_is_a_fault_and_the_node_goes_on(nodes, client):
    """Nothing is proposed any more, and the node says why; the process ends with the node."""
    with driven_by_a_process(nodes, client) as (node, received, peer):
        assert received.proposals.last.twist.angular.z in (0, 1)
        peer.kill()
        received.until(FAULT, 'the process of the policy has ended; got SIGKILL')
        seen = len(received.proposals)
        received.until(FAULT, 'has ended')
        assert len(received.proposals) == seen
    assert node.running


def test_a_hung_process_of_a_policy_ends_with_the_node(nodes, client):
    """In the middle of a step that would take an hour."""
    with driven_by_a_process(nodes, client) as (node, _, peer):
        client.publish('instruction', String(data='hang'), LATCHED)
        time.sleep(1.0)
        node.signal(signal.SIGINT)
        assert node.wait(8) == 0
    assert not peer.is_running()

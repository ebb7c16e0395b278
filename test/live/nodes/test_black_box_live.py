"""The black box of a live recorder: the seconds before something happened, as an episode."""

import signal
from functools import partial
from itertools import cycle

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from std_msgs.msg import String

from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason
from node_rig import NodeRig, twist_message
from ros_helpers import wait_until

HELD_S = 2.0


class Rig(NodeRig):
    """A recorder with a black box, and the reports of a guard."""

    def __init__(self, nodes, client, folder, **params):
        process = nodes.start(
            'recorder_node',
            params={'data_dir': str(folder), 'disk_floor_mb': 1, **params},
        )
        super().__init__(client, process, 'recorder/status')
        self.black_box = folder / 'black_box'

    def fails(self, noticed):
        """Report driving, then a fault, until it is noticed: reports travel best effort."""
        driving = GuardStatus(State.DRIVING, True, 'policy')
        fault = GuardStatus(
            State.FAULT,
            False,
            stop_reason=StopReason.POLICY_SILENT,
            sentence='inference is silent',
        )

        def reports():
            for status in cycle([driving] * 5 + [fault] * 5):
                yield status_message('guard', status.state, status.values(), DiagnosticStatus.OK)

        with self.client.stream('guard/status', partial(next, reports()), 20):
            wait_until(noticed, 15, 'the fault to be noticed', lambda: self.process.output)

    def call(self, name: str):
        answer = self.client.call(f'recorder/{name}')
        assert answer.success, answer.message
        return answer.message

    def held(self):
        self.until('held seconds', lambda _, v: float(v['black_box_s']) > HELD_S - 0.3)

    def episode(self):
        path = self.until('its end', lambda _, v: v['last_black_box'])['last_black_box']
        return Episode.open(path)


@pytest.fixture
def rig(nodes, client, tmp_path):
    return lambda **params: Rig(nodes, client, tmp_path / 'episodes', **params)


def test_a_fault_makes_the_seconds_before_it_an_episode_though_nothing_was_recorded(rig):
    """With frames, commands and the reason; a recording that begins meanwhile ends it."""
    one = rig(ring_s=HELD_S)
    with one.camera(), one.client.stream('cmd_vel', lambda: twist_message(0.3), 20):
        one.held()
        assert not one.black_box.exists()
        one.fails(lambda: list(one.black_box.glob('*.part')))
        one.client.publish('instruction', String(data='go left'), LATCHED)
        one.until('the instruction', lambda _, v: v['instruction'] == 'go left')
        one.call('start')
        with one.episode() as episode:
            names = [(event.name, event.text) for event in episode.events]
            assert ('trigger', 'fault: inference is silent') in names
            assert names[0][0] == 'start' and names[-1][0] == 'stop'
            fault_ns = next(e.steady_ns for e in episode.events if e.name == 'trigger')
            before_s = (fault_ns - episode.frame_steady_ns[0]) / 1e9
            assert HELD_S - 0.5 < before_s < HELD_S + 0.5
            assert episode.frame_steady_ns[-1] > fault_ns
            assert len(episode.commands) > 20 and episode.complete
            assert episode.instruction == 'no instruction was given'
        # A fault while an episode is recorded is noted in it.
        part = one.until('frames', lambda _, v: int(v['frames']) > 5)['episode']
        with Episode.open(one.black_box.parent / part) as episode:
            assert 'trigger' not in [event.name for event in episode.events]
        one.fails(lambda: 'noted in the episode' in one.process.output)
        one.call('stop')
    (path,) = find_episodes(one.black_box.parent)
    with Episode.open(path) as episode:
        assert 'trigger' in [event.name for event in episode.events]
    assert len(list(one.black_box.iterdir())) == 1


def test_a_person_keeps_the_last_seconds_and_a_kill_loses_none_that_were_written(rig):
    """By the service that the console's key calls; the next recorder recovers the file."""
    one = rig(ring_s=HELD_S)
    with one.camera():
        one.held()
        assert 'black_box' in one.call('black_box')
        (part,) = wait_until(lambda: list(one.black_box.glob('*.part')), 15, 'the file')
        one.until('no more held rows', lambda _, v: float(v['black_box_s']) < 0.5)
        one.process.signal(signal.SIGKILL)
    rig(ring_s=0.0)
    path = part.with_suffix('')
    wait_until(path.exists, 15, 'the recovered file')
    with Episode.open(path) as episode:
        assert len(episode) > 20 and episode.recovered

"""The console as a live process in a real terminal, over DDS."""

import itertools
import os
import pty
import signal
import sys
import termios
import threading
import time

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from std_msgs.msg import String
from std_srvs.srv import Trigger

from hands import ENABLE, Pad
from mobile_vla_ros.nodes.shared.messages import LATCHED, status_message
from mobile_vla_ros.nodes.teleop.keyboard import RECORDER_KEYS
from mobile_vla_ros.nodes.teleop.terminal import FUNCTION_KEY_S
from mobile_vla_ros.safety.status import GuardStatus, State
from ros_helpers import ROOT, TIMEOUT_S, Client, wait_until

REPEAT_S = 0.03
STOP_S = 0.3  # the promise, which a quiet machine keeps
AT_ALL_S = 5.0  # a busy one may take longer, but not as long as what hangs


class Keyboard:
    """A teleop process whose controlling terminal belongs to the test."""

    def __init__(self, client, *arguments: str):
        self.client = client
        self.commands = client.subscribe('teleop/cmd_vel', Twist)
        self.pid, self.master = pty.fork()
        if self.pid == 0:
            os.execve(
                sys.executable,
                [
                    sys.executable,
                    '-m',
                    'mobile_vla_ros.nodes.teleop_node',
                    '--ros-args',
                    '-p',
                    'max_linear_mps:=0.4',
                    '-p',
                    'throttle:=1.0',
                    *arguments,
                ],
                {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1'},
            )
        self.modes = termios.tcgetattr(self.master)
        self.shown, self.status = '', None
        self.reading = threading.Event()
        self.reading.set()
        self._thread = threading.Thread(target=self._show, daemon=True)
        self._thread.start()
        self.wait_for_text('Ctrl-C')
        wait_until(lambda: client.node.count_publishers('teleop/cmd_vel'))
        wait_until(lambda: client.node.get_publishers_info_by_topic('/teleop/cmd_vel'))

    def _show(self):
        while True:
            self.reading.wait()
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return
            self.shown += data.decode(errors='replace')

    def wait_for_text(self, text, timeout_s=TIMEOUT_S):
        """Wait until the terminal shows a text."""
        wait_until(lambda: text in self.shown, timeout_s, repr(text), lambda: self.shown[-2000:])

    def type(self, keys: str):
        """Press keys; return the time."""
        os.write(self.master, keys.encode())
        return time.monotonic()

    def hold(self, key: str, until):
        """Hold a key, with a terminal's repeats, until a predicate is true; return its end."""
        deadline = time.monotonic() + TIMEOUT_S
        while not until():
            assert time.monotonic() < deadline, self.shown[-2000:]
            last = self.type(key)
            time.sleep(REPEAT_S)  # the repeat of a keyboard
        return last

    def press_until(self, key: str, done):
        """Press a key repeatedly, since its service may not have been discovered yet."""
        deadline = time.monotonic() + TIMEOUT_S
        while not done():
            assert time.monotonic() < deadline, self.shown[-2000:]
            self.type(key)
            time.sleep(10 * REPEAT_S)

    def moving(self):
        """Whether the newest command is not zero."""
        last = self.commands.last
        return last is not None and any((last.linear.x, last.linear.y, last.angular.z))

    def stop_delay(self, key: str) -> float:
        """Hold a key for ten commands and release it; return the seconds to the first zero."""
        seen = len(self.commands)
        let_go = self.hold(key, lambda: len(self.commands) > seen + 10 and self.moving())
        wait_until(lambda: not self.moving(), what='zero')
        first = next(
            i
            for i in range(len(self.commands) - 1, -1, -1)
            if self.commands.messages[i].linear.x or self.commands.messages[i].angular.z
        )
        return self.commands.times[first + 1] - let_go

    def wait(self) -> int:
        """Return the exit status."""

        def look():
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            self.status = os.waitstatus_to_exitcode(status) if pid else None
            return pid

        if self.status is None:
            wait_until(look, what='the end of teleop', detail=lambda: self.shown[-2000:])
        return self.status

    def close(self):
        """Kill the process if it is alive."""
        self.reading.set()
        if self.status is None:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        os.close(self.master)


@pytest.fixture
def keyboard(client):
    """Start the console in a terminal: ``keyboard('-p', 'throttle:=0.5')``."""
    made = []

    def make(*arguments):
        made.append(Keyboard(client, *arguments))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def servers(ros_domain):
    """A second client with the services that the console calls: ``serve(name, callback)``."""
    other = Client('servers')

    def serve(name, callback):
        def answer(_request, response):
            response.success, response.message = True, callback()
            return response

        other.node.create_service(Trigger, name, answer)

    yield serve
    other.close()


@pytest.mark.quiet_machine
def test_holding_a_key_drives_and_releasing_it_stops(keyboard):
    """20 Hz while the key is held; zero within 0.3 s of its last event; then silence."""
    one = keyboard()
    assert one.stop_delay('w') < STOP_S
    fast = [m.linear.x for m in one.commands.messages if m.linear.x]
    assert set(fast) == {0.4}
    times = np.array(one.commands.times)[:10]
    assert 0.035 < np.median(np.diff(times)) < 0.065
    wait_until(lambda: time.monotonic() - one.commands.times[-1] > 0.5, what='silence')
    zeros = len(one.commands) - len(fast)
    assert 3 <= zeros <= 12


@pytest.mark.parametrize(
    'parts', [('\x1b', '[D'), ('\x1b[', 'D'), ('\x1b[1;', '5D'), ('f\x1b', '[D')]
)
def test_an_arrow_key_that_arrives_in_pieces_does_not_drive(keyboard, parts):
    """Over a network its last letter may arrive alone, which would be D for right."""
    one = keyboard()
    late = True
    while late:  # a pause that this machine made longer than the console waits shows nothing
        seen = len(one.commands)
        began = one.type(parts[0])
        time.sleep(0.005)  # the delay of a network
        late = one.type(parts[1]) - began > FUNCTION_KEY_S / 2
    one.hold('w', lambda: any(m.linear.x for m in one.commands.messages[seen:]))
    assert {m.linear.y for m in one.commands.messages[seen:]} == {0.0}


@pytest.mark.quiet_machine
def test_space_stops_a_held_key(keyboard):
    """The zero is published at once, long before the hold would end."""
    one = keyboard()
    one.hold('w', one.moving)
    seen = len(one.commands)
    pressed = one.type(' ')
    wait_until(lambda: not one.moving(), what='zero')
    zero = next(i for i in range(seen, len(one.commands)) if not one.commands.messages[i].linear.x)
    assert one.commands.times[zero] - pressed < 0.1


def test_a_hanging_service_does_not_keep_the_robot_moving(keyboard, servers):
    """While a recorder needs seconds to answer, the keys still drive and stop."""
    asked, free = threading.Event(), threading.Event()

    def hang():
        asked.set()
        free.wait(2 * TIMEOUT_S)
        return 'at last'

    servers('recorder/start', hang)
    one = keyboard()
    one.press_until('n', asked.is_set)
    assert one.stop_delay('w') < AT_ALL_S
    free.set()
    one.wait_for_text('at last')


def test_a_hanging_terminal_does_not_keep_the_robot_moving(keyboard):
    """With output stopped by Ctrl-S, and a terminal that nobody reads, the keys still work."""
    one = keyboard()
    one.type('\x13')
    assert one.stop_delay('w') < AT_ALL_S
    one.type('\x11')
    one.reading.clear()
    for _ in range(3):
        assert one.stop_delay('s') < AT_ALL_S


def test_keys_call_the_recorder(keyboard, servers):
    """N, M, B, 1, 0 and the keys for the last episode; the responses are shown."""
    called = []
    for name in RECORDER_KEYS.values():
        servers(f'recorder/{name}', lambda name=name: called.append(name) or f'did {name}')
    one = keyboard()
    for key, name in RECORDER_KEYS.items():
        one.press_until(key, lambda name=name: name in called)
        one.wait_for_text(f'did {name}')


def test_a_missing_recorder_is_reported(keyboard):
    """The screen names the node that the key needs."""
    one = keyboard()
    one.type('n')
    one.wait_for_text('recorder does not answer: is recorder_node running?')


def test_x_arms_and_disarms_by_the_guard_s_report(keyboard, servers, client):
    """X arms a guard that is not armed, and disarms one that is."""
    servers('guard/arm', lambda: 'now armed')
    servers('guard/disarm', lambda: 'now disarmed')
    one = keyboard()
    for armed, text in ((False, 'now armed'), (True, 'now disarmed')):
        status = GuardStatus(State.TELEOP, armed, sentence=f'armed is {armed}')
        with client.stream(
            'guard/status',
            lambda status=status: status_message('guard', 'teleop', status.values()),
            10,
        ):
            one.wait_for_text(f'armed is {armed}')
            one.press_until('x', lambda text=text: text in one.shown)


def test_x_disarms_a_guard_that_does_not_report_whether_it_is_armed(keyboard, servers, client):
    """Regression: it armed one while the screen showed it as armed."""
    servers('guard/arm', lambda: 'now armed')
    servers('guard/disarm', lambda: 'now disarmed')
    one = keyboard()
    values = GuardStatus(State.TELEOP, armed=True).values()
    del values['armed']
    with client.stream('guard/status', lambda: status_message('guard', 'teleop', values), 10):
        one.wait_for_text('does not report whether it is armed')
        one.press_until('x', lambda: 'now disarmed' in one.shown)
    assert 'now armed' not in one.shown


def test_i_publishes_an_instruction(keyboard, client):
    """I, a sentence, Enter: it is latched, for nodes that start later."""
    one = keyboard()
    one.type('igo to the größte box\r')
    one.wait_for_text('instruction: go to the größte box')
    inbox = client.subscribe('instruction', String, LATCHED)
    wait_until(lambda: len(inbox), what='the instruction')
    assert inbox.last.data == 'go to the größte box'
    assert not one.moving()


def test_the_status_line_shows_the_recorder(keyboard, client):
    """Rate, queue, drops and the last verdict of the recorder are on the screen."""
    one = keyboard()
    values = {
        'instruction': 'go',
        'seconds': '3.5',
        'frames': 35,
        'camera_hz': '9.9',
        'queue': 2,
        'drops': 7,
        'problem': '',
        'last_verdict': 'poor',
        'last_reasons': 'too dark',
        'disk_minutes': '80.0',
        'takes': '{"go": 2, "stay": 1}',
        'recovered': 'one episode was completed',
    }
    # What no node of this package sends, and any program may.
    for unusable, sentence in (
        ({'takes': '[' * 100_000, 'seconds': 'inf', 'disk_minutes': 'nan'}, 'are not JSON'),
        ({'takes': '{"go": 1e999}', 'instruction': 'x ' * 200_000}, 'are not whole numbers'),
        ({'takes': 'x' * 2_000_000}, 'cannot be used: it has more than'),
    ):
        with client.stream(
            'recorder/status',
            lambda values=unusable: status_message('recorder', 'recording', values),
            10,
        ):
            one.wait_for_text(sentence)
    with client.stream(
        'recorder/status',
        lambda: status_message('recorder', 'recording', values, DiagnosticStatus.OK),
        10,
    ):
        one.wait_for_text('REC 0:03, 35 frames, 9.9 Hz, queue 2, 7 dropped, disk 80 min')
        for text in (
            '"go": 2 episodes, 1 of 1 other instruction',
            'last episode poor: too dark',
            'recorder: one episode was completed',
        ):
            one.wait_for_text(text)
        one.type('i2')
        one.wait_for_text('= stay')
        one.type('\r')
        one.wait_for_text('instruction: stay')
    one.wait_for_text('recorder silent for')


def test_text_of_a_recorder_does_not_flood_the_screen(keyboard, client):
    """A text that is long and new in every status is cut, and logged once a second."""
    one = keyboard()
    numbers = itertools.count()

    def status():
        values = {'recovered': f'{next(numbers)} ' + 'x' * 100_000 + 'END'}
        return status_message('recorder', 'idle', values)

    with client.stream('recorder/status', status, 20):
        one.wait_for_text('recorder: ')
        began = time.monotonic()
        wait_until(lambda: one.shown.count('recorder: ') >= 2, what='the second line')
        assert time.monotonic() - began > 0.8
    assert 'x…' in one.shown and 'END' not in one.shown


def test_space_stops_the_joystick(keyboard, client):
    """Zero at once and while the button is held; after release and press it drives again."""
    one, pad = keyboard(), Pad(client)
    pad.drive()
    pressed, shown = one.type(' '), len(one.shown)
    while time.monotonic() - pressed < 1.0:  # longer than the zeros that follow a key
        pad.send(1.0, ENABLE)
        time.sleep(REPEAT_S)
    assert pad.stopped_at() - pressed < AT_ALL_S
    wait_until(lambda: 'joystick blocked: release its button' in one.shown[shown:])
    pad.drive()


def test_keys_that_stop_processes_are_ignored(keyboard):
    """Ctrl-Z and Ctrl-\\ would stop or kill the guard too: the keys still drive."""
    one = keyboard()
    one.type('\x1a\x1c')
    assert one.stop_delay('w') < AT_ALL_S


@pytest.mark.parametrize('end', ['\x03', signal.SIGTERM, signal.SIGHUP])
def test_leaving_stops_the_robot_and_restores_the_terminal(keyboard, end):
    """On Ctrl-C, SIGTERM or a lost ssh with a key held: a last zero and status 0."""
    one = keyboard()
    assert termios.tcgetattr(one.master) != one.modes
    one.hold('w', one.moving)
    if end == '\x03':
        one.type(end)
    else:
        os.kill(one.pid, end)
    assert one.wait() == 0
    wait_until(lambda: not one.moving(), what='zero')
    assert termios.tcgetattr(one.master) == one.modes


def test_without_a_terminal_it_ends_with_a_sentence_and_status_2(nodes):
    """It has nothing to read keys from."""
    process = nodes.start('teleop_node')
    assert process.wait() == 2
    assert 'no terminal to read keys from' in process.output
    assert 'Traceback' not in process.output

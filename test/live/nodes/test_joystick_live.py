"""The console's joystick with a live console without a terminal."""

import signal
import time

import pytest
from std_srvs.srv import Trigger

from hands import ENABLE, START, A, B, Pad, X, Y
from ros_helpers import Client, wait_until

AT_ALL_S = 5.0  # a busy machine takes longer than the 0.3 s that test/unit checks without a clock


@pytest.fixture
def console(nodes):
    """Start a console that has no terminal: ``console(joy_scale=[…])``."""

    def start(**params):
        return nodes.start(
            'teleop_node',
            params={'terminal_required': False, 'max_linear_mps': 0.4, 'throttle': 1.0, **params},
        )

    return start


def test_the_joystick_drives_and_stops_without_a_terminal(console, client):
    """0.4 m/s while held; zero after release or silence."""
    process = console()
    pad = Pad(client)
    pad.drive()
    assert {m.linear.x for m in pad.commands.messages} - {0.0} == {0.4}
    let_go = pad.send(1.0)
    assert pad.stopped_at() - let_go < AT_ALL_S
    silent = pad.drive()
    assert pad.stopped_at() - silent < AT_ALL_S
    count = len([m for m in pad.commands.messages if m.linear.x])
    for _ in range(5):  # it publishes again, still held
        pad.send(1.0, ENABLE)
        time.sleep(0.05)
    wait_until(lambda: time.monotonic() - pad.commands.times[-1] > 0.5, what='silence')
    assert count == len([m for m in pad.commands.messages if m.linear.x])
    assert process.stop() == 0
    assert 'joystick alone' in process.output
    assert 'Traceback' not in process.output


def test_a_stalled_console_does_not_drive_by_old_messages(console, client):
    """SIGSTOP during a drive, the joystick's end, SIGCONT: zero, and no motion."""
    process = console()
    pad = Pad(client)
    pad.drive()
    process.signal(signal.SIGSTOP)
    for _ in range(6):
        pad.send(1.0, ENABLE)
        time.sleep(0.05)
    time.sleep(0.5)  # some time without any message
    seen = len(pad.commands)
    process.signal(signal.SIGCONT)
    wait_until(lambda: len(pad.commands) > seen, what='a command')
    wait_until(lambda: time.monotonic() - pad.commands.times[-1] > 0.4, what='silence')
    assert not any(m.linear.x for m in pad.commands.messages[seen:])


def test_buttons_call_the_recorder(console, client):
    """Each button calls its service once per press; the response is in the log."""
    other, called = Client('servers'), []
    try:
        for name in ('start', 'stop', 'discard', 'success', 'failure'):

            def answer(_request, response, name=name):
                called.append(name)
                response.success, response.message = True, f'did {name}'
                return response

            other.node.create_service(Trigger, f'recorder/{name}', answer)
        process = console()
        pad = Pad(client)
        pad.send()
        for button, name in (
            (START, 'start'),
            (A, 'success'),
            (X, 'discard'),
            (B, 'failure'),
            (Y, 'stop'),
        ):

            def pressed(button=button, name=name):
                pad.send(0.0, button)
                pad.send()
                time.sleep(
                    0.3
                )  # until the console calls; its client may not have found the server yet
                return name in called

            wait_until(pressed, what=name, detail=lambda: process.output)
            process.wait_for_output(f'did {name}')
    finally:
        other.close()


def test_an_invalid_layout_ends_the_node_with_a_sentence(console):
    """Status 2, and no traceback."""
    process = console(joy_enable_button=7)
    assert process.wait() == 2
    assert 'one button has two meanings' in process.output
    assert 'Traceback' not in process.output

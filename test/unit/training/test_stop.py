"""Ctrl-C during training: the first requests a stop, a later one ends, an echo does nothing."""

import os
import signal

import pytest

from mobile_vla_ros.training import loop
from mobile_vla_ros.training.loop import StopSignal


def send(number=signal.SIGINT):
    """Send this process a signal; Python handles it before the next line."""
    os.kill(os.getpid(), number)


def test_the_first_signal_and_its_echo_request_a_stop():
    """Terminal and launcher both send one: the step must still finish and be saved."""
    with StopSignal() as stop_signal:
        assert not stop_signal.requested
        send()
        send()
        send(signal.SIGTERM)
        assert stop_signal.requested


def test_a_later_ctrl_c_ends_the_process(monkeypatch):
    """It does not wait for the step."""
    monkeypatch.setattr(loop, 'SAME_S', 0.0)
    with pytest.raises(KeyboardInterrupt), StopSignal():
        send()
        send()


def test_repeated_sigterm_still_saves(monkeypatch):
    """Two SIGTERMs of a scheduler still finish and save the step; only SIGKILL ends at once."""
    monkeypatch.setattr(loop, 'SAME_S', 0.0)
    with StopSignal() as stop_signal:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop_signal.requested


def test_handlers_are_restored():
    """The previous handlers are set again."""
    before = [signal.getsignal(number) for number in StopSignal.SIGNALS]
    with StopSignal():
        assert [signal.getsignal(number) for number in StopSignal.SIGNALS] != before
    assert [signal.getsignal(number) for number in StopSignal.SIGNALS] == before

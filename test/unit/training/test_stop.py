"""Ctrl-C during a training: the first asks, a later one ends, a launcher's echo does neither."""

import os
import signal

import pytest

from mobile_vla_ros.training import stop
from mobile_vla_ros.training.stop import StopSignal


def send(number=signal.SIGINT):
    """Send this process a signal; Python handles it before the next line."""
    os.kill(os.getpid(), number)


def test_the_first_asks_and_its_echo_is_the_same_one():
    """Terminal and launcher both send one: the step must still be finished and saved."""
    with StopSignal() as stop_signal:
        assert not stop_signal.requested
        send()
        send()
        send(signal.SIGTERM)
        assert stop_signal.requested


def test_a_person_who_insists_is_heard(monkeypatch):
    """A second Ctrl-C later on does not wait for the step."""
    monkeypatch.setattr(stop, 'SAME_S', 0.0)
    with pytest.raises(KeyboardInterrupt), StopSignal():
        send()
        send()


def test_a_scheduler_that_repeats_itself_ends_nothing(monkeypatch):
    """SIGTERM twice is still a stop that saves; what ends at once is SIGKILL."""
    monkeypatch.setattr(stop, 'SAME_S', 0.0)
    with StopSignal() as stop_signal:
        send(signal.SIGTERM)
        send(signal.SIGTERM)
        assert stop_signal.requested


def test_handlers_are_given_back():
    """What was there before is there afterwards."""
    before = [signal.getsignal(number) for number in StopSignal.SIGNALS]
    with StopSignal():
        assert [signal.getsignal(number) for number in StopSignal.SIGNALS] != before
    assert [signal.getsignal(number) for number in StopSignal.SIGNALS] == before

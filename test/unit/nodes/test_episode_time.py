"""The time that an episode's rows are paired by, in a simulation and without one."""

import time

import pytest
from rclpy.clock import ROSClock
from rclpy.time import Time

from mobile_vla_ros.nodes.shared import clocks
from mobile_vla_ros.nodes.shared.clocks import EpisodeTime

S = 10**9


class Simulation:
    """A node whose clock a test sets; ``real_ns`` is the time since boot."""

    def __init__(self, monkeypatch):
        self.real_ns, self._clock = 1000 * S, ROSClock()
        monkeypatch.setattr(clocks, 'steady_ns', lambda: self.real_ns)
        self.time = EpisodeTime(self)

    def get_clock(self):
        return self._clock

    def at(self, seconds: float, real_s: float) -> float:
        """Set both clocks; return the episode's time in seconds."""
        self._clock._set_ros_time_is_active(True)
        self._clock.set_ros_time_override(Time(nanoseconds=round(seconds * S)))
        self.real_ns = round(real_s * S)
        return self.time() / S


def test_it_follows_the_simulation_at_any_speed(monkeypatch):
    """From the time since boot on, four times as fast; before /clock comes it is that time."""
    simulation = Simulation(monkeypatch)
    assert simulation.at(0, 999) == 999
    seen = [simulation.at(50 + 4 * step, 1000 + step) for step in range(5)]
    assert seen == [1000, 1004, 1008, 1012, 1016]


def test_it_goes_on_where_the_simulation_stands_or_goes_back(monkeypatch):
    """Standing, in the smallest steps; where it goes back, by the time since boot."""
    simulation = Simulation(monkeypatch)
    first = simulation.at(50, 1000)
    standing = [simulation.at(50, 1000 + step) for step in range(3)]
    assert first < standing[0] < standing[1] < standing[2] < first + 1e-6
    assert simulation.at(2, 1003) == pytest.approx(1001, abs=1e-6)  # a second after the last one
    assert simulation.at(5, 1003.1) == pytest.approx(1004, abs=1e-6)


def test_another_clock_on_the_same_topic_is_no_time_that_passed(monkeypatch):
    """Two publishers, of 1970 and of today, or a simulation that begins anew at 0."""
    simulation = Simulation(monkeypatch)
    first = simulation.at(50, 1000)
    today = 1.8e9
    seen = [simulation.at(now, 1000 + step) for step, now in enumerate((today, 51, today, 0, 1))]
    assert seen == pytest.approx([first, first + 1, first + 2, first + 3, first + 4], abs=1e-6)
    assert simulation.at(3, 1005) == pytest.approx(first + 6, abs=1e-6)


def test_without_a_simulation_it_is_the_time_since_boot():
    """It counts a suspension, too."""

    class Node:
        def get_clock(self):
            return ROSClock()

    before_ns = time.clock_gettime_ns(time.CLOCK_BOOTTIME)
    assert before_ns <= EpisodeTime(Node())() <= time.clock_gettime_ns(time.CLOCK_BOOTTIME)

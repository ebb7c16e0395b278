"""How late a message is, from clocks that do not agree."""

import pytest

from mobile_vla_ros.safety.lateness import WINDOW_S, Lateness

MS = 1_000_000


def feed(lateness, count, *, offset_ms, delay_ms=2, start_ms=0, period_ms=50):
    """Send messages at a period; return how late each was, in milliseconds."""
    return [
        lateness.late_ns(
            (10**6 + start_ms + i * period_ms + offset_ms) * MS,
            (start_ms + i * period_ms + delay_ms) * MS,
        )
        / MS
        for i in range(count)
    ]


@pytest.mark.parametrize('offset_ms', [0, -40_000, 40_000])
def test_the_difference_between_two_clocks_is_no_lateness(offset_ms):
    """Only what exceeds the fastest message counts."""
    lateness = Lateness()
    assert feed(lateness, 20, offset_ms=offset_ms) == [0] * 20
    assert feed(lateness, 1, offset_ms=offset_ms, delay_ms=152, start_ms=1000) == [150]


@pytest.mark.parametrize('stall_ms', [3000, 600_000])
def test_messages_from_a_stall_are_late_however_long_it_was(stall_ms):
    """What was sent during it arrives at its end, the oldest first."""
    lateness = Lateness()
    feed(lateness, 20, offset_ms=0)
    late = [
        lateness.late_ns((10**6 + 1000 + i * 50) * MS, (1002 + stall_ms) * MS) / MS
        for i in range(stall_ms // 50)
    ]
    assert late == [stall_ms - i * 50 for i in range(len(late))]


def test_a_clock_that_is_set_back_makes_late_for_the_window_alone():
    """After that its messages are in time again."""
    lateness = Lateness()
    feed(lateness, 20, offset_ms=0)
    late = feed(lateness, 200, offset_ms=-4000, start_ms=1000)
    assert late[0] == 4000
    assert late[-1] == 0
    assert sum(one > 0 for one in late) * 50 == pytest.approx(WINDOW_S * 1000, abs=100)


def test_a_sender_once_a_second_leaves_the_window_too():
    """A silence counts as half a second, so that the window ends after ten messages."""
    lateness = Lateness()
    feed(lateness, 5, offset_ms=0, period_ms=1000)
    late = feed(lateness, 20, offset_ms=-4000, start_ms=5000, period_ms=1000)
    assert late[0] == 4000
    assert 8 <= sum(one > 0 for one in late) <= 12


def test_an_unknown_time_of_sending_is_never_late():
    """Not every middleware provides it."""
    lateness = Lateness()
    assert [lateness.late_ns(0, i * MS) for i in range(3)] == [0, 0, 0]

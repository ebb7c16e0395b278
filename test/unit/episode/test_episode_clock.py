"""The camera's clock: its faults, and harmless delays that resemble them."""

import time

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.episode.timing import camera_clock as clock
from mobile_vla_ros.episode.timing.receipts import clock_steps, without_steps

S = 1_000_000_000
FRAMES = 300  # half a minute at 10 Hz
TRUE = 1_700_000_000 * S + np.arange(FRAMES, dtype=np.int64) * S // 10
ROW = np.arange(FRAMES)


def kind(stamp_ns, received_ns) -> str:
    """Return the kind of a clock, which has a sentence unless it is sane."""
    found = clock.check(stamp_ns, received_ns, without_steps(received_ns, received_ns)[0])
    assert found.kind in clock.KINDS
    assert found.sane == (found.kind == 'sane') == (not found.sentence)
    return found.kind


def late(by_s: dict[int, float]) -> np.ndarray:
    """Return receipt times for frames that are delayed until the frame of a row is delivered."""
    received = TRUE + S // 50
    for row, wait_s in by_s.items():
        received[row] += round(wait_s * S)
    return np.maximum.accumulate(received)


@pytest.mark.parametrize(
    ('stamp', 'expected', 'words'),
    [
        (TRUE, 'sane', ''),
        (TRUE * 0, 'zero', 'stands at zero'),
        (TRUE * 0 + 5 * S, 'zero', 'stands still'),
        (np.where(ROW % 10 == 3, 0, TRUE), 'zero', 'zero in 30 of 300'),
        (np.where(ROW > 150, TRUE - 20 * S, TRUE), 'backwards', 'once'),
        (-TRUE, 'backwards', '299 times'),
        (np.where(ROW == 7, TRUE[6], TRUE), 'backwards', 'once'),
        (
            np.where(ROW > 150, TRUE + 2 * S, TRUE),
            'jumps',
            'once against the receiving clock, by up to 2.00 s',
        ),
        (TRUE + (ROW // 100) * S, 'jumps', '2 times against the receiving clock, by up to 1.00 s'),
        (TRUE - 2 * S, 'apart', '2.02 s behind'),
        (TRUE + 2 * S, 'apart', '1.98 s ahead of'),
        (ROW * S // 10, 'apart', 'behind'),
        (TRUE + (TRUE - TRUE[0]) // 20, 'apart', 'ahead of'),
    ],
)
def test_kind_of_clock(stamp, expected, words):
    """Each fault has its kind and a sentence."""
    received = TRUE + S // 50
    assert kind(stamp, received) == expected
    assert words in clock.check(stamp, received, received).sentence


@pytest.mark.parametrize(
    'rows', [{100: 0.9}, {100: 3.0}, {0: 1.0}, {FRAMES - 1: 2.0}, {50: 1.5, 150: 1.5, 250: 4.0}]
)
def test_frames_delivered_late_are_no_jump(rows):
    """A stall of the transport, followed by a burst of frames."""
    assert kind(TRUE, late(rows)) == 'sane'


def overtaken(every: int, by_s: float) -> tuple[np.ndarray, np.ndarray]:
    """Return stamps and receipt times in the order of receipt; every n-th frame is late."""
    received = TRUE + S // 50 + np.where(ROW % every == 3, round(by_s * S), 0)
    order = np.argsort(received, kind='stable')
    return TRUE[order], received[order]


@pytest.mark.parametrize(('every', 'by_s'), [(10, 0.15), (4, 0.45), (301, 0.15)])
def test_overtaken_frames_are_no_fault_of_the_clock(every, by_s):
    """A late frame arrives after newer ones, whose delay is unchanged."""
    stamp, received = overtaken(every, by_s)
    assert (np.diff(stamp) < 0).any()
    assert kind(stamp, received) == 'sane'


@pytest.mark.parametrize('back_s', [0.11, 0.25, 0.45])
@pytest.mark.parametrize('row', [1, 150, FRAMES - 4])
def test_a_clock_set_back_a_little_is_distinguished_from_late_frames(row, back_s):
    """All later frames have a larger delay than before."""
    stamp = np.where(row <= ROW, TRUE - round(back_s * S), TRUE)
    assert kind(stamp, TRUE + S // 50) == 'backwards'


def test_a_gap_is_no_jump():
    """After a pause, stamps and receipt times have advanced by the same amount."""
    kept = (ROW < 100) | (ROW > 160)
    assert kind(TRUE[kept], TRUE[kept] + S // 50) == 'sane'


@pytest.mark.parametrize('by_s', [4, -4])
def test_a_step_of_the_receiving_clock_alone_is_a_jump(by_s):
    """The camera has another clock: after the step, stamps would not match the commands."""
    received = TRUE + S // 50 + np.where(ROW > 150, by_s * S, 0)
    assert clock.check(TRUE, received, TRUE + S // 50).kind == 'jumps'


@pytest.mark.parametrize('on_the_way', [0, 1, 3])
@pytest.mark.parametrize('by_s', [4, -4, -1e6])
def test_a_step_of_a_shared_clock_is_no_fault(by_s, on_the_way):
    """A time server or a simulator sets the clock of stamps and receipts: exposures stay right."""
    steady = 77 * S + ROW * S // 10
    received = TRUE + S // 50 + np.where(ROW > 150, round(by_s * S), 0)
    stamp = TRUE + np.where(150 + on_the_way < ROW, round(by_s * S), 0)
    assert clock.check(stamp, received, steady).sane
    assert clock_steps(received, steady).tolist() == [151]
    exposed = clock.exposure_times(stamp, received, steady)
    assert exposed.tolist() == (steady - S // 50).tolist()


@given(st.lists(st.floats(0, 0.4), min_size=2, max_size=100), st.integers(0, 2**40))
def test_jitter_of_the_transport_is_sane(delays, start):
    """With any delays under half a second the clock is trusted."""
    stamp = 1 + start + np.arange(len(delays), dtype=np.int64) * S // 10
    received = np.maximum.accumulate(stamp + (np.array(delays) * S).astype(np.int64))
    assert kind(stamp, received) == 'sane'


@given(
    st.lists(st.tuples(st.integers(-(2**62), 2**62), st.integers(-(2**60), 2**60)), max_size=30)
)
def test_any_times_have_a_kind(pairs):
    """For any content of a file there is a result."""
    values = np.array(pairs, dtype=np.int64).reshape(-1, 2)
    kind(values[:, 0], values[:, 1])


def test_first_frame_of_simulated_time_may_be_zero():
    """Simulated time starts at zero and is no broken clock."""
    assert kind(ROW * S // 10, ROW * S // 10) == 'sane'
    assert kind(TRUE[:1], TRUE[:1]) == kind(TRUE[:0], TRUE[:0]) == 'sane'
    assert kind(TRUE[:1] * 0, TRUE[:1]) == 'zero'


def test_an_hour_of_frames_is_checked_quickly():
    """An hour at 30 Hz, with a late frame every second: vectorised, far under a second."""
    stamp = 1 + np.arange(108_000, dtype=np.int64) * S // 30
    late_ns = np.where(np.arange(108_000) % 30 == 0, 6 * S // 10, 0)
    received = np.maximum.accumulate(stamp + late_ns)
    started = time.process_time()
    assert kind(stamp, received) == 'sane'
    assert time.process_time() - started < 1.0

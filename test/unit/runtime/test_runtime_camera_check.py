"""Camera faults: each is found in time, and nothing harmless counts as one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.runtime.camera_check import MIN_FAULT_S, CameraCheck
from mobile_vla_ros.runtime.camera_faults import (
    SETTLED_S,
    FrameHeader,
    brightness,
    content_hash,
)

MS, SECOND = 1_000_000, 1_000_000_000
EPOCH = 1_700_000_000 * SECOND


def sentence(check) -> str:
    """Return the sentence of a check's fault, '' without one."""
    return check.fault.sentence if check.fault else ''


class Camera:
    """A camera whose messages are checked, with a settable clock and content."""

    def __init__(self, rate_hz=10.0, policy_hz=10.0, **options):
        self.check = CameraCheck(policy_hz, **options)
        self.period_ns = round(SECOND / rate_hz)
        self.now = 0  # steady clock, ns; the node's clock is this + EPOCH
        self.number = 0

    def frame(
        self,
        *,
        late_ms=5,
        stamp_ns=None,
        nanosec=None,
        form='64x48 rgb8',
        same=False,
        bright=0.5,
        moving_s=9.0,
        step_ns=0,
        sequence=None,
    ):
        """Add one message after a period; return the fault."""
        self.now += self.period_ns
        ros = EPOCH + self.now + step_ns
        stamp = ros - late_ms * MS if stamp_ns is None else stamp_ns
        sec, rest = divmod(stamp, SECOND)
        self.check.message(
            FrameHeader(sec, rest if nanosec is None else nanosec, ros, self.now, form, sequence)
        )
        if not same:
            self.number += 1
        if self.check.due(self.now):
            self.check.content(self.now, self.number, bright, moving_s)
        return sentence(self.check)

    def frames(self, count, **options):
        """Add several messages; return the fault after each."""
        return [self.frame(**options) for _ in range(count)]


def test_a_simulation_that_has_not_started_is_named():
    """use_sim_time without /clock: the node's time is zero, which is no fault of the camera."""
    check = CameraCheck(10.0, real_time=False)
    for number in range(1, 4):
        check.message(FrameHeader(1_700_000_000 + number, 0, 0, 0, '64x48 rgb8'))
        assert 'no time is published on /clock' in sentence(check)
    check.message(FrameHeader(2, 0, 2 * SECOND + 5 * MS, 2 * SECOND + 5 * MS, '64x48 rgb8'))
    assert not check.fault


def test_a_sentence_with_a_number_changes_once_a_second():
    """Every change is logged and published, so it must not change with every image."""
    camera = Camera()
    camera.frames(3)
    expected = [camera.frame(late_ms=2000 + 100 * number) for number in range(30)][2:]
    assert all(expected) and len(set(expected)) <= 4
    assert float(expected[-1].split(' s old')[0].split()[-1]) > 3.5


def test_a_normal_camera_has_no_fault():
    """Jitter, a single repeat or a single dark image do not stop a drive."""
    camera = Camera()
    assert not any(camera.frames(20))
    assert not camera.frame(same=True)
    assert not any(camera.frames(3, late_ms=40))
    assert not camera.frame(bright=0.0)
    assert not camera.check.usable  # but the policy gets no black image
    assert not camera.frame()
    assert camera.check.usable


def test_a_frozen_camera_is_a_fault_at_the_second_repeat():
    """New stamps, the same image, a moving base: 100 ms after the first repeat."""
    camera = Camera()
    camera.frames(5)
    first, second = camera.frame(same=True), camera.frame(same=True)
    assert first == ''
    assert 'frozen' in second
    assert not camera.check.usable


def test_a_camera_at_30_hz_is_checked_at_the_rate_of_the_policy():
    """A driver that publishes each image three times is not a fault."""
    camera = Camera(rate_hz=30.0)
    for _ in range(20):
        assert camera.frame() == ''
        assert camera.frames(2, same=True) == ['', '']
    faults = camera.frames(8, same=True)
    assert any('frozen' in one for one in faults)
    assert sum(not one for one in faults) <= 6


@pytest.mark.parametrize('moving_s', [0.0, 0.1])
def test_a_camera_without_noise_may_repeat_itself_at_rest(moving_s):
    """At rest, or just after the first command, equal images are expected."""
    camera = Camera()
    assert not any(camera.frames(30, same=True, moving_s=moving_s))


def test_repeats_at_rest_do_not_count_once_it_moves():
    """The last image at rest and the first in motion may be equal."""
    camera = Camera()
    camera.frames(10, same=True, moving_s=0.0)
    assert camera.frame(same=True, moving_s=0.3) == ''
    assert camera.frame(same=True, moving_s=0.4) == ''
    assert 'frozen' in camera.frame(same=True, moving_s=0.5)


def test_a_frozen_camera_stays_a_fault_until_its_image_changes():
    """The stop that the fault causes must not clear it."""
    camera = Camera()
    camera.frames(5)
    camera.frames(2, same=True)
    assert all('frozen' in one for one in camera.frames(50, same=True, moving_s=0.0))
    assert camera.frames(6, moving_s=0.0)[-1] == ''


def test_the_second_black_image_is_a_fault():
    """A lens cap or a dead sensor; the first image that is not black clears the fault."""
    camera = Camera()
    camera.frames(3)
    first, second = camera.frame(bright=0.0), camera.frame(bright=0.01)
    assert (first, 'black' in second) == ('', True)
    camera.frames(10, bright=0.0)
    faults = camera.frames(7)
    assert faults[-1] == ''


@pytest.mark.parametrize('form', ['32x48 rgb8', '64x48 bgr8'])
def test_another_size_or_encoding_during_a_drive_is_a_fault(form):
    """From the first frame on, with both named; cleared when the old one returns."""
    camera = Camera()
    camera.frames(3)
    expected = camera.frame(form=form)
    assert '64x48 rgb8' in expected
    assert form in expected
    camera.frames(3, form=form)
    assert not camera.frames(8)[-1]


def test_a_new_size_is_accepted_after_a_while():
    """After a change of the camera's settings there is a fault, but no restart is needed."""
    camera = Camera()
    camera.frames(3)
    faults = camera.frames(round(SETTLED_S * 10) + 8, form='32x32 rgb8')
    assert all(faults[: round(SETTLED_S * 10)])
    assert faults[-1] == ''
    assert camera.check.form == '32x32 rgb8'


@pytest.mark.parametrize(
    ('options', 'expected'),
    [
        ({'stamp_ns': 0}, 'invalid image stamp: 0 s and 0 ns; synchronise'),
        ({'stamp_ns': -5 * SECOND}, 'invalid image stamp'),
        ({'nanosec': SECOND}, 'invalid image stamp'),
        ({'nanosec': 2**32 - 1}, 'invalid image stamp'),
        ({'late_ms': -200}, '0.20 s in the future'),
    ],
)
def test_an_invalid_stamp_is_a_fault_at_once(options, expected):
    """No value is computed from it."""
    camera = Camera()
    camera.frames(3)
    assert expected in camera.frame(**options)
    assert not camera.check.usable


def test_the_second_late_image_is_a_fault():
    """A single late image is not."""
    camera = Camera()
    camera.frames(3)
    assert camera.frame(late_ms=350) == ''
    assert camera.frame() == ''
    assert camera.frame(late_ms=900) == ''
    assert '0.90 s old' in camera.frame(late_ms=900)


@pytest.mark.parametrize(
    ('options', 'receipt'),
    [
        ({'stamp_ns': 0}, True),  # no clock
        ({'stamp_ns': EPOCH}, True),  # one that stands still
        ({'late_ms': EPOCH // MS - 90_000}, True),  # since boot
        ({'late_ms': -3_000}, True),  # ahead
        ({'late_ms': 3_000}, False),  # as a late camera, whose delay must not be ignored
        ({'late_ms': 400}, False),
    ],
)
def test_only_a_wrong_clock_is_to_be_replaced_by_receipt(options, receipt):
    """The sentence names the remedy; a camera that may be late must keep its stamps."""
    fault = Camera().frames(5, **options)[-1]
    assert fault
    assert ('camera_time:=receipt' in fault) == receipt, fault
    assert receipt or 'delays the images' in fault


def test_times_of_sending_are_judged_as_stamps_are():
    """With camera_time receipt: a slow link is a fault, and so is not knowing how slow it is."""
    camera = Camera(by_receipt=True)
    assert not any(camera.frames(5, late_ms=290))
    assert 'delays the images' in camera.frames(2, late_ms=400)[-1]
    assert 'receipt' not in camera.frame(late_ms=-3_000)
    assert 'does not report when images were sent' in camera.frame(stamp_ns=0)


def test_the_camera_s_latency_hides_no_clock_that_is_ahead():
    """It makes images older; a sender's clock may be ahead by no more than without it."""
    camera = Camera(by_receipt=True, latency_s=0.2)
    assert not any(camera.frames(5, late_ms=105))  # sent 0.095 s in the future
    assert '0.15 s in the future' in camera.frame(late_ms=50)
    camera = Camera(by_receipt=True, latency_s=0.2)
    assert '0.35 s old' in camera.frames(2, late_ms=350)[-1]


@pytest.mark.parametrize('jump_s', [-10.0, 10.0])
def test_a_camera_whose_clock_jumps_is_a_fault_at_once(jump_s):
    """The jump is named; the wrong stamps after it are faults too."""
    camera = Camera()
    camera.frames(3)
    late = 5 - round(jump_s * 1000)
    assert f'jumped by {jump_s:+.1f} s' in camera.frame(late_ms=late)
    assert all(camera.frames(20, late_ms=late))
    assert not camera.frames(9)[-1]


@pytest.mark.parametrize('jump_s', [-10, 10, 0.5])
def test_a_step_of_the_machine_s_clock_is_a_fault_although_the_stamps_follow_it(jump_s):
    """A camera on this machine uses the same clock, so that no stamp seems wrong."""
    camera = Camera()
    camera.check.tick(EPOCH, 0)
    camera.frames(3)
    camera.check.tick(EPOCH + camera.now, camera.now)
    assert camera.check.fault is None
    step = round(jump_s * SECOND)
    camera.check.tick(EPOCH + camera.now + 50 * MS + step, camera.now + 50 * MS)
    assert f'jumped by {jump_s:+.1f} s' in sentence(camera.check)
    faults = camera.frames(12, step_ns=step)
    assert faults[0]
    assert faults[-1] == ''


@pytest.mark.parametrize('real_time', [True, False])
@pytest.mark.parametrize('jump_s', [-10, 10])
def test_a_step_of_the_node_s_clock_is_not_attributed_to_the_camera(jump_s, real_time):
    """It names the node's clock and the sign, though the camera's stamps did not follow."""
    check, steady, step = CameraCheck(10.0, real_time=real_time), 0, 0

    def tick():
        check.tick(EPOCH + steady + step, steady)

    def image():
        ros = EPOCH + steady + step
        sec, rest = divmod(EPOCH + steady - 5 * MS, SECOND)
        check.message(FrameHeader(sec, rest, ros, steady if real_time else ros, '64x48 rgb8'))

    for _ in range(10):
        steady += 50 * MS
        tick()
        image()
    assert check.fault is None
    steady += 20 * MS
    step = jump_s * SECOND
    for act in (tick, image) * 6:
        act()
        steady += 20 * MS
        assert f'clock jumped by {jump_s:+.1f} s' in sentence(check)
        assert 'camera' not in sentence(check)


def test_a_simulation_may_be_slow_fast_or_not_started():
    """Only a jump is a fault: backwards (after a reset) or far ahead."""
    check = CameraCheck(10.0, real_time=False)
    ros, steady = 0, 0
    for speed in (0.0, 0.0, 700.0, 5.0, 0.1, 0.0, 1.0):
        check.tick(ros, steady)
        ros, steady = ros + round(speed * 50 * MS), steady + 50 * MS
    check.tick(ros, steady)
    assert check.fault is None
    check.tick(ros - SECOND, steady + 50 * MS)
    assert 'jumped by -1.0 s' in sentence(check)
    check = CameraCheck(10.0, real_time=False)
    check.tick(ros, steady)
    check.tick(ros + 10 * SECOND, steady + 50 * MS)
    assert 'jumped by +10.0 s' in sentence(check)


def test_a_silent_camera_is_a_fault():
    """After half a second, or three periods of a slow policy."""
    for policy_hz, silent_ms in ((10.0, 500), (2.0, 1500)):
        camera = Camera(policy_hz=policy_hz)
        camera.frames(3)
        camera.check.tick(EPOCH + camera.now + silent_ms * MS, camera.now + silent_ms * MS)
        assert camera.check.fault is None
        later = camera.now + (silent_ms + 10) * MS
        camera.check.tick(EPOCH + later, later)
        assert 'silent' in sentence(camera.check)


def test_a_fault_lasts_long_enough_to_be_received():
    """A shorter one could be lost between two health messages."""
    camera = Camera()
    camera.frames(3)
    camera.frame(stamp_ns=0)
    faults = camera.frames(10)
    assert sum(bool(one) for one in faults) in (
        round(MIN_FAULT_S * 10) - 1,
        round(MIN_FAULT_S * 10),
    )


def test_the_rate_falls_as_soon_as_the_camera_stops():
    """A second of silence lowers the rate of a 10 Hz camera."""
    camera = Camera()
    camera.frames(30)
    assert camera.check.rate_hz(camera.now) == pytest.approx(10.0)
    assert camera.check.rate_hz(camera.now + SECOND) == pytest.approx(5.0, abs=0.6)
    assert camera.check.rate_hz(camera.now + 5 * SECOND) == 0.0


def test_lateness_is_the_range_over_the_last_seconds():
    """Minimum and maximum over five seconds."""
    camera = Camera()
    assert camera.check.lateness(0) is None
    camera.frame(late_ms=90)
    camera.frame(late_ms=-50)
    camera.frames(20, late_ms=20)
    assert camera.check.lateness(camera.now) == (pytest.approx(-0.05), pytest.approx(0.09))
    camera.frames(45, late_ms=20)
    assert camera.check.lateness(camera.now) == (pytest.approx(0.02), pytest.approx(0.02))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 800),
            st.integers(-300, 900),
            st.booleans(),
            st.sampled_from([0.0, 0.5]),
            st.sampled_from(['a', 'b']),
            st.sampled_from([0.0, 9.0]),
        ),
        max_size=60,
    )
)
def test_a_usable_image_never_has_a_fault(events):
    """Random streams raise no exception, and a frame is usable only without a fault."""
    camera = Camera()
    for gap_ms, late_ms, same, bright, form, moving_s in events:
        camera.now += gap_ms * MS
        camera.frame(late_ms=late_ms, same=same, bright=bright, form=form, moving_s=moving_s)
        assert not (camera.check.usable and camera.check.fault)
        if camera.check.usable:
            assert late_ms >= -100


def test_the_hash_changes_with_the_image():
    """Equal for equal bytes; different for a shifted image, and for one byte of a small one."""
    rng = np.random.default_rng(0)
    large = rng.integers(0, 256, (720, 1280, 3), dtype=np.uint8)
    assert content_hash(large.tobytes()) == content_hash(bytearray(large.tobytes()))
    assert content_hash(large.tobytes()) != content_hash(np.roll(large, 1, axis=1).tobytes())
    small = bytearray(1000)
    before = content_hash(small)
    small[777] = 1
    assert content_hash(small) != before


def test_brightness_is_the_mean_luma():
    """0 for black, 1 for white; green has the largest weight."""
    assert brightness(np.zeros((48, 64, 3), np.uint8)) == 0
    assert brightness(np.full((720, 1280, 3), 255, np.uint8)) == pytest.approx(1)
    green = np.zeros((9, 9, 3), np.uint8)
    green[..., 1] = 255
    assert brightness(green) == pytest.approx(0.587)


@pytest.mark.parametrize(('one', 'other'), [(1, 1), (1, 2), (2, 1), (7, 500), (500, 7)])
def test_two_cameras_on_one_topic_are_a_fault_and_a_restarted_one_is_not(one, other):
    """A window would mix their images, whose sizes and times do not differ."""
    camera = Camera(rate_hz=20.0)
    assert not any(camera.frame(sequence=one + number) for number in range(-9, 0))
    turns = [
        camera.frame(sequence=first + number) for number in range(3) for first in (one, other)
    ]
    assert 'more than one camera' in turns[-1]
    assert not camera.check.usable
    alone = [camera.frame(sequence=one + 9 + number) for number in range(60)]
    assert alone[-1] == ''
    assert not any(camera.frame(sequence=number) for number in range(20))

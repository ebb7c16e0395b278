"""The recorder's monitor of its camera: rate, losses and clock, without ROS."""

from array import array
from types import SimpleNamespace

import numpy as np
import pytest

from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.nodes.recorder.camera import CameraMonitor, clock_sentence
from mobile_vla_ros.nodes.recorder.open_episode import kind
from mobile_vla_ros.nodes.shared.topics import MessageCount

MS = 1_000_000
S = 1000 * MS


def watch(times_ms, *, stamps_ms=None, one=None, sequence=None):
    """Feed frames received at these times; learn as often as a status is published."""
    one = one or CameraMonitor()
    for k, (time, stamp) in enumerate(zip(times_ms, stamps_ms or times_ms, strict=True)):
        one.frame(time * MS, stamp * MS, time * MS, None if sequence is None else sequence + k)
        if k % 5 == 0:
            one.learn(time * MS)
    return one


def test_the_rate_is_learned_from_the_best_whole_span():
    """A camera that slows down is still expected at its former rate."""
    one = watch(range(0, 3000, 50))
    assert one.expected_hz == pytest.approx(20, rel=0.02)
    watch(range(3000, 8000, 100), one=one)
    assert one.expected_hz == pytest.approx(20, rel=0.02)
    assert one.rate_hz(8 * S) == pytest.approx(10, rel=0.1)


def test_no_rate_is_expected_before_a_whole_span():
    """A few frames give no rate; a configured rate is used at once."""
    assert watch(range(0, 1500, 50)).expected_hz is None
    assert CameraMonitor(30.0).expected_hz == 30


def test_a_burst_of_delayed_frames_does_not_raise_the_rate():
    """Half a second of delay, then delivery at once: the stamps show the true rate."""
    stamps = list(range(0, 6000, 50))
    times = [2500 if 2000 <= stamp <= 2500 else stamp for stamp in stamps]
    assert watch(times, stamps_ms=stamps).expected_hz == pytest.approx(20, rel=0.02)


def test_lost_frames_are_counted_by_sequence_numbers():
    """A gap is a loss; a restart is another publisher."""
    one = CameraMonitor()
    one.published_by('a', 1)
    counts = [1, 2, 5, 6, 1, 2]
    lost = [one.frame(k * 50 * MS, 0, k * 50 * MS, count) for k, count in enumerate(counts)]
    assert lost == [0, 0, 2, 0, 0, 0] and one.counted


def test_losses_of_two_cameras_on_one_topic_are_not_counted():
    """Messages do not name their publisher."""
    one = CameraMonitor()
    one.published_by('ab', 2)
    counts = [1, 100, 2, 101, 3]
    assert [one.frame(k * MS, 0, 0, count) for k, count in enumerate(counts)] == [0] * 5


def test_a_second_publisher_is_no_loss_before_the_graph_shows_it():
    """Two alternating counts are two publishers; once only one is left, gaps count."""
    one = MessageCount()
    one.published_by('a', 1)
    assert [one.missing(count) for count in (200, 1, 201, 2, 202, 3, 203)] == [0] * 7
    one.published_by('ab', 2)
    one.published_by('a', 1)
    assert [one.missing(count) for count in (204, 207)] == [0, 2]


def test_another_camera_has_another_rate():
    """A new camera resets the expected rate."""
    one = watch(range(0, 3000, 50))
    one.published_by('b', 1)
    assert one.expected_hz is None


def test_a_silent_camera_is_not_fresh():
    """After a second without a frame, the camera is silent."""
    one = watch([0, 50])
    assert one.fresh(900 * MS) and not one.fresh(1100 * MS)
    assert CameraMonitor().fresh(0) is False and CameraMonitor().rate_hz(0) == 0


def test_the_clock_is_judged_over_seconds():
    """One late frame is no fault of the clock; a wrong clock is."""
    assert CameraMonitor().clock().kind == 'sane'
    late = watch([700, 750, 800], stamps_ms=[0, 750, 800])
    assert late.clock().kind == 'sane'
    times = list(range(10_000, 14_000, 50))
    assert watch(times, stamps_ms=[time - 700 for time in times]).clock().kind == 'apart'
    assert watch(times, stamps_ms=[0] * len(times)).clock().kind == 'zero'


def test_the_kind_of_a_message_is_its_size_and_encoding():
    """Raw messages have both as fields, compressed ones in the image's header."""
    raw = SimpleNamespace(width=640, height=480, encoding='bgr8', data=b'')
    assert kind(raw) == '640x480 bgr8'
    jpeg = encode(np.zeros((12, 16, 3), np.uint8))
    assert kind(SimpleNamespace(format='jpeg', data=array('B', jpeg))) == '16x12 JPEG'
    assert kind(SimpleNamespace(format='jpeg', data=array('B', b'nothing'))) == 'a broken image'


def test_an_image_of_absurd_size_is_broken():
    """A header with 65535x65535 pixels, which Pillow refuses, does not end the recorder."""
    jpeg = bytearray(encode(np.zeros((12, 16, 3), np.uint8)))
    size = jpeg.index(b'\xff\xc0') + 5
    jpeg[size : size + 4] = b'\xff' * 4
    assert kind(SimpleNamespace(format='jpeg', data=array('B', jpeg))) == 'a broken image'


def test_without_times_of_sending_the_middleware_is_named():
    """With camera_time receipt, stamps of zero are not the camera's."""
    found = watch([0, 50, 100], stamps_ms=[0, 0, 0]).clock()
    assert found.kind == 'zero'
    sentence = clock_sentence(found, by_receipt=True)
    assert 'does not report when images were sent' in sentence and 'rmw_fastrtps_cpp' in sentence
    assert 'chrony' not in sentence and 'camera clock' not in sentence
    sentence = clock_sentence(found, by_receipt=False)
    assert 'stands at zero' in sentence and 'camera_time:=receipt' in sentence

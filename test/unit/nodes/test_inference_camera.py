"""Inference's checks of camera messages before they reach the policy."""

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.images.compressed import encode
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.runtime.camera_check import CameraCheck

SECOND = 1_000_000_000


class Gate:
    """A gate, with a guard that reports a moving base, and a camera of noise."""

    def __init__(self, transport: str):
        self.gate = CameraGate(
            CameraCheck(10.0), SimpleNamespace(moving_s=9.0), 56, real_time=True
        )
        self.transport = transport
        self.now = 5 * SECOND
        self.rng = np.random.default_rng(0)

    def image(self, pixels=None):
        """Return an image as a message."""
        if pixels is None:
            pixels = self.rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        if self.transport == 'raw':
            return from_rgb(pixels)
        return to_compressed(encode(pixels, self.transport))

    def give(self, message):
        """Pass a message after a period; return the accepted frame and the fault."""
        self.now += SECOND // 10
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.now, SECOND)
        return self.gate.pass_on(message, self.now, self.now), self.fault

    @property
    def fault(self) -> str:
        """The camera fault's sentence, or ''."""
        fault = self.gate.check.fault
        return '' if fault is None else fault.sentence


@pytest.mark.parametrize('transport', ['raw', 'jpeg', 'png'])
def test_frozen_and_black_images_are_detected_in_every_kind_of_message(transport):
    """By their bytes and by their pixels."""
    gate = Gate(transport)
    for _ in range(4):
        frame, fault = gate.give(gate.image())
        assert fault == ''
        assert frame.image.shape[2] == 3
    last = gate.image()
    gate.give(last)
    assert gate.give(last)[1] == ''
    frame, fault = gate.give(last)
    assert frame is None
    assert 'frozen' in fault
    gate = Gate(transport)
    black = np.zeros((120, 160, 3), np.uint8)
    assert gate.give(gate.image(black)) == (None, '')  # a single one is withheld, but is no fault
    black[0, 0] = 1
    assert 'black' in gate.give(gate.image(black))[1]


@pytest.mark.parametrize(
    ('message', 'reason'),
    [
        (CompressedImage(format='jpeg', data=b'\xff\xd8\xff\xe0 broken'), 'broken'),
        (CompressedImage(format='h264', data=b'\x00\x00\x01'), 'unknown format'),
        (CompressedImage(format='jpeg', data=b''), 'unknown format'),
        (Image(width=9, height=9, encoding='rgb8', step=27, data=b'abc'), 'does not fit its data'),
        (Image(width=9, height=9, encoding='smoke', step=27, data=bytes(243)), 'unknown encoding'),
    ],
)
def test_an_unreadable_image_is_a_fault_at_once(message, reason):
    """The sentence names the reason; such a camera does not count as silent."""
    gate = Gate('raw')
    for _ in range(20):
        frame, fault = gate.give(message)
        assert frame is None
        assert reason in fault
        gate.gate.check.tick(gate.now, gate.now)
        assert gate.fault == fault
    assert gate.gate.check.rate_hz(gate.now) == pytest.approx(10.0)


def test_another_size_or_encoding_is_detected_without_decoding():
    """The size of a JPEG is that of the file, not of its reduced decoding."""
    gate = Gate('jpeg')
    gate.give(gate.image())
    large = gate.image(np.full((480, 640, 3), 99, np.uint8))
    assert 'from 160x120 jpeg to 640x480 jpeg' in gate.give(large)[1]


def test_a_stuck_driver_is_a_fault_also_without_stamps():
    """By receipt, an image that is sent again has a new time; its content gives it away."""
    gate = Gate('raw')
    image = gate.image()

    def again(message):
        gate.now += SECOND // 10
        frame = gate.gate.pass_on(message, gate.now, gate.now, None, gate.now - SECOND // 20)
        return frame, gate.fault

    for _ in range(4):
        frame, fault = again(gate.image())
        assert (frame.stamp_ns, fault) == (gate.now - SECOND // 20, '')
    assert [again(image)[1] for _ in range(2)] == ['', '']
    frame, fault = again(image)
    assert frame is None and 'frozen' in fault

"""What inference makes of a camera message, before the policy sees it."""

from types import SimpleNamespace

import numpy as np
import pytest
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.images.messages import encode
from mobile_vla_ros.nodes.inference.camera import CameraGate
from mobile_vla_ros.nodes.shared.image_messages import from_rgb, to_compressed
from mobile_vla_ros.runtime.camera_check import CameraCheck

SECOND = 1_000_000_000


class Gate:
    """A gate whose guard says that the base moves, and a camera of noise in front of it."""

    def __init__(self, transport: str):
        self.gate = CameraGate(
            CameraCheck(10.0), SimpleNamespace(moving_s=9.0), 56, real_time=True
        )
        self.transport = transport
        self.now = 5 * SECOND
        self.rng = np.random.default_rng(0)

    def image(self, pixels=None):
        """A picture as a message."""
        if pixels is None:
            pixels = self.rng.integers(0, 256, (120, 160, 3), dtype=np.uint8)
        if self.transport == 'raw':
            return from_rgb(pixels)
        return to_compressed(encode(pixels, self.transport))

    def take(self, message):
        """Give it a message a period later; return the frame that goes on and the fault."""
        self.now += SECOND // 10
        message.header.stamp.sec, message.header.stamp.nanosec = divmod(self.now, SECOND)
        return self.gate.pass_on(message, self.now, self.now), self.gate.check.fault


@pytest.mark.parametrize('transport', ['raw', 'jpeg', 'png'])
def test_frozen_and_black_pictures_are_seen_in_every_kind_of_message(transport):
    """By the bytes that came, and by what they show."""
    gate = Gate(transport)
    for _ in range(4):
        shot, fault = gate.take(gate.image())
        assert fault == ''
        assert shot.image.shape[2] == 3
    last = gate.image()
    gate.take(last)
    assert gate.take(last)[1] == ''
    shot, fault = gate.take(last)
    assert shot is None
    assert 'frozen' in fault
    gate = Gate(transport)
    black = np.zeros((120, 160, 3), np.uint8)
    assert gate.take(gate.image(black)) == (None, '')  # one of them is not driven by, no more
    black[0, 0] = 1
    assert 'black' in gate.take(gate.image(black))[1]


@pytest.mark.parametrize(
    ('message', 'said'),
    [
        (CompressedImage(format='jpeg', data=b'\xff\xd8\xff\xe0 broken'), 'broken'),
        (CompressedImage(format='h264', data=b'\x00\x00\x01'), 'unknown kind'),
        (CompressedImage(format='jpeg', data=b''), 'unknown kind'),
        (Image(width=9, height=9, encoding='rgb8', step=27, data=b'abc'), 'does not fit its data'),
        (Image(width=9, height=9, encoding='smoke', step=27, data=bytes(243)), 'unknown encoding'),
    ],
)
def test_what_is_no_picture_is_a_fault_at_once(message, said):
    """With what is wrong in words, and nothing else: such a camera is not silent."""
    gate = Gate('raw')
    for _ in range(20):
        shot, fault = gate.take(message)
        assert shot is None
        assert said in fault
        gate.gate.check.tick(gate.now, gate.now)
        assert gate.gate.check.fault == fault
    assert gate.gate.check.rate_hz(gate.now) == pytest.approx(10.0)


def test_another_size_or_encoding_is_seen_before_anything_is_decoded():
    """Of a JPEG it is the picture's own, not a reduced one's."""
    gate = Gate('jpeg')
    gate.take(gate.image())
    large = gate.image(np.full((480, 640, 3), 99, np.uint8))
    assert 'from 160x120 jpeg to 640x480 jpeg' in gate.take(large)[1]

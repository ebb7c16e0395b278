"""What times a frame: its stamp, or its receipt minus its transport."""

import pytest
from builtin_interfaces.msg import Time

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.camera_time import CameraTime

SENT = {'source_timestamp': 5_000_000_000, 'received_timestamp': 5_200_000_000}


def test_a_frame_is_timed_by_its_stamp_or_by_its_sending():
    """The transport and the camera's own latency make it older; unknown, it has no time."""
    stamp = Time(sec=3, nanosec=7)
    assert CameraTime().frame_ns(stamp, SENT) == 3_000_000_007
    assert CameraTime('receipt').frame_ns(stamp, SENT) == 5_000_000_000
    assert CameraTime('receipt', 0.25).frame_ns(stamp, SENT) == 4_750_000_000
    for unknown in (0, -1):
        assert CameraTime('receipt', 0.25).frame_ns(stamp, {'source_timestamp': unknown}) == 0


def test_a_latency_that_would_be_ignored_is_refused():
    """A camera with a clock has it in its stamps."""
    with pytest.raises(UserError, match='camera_latency_s'):
        CameraTime('stamp', 0.5)

"""The report of a policy, as the guard reads it."""

import time

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.serialization import serialize_message

from mobile_vla_ros.nodes.shared.guard_status import MAX_REPORT_BYTES, policy_report
from mobile_vla_ros.safety.status import Unusable


@pytest.mark.parametrize(
    'statuses',
    [
        [DiagnosticStatus(name='x' * MAX_REPORT_BYTES)],
        [DiagnosticStatus(name='check/camera', message='x' * 1000)] * 100,
        [DiagnosticStatus()] * 50_000,
    ],
    ids=['a text', 'checks', 'statuses'],
)
def test_a_large_report_costs_nothing(statuses):
    """It is refused before it is decoded: the guard must go on deciding."""
    data = serialize_message(DiagnosticArray(status=statuses))
    began_s = time.process_time()
    with pytest.raises(Unusable, match='bytes'):
        policy_report(data)
    assert time.process_time() - began_s < 0.01


def test_a_report_without_a_status_is_none():
    """It is not even OK."""
    assert policy_report(serialize_message(DiagnosticArray())) is None


def test_bytes_that_are_no_report_are_unusable():
    """Whoever sends them must not end the guard."""
    data = serialize_message(DiagnosticArray(status=[DiagnosticStatus(name='policy')]))
    for garbled in (b'', data[:4], data[:-1], data[:16], data[:12] + b'\xff' * 12, b'\xff' * 64):
        with pytest.raises(Unusable, match='decoded'):
            policy_report(garbled)

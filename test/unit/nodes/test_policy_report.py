"""The report of a policy, as the guard reads it."""

import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus

from mobile_vla_ros.nodes.shared.guard_status import policy_report
from mobile_vla_ros.safety.status import Unusable


@pytest.mark.parametrize(
    'status',
    [
        DiagnosticStatus(name='check/camera', message='x' * 100_000),
        DiagnosticStatus(name='x' * 100_000),
    ],
    ids=['sentences', 'names'],
)
def test_the_checks_of_a_report_are_bounded_together(status):
    """Each text is short enough, and all of them would be kept."""
    with pytest.raises(Unusable, match='characters'):
        policy_report(DiagnosticArray(status=[DiagnosticStatus(name='policy'), *[status] * 900]))

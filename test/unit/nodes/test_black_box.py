"""Which reports of the guard make a black box an episode."""

import pytest

from mobile_vla_ros.nodes.recorder.black_box import Triggers
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason

DRIVING = GuardStatus(State.DRIVING, True, 'policy')
OFF = GuardStatus(State.DISARMED, False)
DRIVEN = GuardStatus(State.TELEOP, True, 'teleop')


def stopped(state, armed=False, reason=StopReason.POLICY_SILENT):
    return GuardStatus(state, armed, stop_reason=reason, sentence='inference is silent')


@pytest.mark.parametrize(
    ('reports', 'found'),
    [
        ([DRIVING, stopped(State.FAULT), stopped(State.DISARMED)], ['fault: inference is silent']),
        ([DRIVING, stopped(State.DISARMED)], ['fault: inference is silent']),  # one report lost
        ([DRIVING, stopped(State.FAULT, True), DRIVING], ['fault: inference is silent']),
        ([DRIVING, stopped(State.DISARMED, reason=StopReason.DISARMED)], []),
        ([DRIVING, GuardStatus(State.TELEOP, True, 'takeover')], ['takeover: a person drives']),
        ([DRIVING, DRIVEN, DRIVING], []),
        ([OFF, GuardStatus(State.ESTOP, False, sentence='pressed')], ['e-stop: pressed']),
        ([stopped(State.FAULT)], []),  # from before this recorder
        ([OFF, DRIVING, GuardStatus(State.WAITING, True), DRIVING], []),
    ],
)
def test_faults_emergency_stops_and_takeovers_are_triggers_once(reports, found):
    """A person's own disarming is none, and each is reported when it begins."""
    triggers = Triggers()
    assert [why for report in reports if (why := triggers.due(report))] == found

"""Which reports of the guard make a black box an episode."""

from types import SimpleNamespace

import pytest

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.black_box import BlackBox, Triggers
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


@pytest.mark.parametrize(
    ('ring_s', 'remedy'), [(0.0, 'ring_s of the recorder'), (30.0, 'tart the camera')]
)
def test_without_images_nothing_can_be_kept(ring_s, remedy):
    """The sentence says what to do."""
    box = BlackBox(SimpleNamespace(ring_s=ring_s), None, lambda: None)
    with pytest.raises(UserError, match=remedy):
        box.keep(EpisodeInfo('go'), lambda: None)
    assert box.settle() == [] and box.values()['black_box_s'] == '0.0'

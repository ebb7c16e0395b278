"""What guard and policy report: values survive the message, and no sentence is parsed."""

import ast
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mobile_vla_ros.drill.catalog import FAULTS
from mobile_vla_ros.runtime.camera_check import CLOCK_RELATED, CONTENT_RELATED
from mobile_vla_ros.safety import guard
from mobile_vla_ros.safety.status import (
    GuardStatus,
    Health,
    Level,
    PolicyStatus,
    State,
    StopReason,
    Unusable,
    bounded,
    counts,
)

PACKAGE = Path(guard.__file__).parent.parent
speeds = st.floats(-9, 9).map(lambda value: round(value, 3))


@given(
    st.sampled_from(list(State)),
    st.booleans(),
    st.sampled_from(['none', 'policy', 'teleop', 'takeover']),
    st.sampled_from(list(StopReason)),
    st.text(),
    st.tuples(speeds, speeds, speeds),
    st.booleans(),
    st.lists(st.sampled_from(['clock_skew', 'inference', StopReason.ESTOP.value])),
)
def test_a_guard_status_survives_the_message(
    state, armed, source, reason, sentence, speed, dry_run, refused
):
    """Through the text values of a message."""
    twist = np.zeros(6)
    twist[[0, 1, 5]] = speed
    sent = GuardStatus(
        state, armed, source, reason, sentence, twist, 0.125, dry_run, tuple(refused)
    )
    got = GuardStatus.parse(state.value, sent.values())
    np.testing.assert_array_equal(got.twist, twist)
    assert {**vars(got), 'twist': None} == {**vars(sent), 'twist': None}


@pytest.mark.parametrize(
    ('state', 'changes'),
    [
        ('driving', {'armed': None}),
        ('driving', {'armed': 'yes'}),
        ('flying', {}),
        ('', {}),
    ],
)
def test_a_status_without_state_or_armed_is_none(state, changes):
    """A missing key once made the console arm a guard that its screen called armed."""
    values = {**GuardStatus(State.DRIVING, armed=True).values(), **changes}
    values = {key: value for key, value in values.items() if value is not None}
    assert GuardStatus.parse(state, values) is None


def test_a_status_of_another_version_is_parsed_as_far_as_possible():
    """Without a stop reason, with an unknown one, with NaN as a speed."""
    values = {'armed': 'true', 'stop_reason': 'from the future', 'linear_x': 'nan'}
    got = GuardStatus.parse('waiting', values)
    assert (got.stop_reason, got.armed, got.twist.any()) == (StopReason.OTHER, True, False)
    assert GuardStatus.parse('waiting', {'armed': 'false'}).stop_reason == StopReason.OTHER
    assert math.isnan(got.age_s)


@pytest.mark.parametrize('axes', [None, (), ('linear_x',), ('linear_x', 'angular_z')])
@pytest.mark.parametrize(
    'health',
    [
        Health.ok(),
        Health.hold(StopReason.NO_IMAGE, 'no image yet'),
        Health.fault(StopReason.CAMERA_FROZEN, 'the camera is frozen'),
    ],
)
def test_a_policy_status_survives_the_message(health, axes):
    """Its level and its sentence are the message's own."""
    sent = PolicyStatus(health, axes)
    assert PolicyStatus.parse(health.level, health.sentence, sent.values()) == sent


@pytest.mark.parametrize(
    ('level', 'wanted'), [(0, Level.OK), (1, Level.HOLD), (2, Level.FAULT), (3, Level.FAULT)]
)
def test_a_foreign_policy_node_holds_or_stops_by_its_level(level, wanted):
    """Its reason and axes are unknown, and it still stops."""
    got = PolicyStatus.parse(level, '', {})
    assert (got.health.level, got.axes) == (wanted, None)
    if wanted != Level.OK:
        assert got.health.stop_reason == StopReason.OTHER
        assert got.health.sentence


def test_every_reason_that_the_guard_finds_has_a_sentence():
    """Except those that have a sentence of their own."""
    by_itself = {
        node.attr
        for node in ast.walk(ast.parse(Path(guard.__file__).read_text()))
        if isinstance(node, ast.Attribute) and getattr(node.value, 'id', '') == 'StopReason'
    }
    own = {'NONE', 'STALLED'}
    assert by_itself - own == {reason.name for reason in guard.SENTENCES}


def test_the_drill_and_the_camera_use_known_reasons():
    """Members of the enums, or a source."""
    for fault in FAULTS:
        for one in fault.because:
            assert isinstance(one, StopReason | State) or one == 'takeover'
    assert all(isinstance(one, StopReason) for one in (*CLOCK_RELATED, *CONTENT_RELATED))


@pytest.mark.parametrize(
    ('sentence', 'pairs'),
    [
        ('', [(str(index), '') for index in range(100_000)]),
        ('', [('', '')] * 60_000),
        ('', [('reason', 'x' * 10_000_000)]),
        ('', [('x' * 10_000_000, '')]),
        ('x' * 10_000_000, []),
    ],
)
def test_a_status_of_any_size_is_refused(sentence, pairs):
    """Many values, also of one key, a long one, a long key, a long sentence."""
    with pytest.raises(Unusable, match='it has more than'):
        bounded(sentence, pairs)
    assert bounded('stands', [('armed', 'true')]) == {'armed': 'true'}


def test_counts_are_whole_numbers_by_name():
    """Nothing else is read, however deep or large (``test_console_status``)."""
    assert counts('{"go": 3}') == {'go': 3} and counts('') == {}
    with pytest.raises(Unusable, match='whole numbers'):
        counts('{"go": NaN}')
    with pytest.raises(Unusable, match='not JSON'):
        counts('[' * 100_000)

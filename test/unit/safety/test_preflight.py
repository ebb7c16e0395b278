"""The checks before arming: what is green, what is red, and what to do about it."""

import pytest

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.safety import preflight, strafing
from mobile_vla_ros.safety.preflight import TWIST, TWIST_STAMPED, Check, Endpoint

GUARD = Endpoint('guard', '/r1', TWIST)
BASE = Endpoint('base', '/r1', TWIST)
STAMPED_BASE = Endpoint('base', '/r1', TWIST_STAMPED)
RECORDER = Endpoint('recorder', '/r1', TWIST)
SMOOTHER = Endpoint('velocity_smoother', '/r1', TWIST)
OPEN = {
    'max_velocity': [0.5, 0.5, 2.5],
    'min_velocity': [-0.5, -0.5, -2.5],
    'max_accel': [2.5, 2.5, 3.2],
    'max_decel': [-2.5, -2.5, -3.2],
}
TOPIC = '/r1/cmd_vel'


def test_a_line_has_the_remedy_only_when_it_is_red():
    """The format of the service's response, which programs may parse."""
    assert Check('a', True, 'all is well', 'mend it').line == 'green a: all is well'
    assert Check('a', False, 'it is broken', 'mend it').line == 'red a: it is broken; mend it'
    assert Check('a', False, 'it is broken').line == 'red a: it is broken'


def test_another_publisher_of_commands_is_named():
    """The base would follow the guard and the other in turn."""
    nav = Endpoint('controller_server', '/', TWIST)
    check = preflight.check_rivals(TOPIC, [GUARD, nav], '/r1/guard', publishes=True)
    assert not check.ok
    assert '/controller_server publishes /r1/cmd_vel too' in check.sentence
    assert preflight.check_rivals(TOPIC, [GUARD], '/r1/guard', publishes=True).ok


def test_a_second_guard_of_the_same_name_is_a_rival():
    """Two launches at once have two nodes /r1/guard."""
    check = preflight.check_rivals(TOPIC, [GUARD, GUARD], '/r1/guard', publishes=True)
    assert not check.ok
    assert 'another /r1/guard publishes' in check.sentence
    assert not preflight.check_rivals(TOPIC, [GUARD], '/r1/guard', publishes=False).ok


@pytest.mark.parametrize(
    'name',
    [
        'recorder',
        'shadow',
        'rosbag2_recorder',
        '_ros2cli_1234',
        'foxglove_bridge',
        'rqt_gui_py_node_7',
        'rviz2',
    ],
)
def test_a_watcher_is_not_a_base(name):
    """A recorder subscribes to commands and moves no wheel."""
    check = preflight.check_listeners(TOPIC, [Endpoint(name, '/', TWIST)])
    assert not check.ok
    assert check.remedy
    both = preflight.check_listeners(TOPIC, [Endpoint(name, '/', TWIST), BASE])
    assert both.ok
    assert '/r1/base' in both.sentence
    assert name not in both.sentence


def test_a_publisher_of_another_type_is_named():
    """A joystick that publishes TwistStamped could not take over, without any warning."""
    joystick = Endpoint('teleop_twist_joy', '/', TWIST_STAMPED)
    well = preflight.Input('/teleop/cmd_vel', TWIST, [Endpoint('teleop', '/', TWIST)])
    assert preflight.check_inputs([well]).ok
    check = preflight.check_inputs([well, preflight.Input('/teleop/cmd_vel', TWIST, [joystick])])
    assert not check.ok
    assert 'subscribes to /teleop/cmd_vel as Twist, and /teleop_twist_joy' in check.sentence
    assert check.remedy


def test_only_one_policy_may_publish_but_several_teleops():
    """The guard would follow both policies in turn; of teleop the newest command counts."""
    two = [Endpoint('inference', '/', TWIST_STAMPED), Endpoint('other', '/', TWIST_STAMPED)]
    policies = preflight.Input('/policy/cmd_vel', TWIST_STAMPED, two, alone=True)
    check = preflight.check_inputs([policies])
    assert not check.ok
    assert '/inference and /other' in check.sentence
    assert preflight.check_inputs([policies._replace(publishers=two[:1])]).ok
    assert preflight.check_inputs([policies._replace(alone=False)]).ok


def test_two_buttons_on_one_estop_are_red():
    """The last message wins: one that repeats "not pressed" cancels the other."""
    button, other = (Endpoint(name, '/', preflight.BOOL) for name in ('button', 'remote'))
    estop = preflight.Input('/estop', 'std_msgs/msg/Bool', [button])
    assert preflight.check_estop(estop).ok
    assert preflight.check_estop(estop._replace(publishers=[])).ok
    check = preflight.check_estop(estop._replace(publishers=[button, other]))
    assert not check.ok
    assert '/button and /remote' in check.sentence
    assert 'merge them' in check.remedy
    # Two launches of the same button are two buttons.
    assert not preflight.check_estop(estop._replace(publishers=[button, button])).ok


def test_a_guard_that_arms_itself_may_only_move_the_arena():
    """A recorder may subscribe; a base or an unknown node may not."""
    arena = Endpoint('sim', '/r1', TWIST)
    assert preflight.check_arm_at_start(TOPIC, [arena, RECORDER]).ok
    check = preflight.check_arm_at_start(TOPIC, [arena, STAMPED_BASE])
    assert not check.ok
    assert '/r1/base subscribes to /r1/cmd_vel besides the arena' in check.sentence
    assert 'ROS_DOMAIN_ID' in check.remedy
    nameless = Endpoint(preflight.NO_NAME_YET, '/', TWIST)
    assert not preflight.check_arm_at_start(TOPIC, [nameless]).ok


def test_a_base_that_expects_the_other_type_is_named():
    """Twist and TwistStamped on one topic do not connect."""
    assert preflight.check_cmd_vel_type(TOPIC, [BASE], TWIST).ok
    check = preflight.check_cmd_vel_type(TOPIC, [STAMPED_BASE, RECORDER], TWIST)
    assert not check.ok
    assert '/r1/base expects TwistStamped' in check.sentence
    assert 'cmd_vel_type' in check.remedy


def test_bases_of_both_types_cannot_both_be_served():
    """With either type one of them receives nothing."""
    for published in (TWIST, TWIST_STAMPED):
        check = preflight.check_cmd_vel_type(TOPIC, [SMOOTHER, STAMPED_BASE], published)
        assert not check.ok
        assert 'remap' in check.remedy


def test_a_subscriber_of_another_kind_is_red():
    """A topic of that name which carries no commands is a wrong remapping."""
    check = preflight.check_cmd_vel_type(TOPIC, [Endpoint('x', '/', 'std_msgs/msg/String')], TWIST)
    assert not check.ok
    assert 'remappings' in check.remedy


@pytest.mark.parametrize(
    ('found', 'wanted'),
    [
        ([], TWIST),
        ([BASE], TWIST),
        ([STAMPED_BASE], TWIST_STAMPED),
        ([RECORDER], TWIST),
        ([RECORDER, STAMPED_BASE], TWIST_STAMPED),
        ([BASE, SMOOTHER], TWIST),
        ([SMOOTHER, STAMPED_BASE], TWIST),
    ],
)
def test_the_type_follows_the_possible_bases(found, wanted):
    """The recorder follows the guard's type and must not determine it."""
    assert preflight.select_cmd_vel_type(found) == wanted


def test_a_smoother_that_passes_y_is_green():
    """All four of its parameters have a y other than zero."""
    check = strafing.check_linear_y([BASE, SMOOTHER], True, {'/r1/velocity_smoother': OPEN})
    assert check.ok


@pytest.mark.parametrize('name', sorted(OPEN))
@pytest.mark.parametrize('y', [0.0, None])
def test_a_smoother_that_makes_y_zero_is_red_and_the_parameter_is_named(name, y):
    """By default it does so without a warning, and the base never strafes."""
    shut = {**OPEN, name: [0.5] if y is None else [0.5, y, 2.5]}
    check = strafing.check_linear_y([SMOOTHER], True, {'/r1/velocity_smoother': shut})
    assert not check.ok
    assert f'set y of {name} there' in check.remedy


def test_a_smoother_that_does_not_answer_is_red():
    """An unknown value does not count as good."""
    check = strafing.check_linear_y([SMOOTHER], True, {'/r1/velocity_smoother': None})
    assert not check.ok
    assert 'does not report' in check.sentence


@pytest.mark.parametrize('name', ['diff_drive_controller', 'ackermann_steering_controller'])
def test_a_controller_of_a_base_that_cannot_strafe_is_red(name):
    """It accepts the message and drops y."""
    check = strafing.check_linear_y([Endpoint(name, '/', TWIST)], True, {})
    assert not check.ok
    assert name in check.sentence
    assert 'max_velocity' in check.remedy


def test_without_linear_y_any_base_will_do():
    """A differential base with a policy of linear_x and angular_z is green."""
    assert strafing.check_linear_y([Endpoint('diff_drive_controller', '/', TWIST)], False, {}).ok


@pytest.mark.parametrize(
    ('axes', 'has'),
    [
        (('linear_x', 'linear_y'), True),
        (('linear_x', 'angular_z'), False),
        ((), False),
        (None, True),
    ],
)
def test_a_policy_strafes_by_the_axes_it_reports(axes, has):
    """And if it reports none."""
    assert strafing.drives_linear_y(axes) is has


@pytest.mark.parametrize(
    ('age_s', 'fault', 'word'),
    [
        (None, '', 'has not reported'),
        (5.0, '', 'silent for 5.0 s'),
        (0.2, 'the camera is black', 'the camera is black'),
    ],
)
def test_a_policy_that_is_absent_silent_or_faulty_is_red(age_s, fault, word):
    """Its earlier checks no longer count."""
    check = preflight.check_inference(age_s, fault, preflight.INFERENCE_CHECKS)
    assert not check.ok
    assert word in check.sentence
    assert preflight.check_inference(0.4, '', preflight.INFERENCE_CHECKS).ok


def test_checks_that_a_policy_does_not_report_are_named_as_not_known():
    """For a policy node of another package: a check that was never made is not green."""
    check = preflight.check_inference(0.4, '', {'camera_rate', 'axes'})
    assert not check.ok
    assert check.sentence.endswith(
        'not known: camera_size, clock_skew, free_memory, golden_frames, instruction'
    )
    assert 'name inference in override' in check.remedy
    for age_s in (None, 5.0):
        assert (
            'not known: camera_rate, camera_size'
            in preflight.check_inference(age_s, '', ()).sentence
        )


def test_an_override_of_an_unknown_check_is_refused_with_the_closest_name():
    """A typing error must not look as if it had worked."""
    with pytest.raises(UserError, match=r"'liner_y'.*mean 'linear_y'"):
        preflight.parse_override(['camera_rate', 'liner_y'])
    assert preflight.parse_override(['', ' linear_y ']) == {'linear_y'}


def test_arming_is_refused_for_red_checks_that_are_not_overridden():
    """One line each, without green or overridden ones."""
    checks = [
        Check('linear_y', False, 'y is lost', 'mend it'),
        Check('axes', True, 'well'),
        Check('cmd_vel_rivals', False, 'nav2 publishes too'),
    ]
    text = preflight.refusal(checks, {'linear_y'})
    assert text.splitlines()[1:] == ['red cmd_vel_rivals: nav2 publishes too']
    assert preflight.refusal(checks, {'linear_y', 'cmd_vel_rivals'}) == ''

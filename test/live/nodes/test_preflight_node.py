"""Preflight on a live graph: the guard is armed only when what it sees there is well."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rcl_interfaces.srv import SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from std_msgs.msg import Bool

from mobile_vla_ros.nodes.shared.guard_status import policy_message
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.safety.preflight import INFERENCE_CHECKS
from mobile_vla_ros.safety.status import Health, StopReason
from mobile_vla_ros.types import Check
from ros_helpers import status_values

OPEN = {
    'max_velocity': [0.5, 0.5, 2.5],
    'min_velocity': [-0.5, -0.5, -2.5],
    'max_accel': [2.5, 2.5, 3.2],
    'max_decel': [-2.5, -2.5, -3.2],
}


class Flight:
    """A guard process, and what it answers."""

    def __init__(self, nodes, client, **params):
        self.client = client
        self.status = client.subscribe('guard/status', DiagnosticStatus)
        self.process = nodes.start('guard_node', params=params)
        client.wait_for(lambda: self.status.last, what='a status')

    def lines(self) -> dict[str, str]:
        """Ask ~/preflight; return its lines by the check's name."""
        return {
            line.split()[1].rstrip(':'): line
            for line in self.client.call('guard/preflight').message.splitlines()
        }

    def until(self, name, start, word=''):
        """Ask until the line of that check begins so: the graph is learnt bit by bit."""
        return self.client.wait_for(
            lambda: (
                (line := self.lines().get(name, '')).startswith(start) and word in line and line
            ),
            what=f'{start} {name} {word}',
        )

    def override(self, *names):
        """Set the parameter at run time; return the result."""
        request = SetParameters.Request(parameters=[override(*names)])
        return self.client.call('guard/set_parameters', SetParameters, request).results[0]

    def state(self, state, word=''):
        """Wait for a status of that state with a word in its reason; return its values."""
        seen = len(self.status)
        return self.client.wait_for(
            lambda: next(
                (
                    values
                    for status in self.status.messages[seen:]
                    if status.message == state
                    and (
                        word in (values := status_values(status))['reason']
                        or word == values['stop_reason']
                    )
                ),
                None,
            ),
            what=f'{state} {word}',
        )


def override(*names):
    """Return the parameter as a message."""
    return Parameter('override', value=list(names) or ['']).to_parameter_msg()


def test_a_guard_that_no_base_hears_is_not_armed(nodes, client):
    """Refused with the red line and its remedy; armed once a base is there."""
    flight = Flight(nodes, client)
    refused = client.call('guard/arm')
    assert not refused.success
    assert 'red cmd_vel_listeners: no base subscribes to /cmd_vel; start' in refused.message
    client.subscribe('cmd_vel', Twist)
    flight.until('cmd_vel_listeners', 'green')
    answer = client.call('guard/preflight')
    assert answer.success, answer.message
    assert all(line.startswith('green ') for line in answer.message.splitlines())
    assert client.call('guard/arm').success


def test_another_publisher_keeps_from_arming_until_it_is_overridden_by_name(nodes, client, others):
    """The rival is named; naming the check in override arms; a name of no check is refused."""
    client.subscribe('cmd_vel', Twist)
    others('controller_server').node.create_publisher(Twist, 'cmd_vel', 1)
    flight = Flight(nodes, client)
    line = flight.until('cmd_vel_rivals', 'red', '/controller_server publishes /cmd_vel too')
    flight.until('cmd_vel_listeners', 'green')
    assert line in client.call('guard/arm').message
    refused = flight.override('cmd_vel_rival')
    assert not refused.successful
    assert "mean 'cmd_vel_rivals'" in refused.reason
    assert not client.call('guard/arm').success
    assert flight.override('cmd_vel_rivals').successful
    assert client.call('guard/arm').success


def test_a_rival_that_comes_in_mid_drive_stops_and_disarms(nodes, client, others):
    """Its commands would mix with the guard's; named, and driven beside only by override."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('cmd_vel_listeners', 'green')
    assert client.call('guard/arm').success
    others('joy_teleop').node.create_publisher(Twist, 'cmd_vel', 1)
    flight.state('fault', '/joy_teleop publishes /cmd_vel too')
    assert flight.state('disarmed', '/joy_teleop')['armed'] == 'false'
    assert not client.call('guard/arm').success
    flight.override('cmd_vel_rivals')
    assert client.call('guard/arm').success
    others('planner').node.create_publisher(Twist, 'cmd_vel', 1)
    flight.until('cmd_vel_rivals', 'red', '/planner')
    assert flight.state('waiting')['armed'] == 'true'
    flight.override()
    flight.state('disarmed', '/joy_teleop')


def test_a_second_guard_of_the_same_name_disarms_the_first(nodes, client):
    """Two launches at once: what drives is stopped, and the second one named."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('cmd_vel_listeners', 'green')
    assert client.call('guard/arm').success
    nodes.start('guard_node')
    flight.state('fault', 'another /guard publishes /cmd_vel too')


def test_a_policy_that_comes_after_arming_is_not_driven_unchecked(nodes, client):
    """A collector drives by hand; somebody starts inference beside the console."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client, expect_policy=False)
    flight.until('cmd_vel_listeners', 'green')
    assert client.call('guard/arm').success
    flight.state('waiting')
    client.publisher('policy/cmd_vel', TwistStamped)
    flight.state('disarmed', StopReason.UNCHECKED_POLICY)
    assert 'not known: camera_rate' in client.call('guard/arm').message


def test_a_guard_that_arms_by_itself_does_not_move_a_base(nodes, client, others):
    """sim:=true in the domain of a robot: disarmed, and armed again only by override."""
    others('sim').subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client, arm_at_start=True)
    flight.state('waiting')
    others('base').subscribe('cmd_vel', Twist)
    values = flight.state('disarmed', '/base subscribes to /cmd_vel besides the arena')
    assert values['armed'] == 'false'
    assert 'ROS_DOMAIN_ID' in flight.process.output
    assert 'red arm_at_start' in client.call('guard/arm').message
    flight.override('arm_at_start')
    assert client.call('guard/arm').success
    flight.state('waiting')
    seen = len(flight.status)
    client.wait_for(lambda: len(flight.status) > seen + 6, what='some queries of the graph')
    assert {status.message for status in flight.status.messages[seen:]} == {'waiting'}


def test_two_buttons_of_the_estop_keep_from_arming(nodes, client, others):
    """A second one that repeats "not pressed" would undo the first one's e-stop."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    client.publisher('estop', Bool)
    flight.until('estop', 'green', '/test_client')
    others('remote').publisher('estop', Bool)
    flight.until('estop', 'red', '/remote and /test_client')
    assert 'red estop' in client.call('guard/arm').message


def test_a_set_of_parameters_that_is_refused_overrides_nothing(nodes, client):
    """All or nothing: the good half of it does not count either."""
    flight = Flight(nodes, client)
    request = SetParametersAtomically.Request(
        parameters=[override('cmd_vel_listeners'), override('cmd_vel_listener')]
    )
    answer = client.call('guard/set_parameters_atomically', SetParametersAtomically, request)
    assert not answer.result.successful
    assert not client.call('guard/arm').success
    flight.override('cmd_vel_listeners')
    assert client.call('guard/arm').success


def test_a_joystick_that_the_guard_cannot_hear_keeps_from_arming(nodes, client):
    """A person must not learn in an emergency that a takeover does nothing."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('inputs', 'green')
    client.publisher('teleop/cmd_vel', TwistStamped)
    line = flight.until('inputs', 'red')
    assert 'to /teleop/cmd_vel as Twist, and /test_client publishes TwistStamped' in line
    assert not client.call('guard/arm').success


def test_commands_are_of_the_type_that_the_base_listens_to(nodes, client):
    """cmd_vel_type auto: Twist without a subscriber, then the type that the base subscribes to."""
    flight = Flight(nodes, client)
    assert 'Twist' in flight.lines()['cmd_vel_type']
    commands = client.subscribe('cmd_vel', TwistStamped)
    client.wait_for(lambda: len(commands) > 3, what='stamped commands')
    assert flight.until('cmd_vel_type', 'green').endswith(
        '/cmd_vel is TwistStamped, as its subscribers expect'
    )
    assert client.call('guard/arm').success


def test_an_armed_guard_keeps_its_type(nodes, client, others):
    """A base of another type that appears in mid-drive is not suddenly driven."""
    commands = client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('cmd_vel_listeners', 'green')
    assert client.call('guard/arm').success
    client.node.destroy_subscription(
        next(one for one in client.node.subscriptions if one.topic_name == '/cmd_vel')
    )
    stamped = others('late_base').subscribe('cmd_vel', TwistStamped)
    flight.until('cmd_vel_type', 'red', '/late_base expects TwistStamped')
    assert len(commands) > 0
    assert len(stamped) == 0
    client.call('guard/disarm')
    client.wait_for(lambda: len(stamped) > 0, what='stamped commands')


def test_a_smoother_is_asked_what_it_lets_through(nodes, client, others):
    """Red while its y is zero, green when all four have one, as it is at the moment of arming."""
    smoother = others('velocity_smoother')
    smoother.subscribe('cmd_vel', Twist)
    for name, value in {**OPEN, 'max_accel': [2.5, 0.0, 3.2]}.items():
        smoother.node.declare_parameter(name, value)
    flight = Flight(nodes, client)
    flight.until('linear_y', 'red')
    refused = client.call('guard/arm')
    assert not refused.success
    assert '/velocity_smoother makes linear_y zero; set y of max_accel there' in refused.message
    smoother.node.set_parameters([Parameter('max_accel', value=OPEN['max_accel'])])
    assert client.call('guard/arm').success


def test_a_smoother_behind_another_node_is_found_too(nodes, client, others):
    """guard → multiplexer → smoother: the way is followed from topic to topic."""
    mux = others('twist_mux')
    mux.subscribe('cmd_vel', Twist)
    mux.node.create_publisher(Twist, 'cmd_vel_out', 1)
    smoother = others('velocity_smoother')
    smoother.subscribe('cmd_vel_out', Twist)
    for name, value in {**OPEN, 'max_velocity': [0.5, 0.0, 2.5]}.items():
        smoother.node.declare_parameter(name, value)
    flight = Flight(nodes, client)
    flight.until('linear_y', 'red', 'set y of max_velocity there')


@pytest.fixture
def silent_smoother(others):
    """A smoother that listens to cmd_vel and has no parameter services."""
    import rclpy

    node = rclpy.create_node(
        'velocity_smoother', context=others('host').node.context, start_parameter_services=False
    )
    node.create_subscription(Twist, 'cmd_vel', lambda _: None, 1)
    yield node
    node.destroy_node()


def test_a_smoother_that_does_not_answer_holds_up_the_arming_and_not_the_commands(
    nodes, client, silent_smoother
):
    """Red after the time limit; zeros go out at the guard's rate all the while."""
    commands = client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('linear_y', 'red')
    first = len(commands)
    refused = client.call('guard/arm')
    assert 'does not report its parameters' in refused.message
    times = commands.times[first:]
    assert len(times) > 10  # in the second that the guard waits for an answer
    assert np.median(np.diff(times)) < 0.1


def test_a_stop_that_comes_while_the_checks_are_made_wins(nodes, client, silent_smoother):
    """Disarm is answered in the middle of an arming, which it cancels in spite of an override."""
    flight = Flight(nodes, client, override=['linear_y'])
    flight.until('linear_y', 'red')
    client.call('guard/disarm')
    disarmed = 0
    with ThreadPoolExecutor() as pool:
        arming = pool.submit(client.call, 'guard/arm')
        while not arming.done():
            disarmed += client.call('guard/disarm').success
    assert disarmed >= 1
    assert 'it was stopped' in arming.result().message
    assert client.call('guard/arm').success


GREEN = [(f'check/{name}', DiagnosticStatus.OK, 'well') for name in INFERENCE_CHECKS]


def health(*statuses: tuple[str, bytes, str]) -> DiagnosticArray:
    """Return inference's report on policy/health."""
    return DiagnosticArray(
        status=[
            DiagnosticStatus(name=name, level=level, message=text)
            for name, level, text in statuses
        ]
    )


def test_what_inference_found_counts_where_a_policy_is_expected(nodes, client):
    """No report: red. One of its checks red or missing: red. All green: armed."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client, expect_policy=True)
    flight.until('cmd_vel_listeners', 'green')
    assert 'red inference: inference has not reported' in client.call('guard/arm').message
    waiting = ('policy', DiagnosticStatus.WARN, 'no instruction yet')
    report = [health(waiting, ('check/camera_rate', DiagnosticStatus.OK, 'it sends 10 Hz'))]
    with client.stream('policy/health', lambda: report[0], 5, LATCHED):
        flight.until('inference', 'red', 'not known: camera_size')
        assert 'red inference' in client.call('guard/arm').message
        report[0] = health(
            waiting,
            *GREEN[1:],
            ('check/camera_rate', DiagnosticStatus.ERROR, 'the camera sends 7 Hz'),
        )
        flight.until('inference', 'green')
        refused = client.call('guard/arm')
        assert not refused.success
        assert 'red camera_rate: the camera sends 7 Hz' in refused.message
        assert 'inference' not in refused.message
        other = (
            'check/camera_topic',
            DiagnosticStatus.OK,
            'warning: trained on /a, drives with /b',
        )
        report[0] = health(('policy', DiagnosticStatus.OK, ''), *GREEN, other)
        flight.until('camera_rate', 'green')
        assert flight.lines()['camera_topic'] == f'green camera_topic: {other[2]}'
        assert client.call('guard/arm').success


def test_a_policy_that_says_nothing_of_itself_is_driven_by_override_alone(nodes, client):
    """Another policy node, unexpected by the guard: the missing checks are named."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client)
    flight.until('cmd_vel_listeners', 'green')
    assert 'inference' not in flight.lines()
    client.publisher('policy/cmd_vel', TwistStamped)
    flight.until('inference', 'red', 'not known: camera_rate')
    assert 'name inference in override' in client.call('guard/arm').message
    flight.override('inference')
    assert client.call('guard/arm').success


def test_checks_of_an_inference_that_fell_silent_no_longer_count(nodes, client):
    """Green ten seconds ago is not green: the node is red, and its old checks are dropped."""
    client.subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client, expect_policy=True)
    client.publish(
        'policy/health',
        health(
            ('policy', DiagnosticStatus.OK, ''),
            ('check/camera_rate', DiagnosticStatus.OK, 'the camera sends 10 Hz'),
        ),
        LATCHED,
    )
    flight.until('camera_rate', 'green')
    flight.until('inference', 'red', 'silent')
    assert 'camera_rate' not in flight.lines()


def test_a_policy_without_linear_y_may_drive_a_base_that_cannot_strafe(nodes, client, others):
    """The policy's axes decide, not the guard's limits alone."""
    others('diff_drive_controller').subscribe('cmd_vel', Twist)
    flight = Flight(nodes, client, expect_policy=True)
    axes = [('linear_x', 'linear_y')]
    checks = [Check('axes', True, 'a sentence for people')]
    with client.stream(
        'policy/health',
        lambda: policy_message(Health.ok(), axes[0], checks, client.now()),
        10,
        LATCHED,
    ):
        flight.until('linear_y', 'red', 'cannot strafe')
        axes[0] = ('linear_x', 'angular_z')
        flight.until('linear_y', 'green')


def test_a_dry_run_is_armed_with_no_base_there(nodes, client):
    """No wheel can turn; the lines still show what would prevent a real drive from arming."""
    flight = Flight(nodes, client, dry_run=True)
    assert flight.lines()['cmd_vel_listeners'].startswith('red')
    assert client.call('guard/arm').success

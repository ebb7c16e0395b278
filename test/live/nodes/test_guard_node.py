"""The guard as a live process on the loopback: what reaches cmd_vel."""

import signal

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from std_msgs.msg import Bool

from mobile_vla_ros.safety.status import StopReason
from ros_helpers import TIMEOUT_S, status_values

# A base that reaches any speed within a tick, where a test is not about acceleration.
NIMBLE = {'max_acceleration': [1000.0, 1000.0, 1000.0]}
# A busy machine sends the test's own streams late; the default limits are tested without a clock.
PATIENT = {'proposal_timeout_s': 2.0, 'observation_max_age_s': 4.0}
ONE_BEST_EFFORT = QoSProfile(depth=1, reliability=ReliabilityPolicy.BEST_EFFORT)
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)


def twist(x=0.0, y=0.0, z=0.0) -> Twist:
    message = Twist()
    message.linear.x, message.linear.y, message.angular.z = x, y, z
    return message


def moving(message) -> bool:
    return any(
        (
            message.linear.x,
            message.linear.y,
            message.linear.z,
            message.angular.x,
            message.angular.y,
            message.angular.z,
        )
    )


class Drive:
    """A guard process, its commands and its status."""

    def __init__(self, nodes, client, module='guard_node', env=None, **params):
        self.client = client
        self.commands = client.subscribe('cmd_vel', Twist)
        self.status = client.subscribe('guard/status', DiagnosticStatus)
        # The policies here publish no health, and the tests subscribe to the commands.
        self.process = nodes.start(
            module,
            env=env,
            params={
                **NIMBLE,
                **PATIENT,
                # It would be silent before a subscriber on a busy machine is found.
                'zero_while_disarmed': True,
                'override': ['inference', 'arm_at_start'],
                **params,
            },
        )

    def propose(self, x=0.5, y=0.0, age_s=0.0, qos=10):
        """A stream of proposals from images of ``age_s`` ago."""

        def make():
            message = TwistStamped(twist=twist(x, y))
            stamp = self.client.node.get_clock().now().nanoseconds - int(age_s * 1e9)
            message.header.stamp.sec, message.header.stamp.nanosec = divmod(stamp, 10**9)
            return message

        return self.client.stream('policy/cmd_vel', make, rate_hz=20, qos=qos)

    def until(self, state, reason='', timeout_s=TIMEOUT_S):
        """Wait for a status of the given state and reason; return it."""
        seen = len(self.status)

        def look():
            for status in self.status.messages[seen:]:
                if status.message == state and (
                    reason in (values := status_values(status))['reason']
                    or reason == values['stop_reason']
                ):
                    return status
            return None

        return self.client.wait_for(look, timeout_s, f'the state {state} {reason}')

    def next_commands(self, count=5):
        """Wait for that many more commands and return them."""
        seen = len(self.commands)
        self.client.wait_for(lambda: len(self.commands) >= seen + count, what='commands')
        return self.commands.messages[seen:]


def test_a_disarmed_guard_publishes_zero_until_a_person_arms_it(nodes, client):
    """The policy proposes; nothing moves before ~/arm and nothing after ~/disarm."""
    drive = Drive(nodes, client)
    with drive.propose():
        drive.until('disarmed')
        assert not any(map(moving, drive.next_commands()))
        assert client.call('guard/arm').success
        drive.until('driving')
        assert drive.next_commands()[-1].linear.x == 0.5
        assert client.call('guard/disarm').success
        assert not any(map(moving, drive.next_commands()))


def test_the_rate_is_twenty_a_second(nodes, client):
    """Most commands come 50 ms after the one before."""
    drive = Drive(nodes, client, arm_at_start=True)
    first = len(drive.next_commands(3)) - 1
    drive.next_commands(40)
    assert np.median(np.diff(drive.commands.times[first:])) == pytest.approx(0.05, rel=0.2)


def test_a_stale_observation_stops_the_base_however_fresh_the_message(nodes, client):
    """Proposals that arrive at 20 Hz but stem from images of 5 s ago give zero."""
    drive = Drive(nodes, client, arm_at_start=True)
    with drive.propose(age_s=5.0):
        drive.until('fault', StopReason.OBSERVATION_OLD)
        assert not any(map(moving, drive.next_commands(10)))
    assert not any(map(moving, drive.commands.messages))


def test_a_policy_that_falls_silent_stops_the_base_and_disarms(nodes, client):
    """Zero after the time limit, then disarmed until armed again."""
    drive = Drive(nodes, client)
    drive.next_commands(1)
    client.call('guard/arm')
    with drive.propose():
        drive.until('driving')
        drive.next_commands()
    drive.until('disarmed', StopReason.POLICY_SILENT)
    drive.client.wait_for(lambda: not moving(drive.commands.last), what='zero')
    with drive.propose():
        assert not any(map(moving, drive.next_commands(10)))


def test_nan_stops_the_base(nodes, client):
    """A proposal with NaN gives zero, and the next good one is not driven before arming."""
    drive = Drive(nodes, client)
    drive.next_commands(1)
    client.call('guard/arm')
    with drive.propose():
        drive.until('driving')
    with drive.propose(x=float('nan')):
        drive.until('disarmed', StopReason.PROPOSAL_NOT_FINITE)
        assert not any(map(moving, drive.next_commands(10)))


def test_a_proposal_too_fast_is_driven_at_the_limit_in_its_own_direction(nodes, client):
    """Ten times the limit along a diagonal comes out at the limit along that diagonal."""
    drive = Drive(nodes, client, arm_at_start=True, max_planar_speed_mps=0.5)
    with drive.propose(x=3.0, y=4.0):
        drive.until('driving')
        command = drive.next_commands()[-1]
    assert (command.linear.x, command.linear.y) == pytest.approx((0.3, 0.4))


def test_a_person_takes_over_and_the_policy_returns_after_the_hold(nodes, client):
    """Teleop wins while the policy goes on proposing; the status: takeover, zero, policy."""
    drive = Drive(
        nodes,
        client,
        arm_at_start=True,
        takeover_hold_s=3.0,
        teleop_timeout_s=1.0,
        after_takeover='resume',
    )
    with drive.propose():
        drive.until('driving')
        with client.stream('teleop/cmd_vel', lambda: twist(0.0, -0.4), rate_hz=20):
            status = drive.until('teleop')
            assert status_values(status)['source'] == 'takeover'
            assert drive.next_commands()[-1].linear.y == -0.4
        drive.until('teleop', 'silent')
        assert not moving(drive.next_commands(2)[-1])
        drive.until('driving')
        assert drive.next_commands(2)[-1].linear.x == 0.5


def test_the_estop_stops_and_has_to_be_armed_away(nodes, client):
    """Pressed: zero, arming refused with a sentence. Let go: still zero until armed."""
    drive = Drive(nodes, client, arm_at_start=True)
    with drive.propose():
        drive.until('driving')
        client.publish('estop', Bool(data=True))
        drive.until('estop')
        refused = client.call('guard/arm')
        assert not refused.success
        assert 'e-stop' in refused.message
        client.publish('estop', Bool(data=False))
        drive.until('disarmed')
        assert not any(map(moving, drive.next_commands()))
        assert client.call('guard/arm').success
        drive.until('driving')


def test_a_stop_does_not_wait_for_the_next_tick(nodes, client):
    """At 10 Hz, an e-stop pressed just after a command gives zero long before the next one."""
    armed = []

    def press(message):
        if armed and moving(message):
            armed.clear()
            client.publisher('estop', Bool).publish(Bool(data=True))

    client.subscribe('cmd_vel', Twist, callback=press)
    drive = Drive(nodes, client, rate_hz=10.0)
    delays_s = [1.0]
    with drive.propose():
        while min(delays_s) > 0.07:
            assert len(delays_s) < 10, delays_s  # a busy machine presses late, but not always
            client.publish('estop', Bool(data=False))
            client.wait_for(lambda: client.call('guard/arm').success, what='the arming')
            drive.until('driving')
            armed.append(True)
            drive.until('estop')
            client.wait_for(lambda: not moving(drive.commands.last), what='zero')
            last = max(i for i, m in enumerate(drive.commands.messages) if moving(m))
            delays_s.append(drive.commands.times[last + 1] - drive.commands.times[last])


def test_the_estop_of_a_publisher_that_is_best_effort_is_received(nodes, client):
    """As a microcontroller may send it: best effort, pressed and let go."""
    drive = Drive(nodes, client, arm_at_start=True)
    drive.next_commands(1)
    with client.stream('estop', lambda: Bool(data=True), 20, ONE_BEST_EFFORT):
        drive.until('estop')
    with client.stream('estop', lambda: Bool(data=False), 20, ONE_BEST_EFFORT):
        drive.until('disarmed')


def test_commands_of_a_publisher_that_is_best_effort_are_received(nodes, client):
    """A joystick or a policy that sends best effort drives as any other does."""
    drive = Drive(nodes, client, arm_at_start=True)
    with drive.propose(qos=ONE_BEST_EFFORT):
        drive.until('driving')
        with client.stream('teleop/cmd_vel', lambda: twist(0.0, -0.4), 20, ONE_BEST_EFFORT):
            assert status_values(drive.until('teleop'))['source'] == 'takeover'


def test_a_person_s_stop_is_sent_again_when_it_is_lost(nodes, client):
    """A key that stops is pressed once: the guard has it confirmed, and drives by no old one."""
    drive = Drive(nodes, client, arm_at_start=True)
    publisher = client.publisher('teleop/cmd_vel', Twist)
    client.wait_for(lambda: publisher.get_subscription_count() == 2, what='both subscriptions')
    found = client.node.get_subscriptions_info_by_topic('/teleop/cmd_vel')
    assert {one.qos_profile.reliability for one in found} == {
        ReliabilityPolicy.RELIABLE,
        ReliabilityPolicy.BEST_EFFORT,
    }
    with drive.propose():
        drive.until('driving')
        publisher.publish(Twist())
        assert status_values(drive.until('teleop'))['source'] == 'takeover'


def test_of_what_is_sent_again_a_stop_alone_counts(nodes, client, tmp_path):
    """The first transmission is lost: a zero arrives all the same, an old command does not."""
    (tmp_path / 'planted').mkdir()
    (tmp_path / 'planted' / 'guard.py').write_text(
        'import sys\n'
        'from mobile_vla_ros.nodes import guard_node\n'
        'from mobile_vla_ros.nodes.guard.node import GuardNode\n'
        'from mobile_vla_ros.nodes.shared.messages import BEST_EFFORT\n'
        'whole = GuardNode.create_subscription\n'
        'def lossy(self, kind, topic, found, qos, **rest):\n'
        '    lost = topic == "/teleop/cmd_vel" and qos is BEST_EFFORT\n'
        '    return whole(self, kind, topic, (lambda _: None) if lost else found, qos, **rest)\n'
        'GuardNode.create_subscription = lossy\n'
        'sys.exit(guard_node.main())\n'
    )
    drive = Drive(nodes, client, 'planted.guard', {'PYTHONPATH': str(tmp_path)}, arm_at_start=True)
    with drive.propose():
        drive.until('driving')
        seen = len(drive.status)
        with client.stream('teleop/cmd_vel', lambda: twist(0.0, -0.4), 20):
            client.wait_for(lambda: len(drive.status) > seen + 5, what='some statuses')
        assert {one.message for one in drive.status.messages[seen:]} == {'driving'}
        client.publish('teleop/cmd_vel', Twist())
        assert status_values(drive.until('teleop'))['source'] == 'takeover'


def test_an_estop_that_was_pressed_before_the_guard_was_there_counts(nodes, client):
    """A guard that is started again while it is pressed, where the button's publisher latches."""
    client.publisher('estop', Bool, LATCHED).publish(Bool(data=True))
    drive = Drive(nodes, client, arm_at_start=True)
    drive.until('estop')
    assert 'e-stop' in client.call('guard/arm').message


def test_an_armed_guard_never_answers_not_armed(nodes, client):
    """A second request while a check is red is answered "armed": somebody may approach it."""
    Drive(nodes, client)
    client.wait_for(lambda: client.call('guard/arm').success)
    client.node.destroy_subscription(
        next(one for one in client.node.subscriptions if one.topic_name == '/cmd_vel')
    )
    client.wait_for(lambda: 'red cmd_vel_listeners' in client.call('guard/preflight').message)
    answer = client.call('guard/arm')
    assert (answer.success, answer.message) == (True, 'Armed already.')


def health(level=DiagnosticStatus.OK, reason=''):
    """Return a policy's health."""
    return DiagnosticArray(status=[DiagnosticStatus(name='policy', level=level, message=reason)])


def test_a_fault_in_the_policys_health_stops_and_disarms(nodes, client):
    """Though its proposals go on: zero, and the reason in the status, until armed again."""
    drive = Drive(nodes, client)
    drive.next_commands(1)
    client.call('guard/arm')
    with drive.propose():
        client.publish('policy/health', health(), LATCHED)
        drive.until('driving')
        client.publish('policy/health', health(DiagnosticStatus.ERROR, 'camera frozen'), LATCHED)
        drive.until('disarmed', 'camera frozen')
        assert not any(map(moving, drive.next_commands()))
        assert 'camera frozen' in client.call('guard/arm').message
        client.publish('policy/health', DiagnosticArray(), LATCHED)  # no status, not even OK
        assert 'camera frozen' in client.call('guard/arm').message
        client.publish('policy/health', health(), LATCHED)
        client.wait_for(lambda: client.call('guard/arm').success)
        drive.until('driving')
        client.publish('policy/health', health(reason='x' * 2_000_000), LATCHED)  # not decoded
        drive.until('disarmed', 'the report of the policy cannot be used')
        drive.process.wait_for_output('cannot be used: it has 2000')
        client.publish('policy/health', health(), LATCHED)
        client.wait_for(lambda: client.call('guard/arm').success)
        drive.until('driving')
        client.publish('policy/health', bytes([0, 1, 0, 0]), LATCHED, kind=DiagnosticArray)
        drive.until('disarmed', 'the report of the policy cannot be used')
        assert drive.process.running


def test_a_hold_in_the_policys_health_stops_and_drives_on_by_itself(nodes, client):
    """A new instruction is being looked at: zero, armed all the while, then the policy again."""
    drive = Drive(nodes, client)
    drive.next_commands(1)
    client.call('guard/arm')
    with drive.propose():
        drive.until('driving')
        client.publish('policy/health', health(DiagnosticStatus.WARN, 'looking'), LATCHED)
        status = drive.until('waiting', 'looking')
        assert status_values(status)['armed'] == 'true'
        assert not any(map(moving, drive.next_commands()))
        client.publish('policy/health', health(), LATCHED)
        drive.until('driving')


def test_a_dry_run_decides_and_publishes_nothing(nodes, client):
    """The status has everything; nothing is published on cmd_vel, not even a last zero."""
    drive = Drive(nodes, client, dry_run=True)
    client.call('guard/arm')
    with drive.propose():
        values = status_values(drive.until('driving'))
        assert values['dry_run'] == 'true'
        client.wait_for(lambda: status_values(drive.status.last)['linear_x'] == '0.500')
        assert client.node.count_publishers('cmd_vel') == 0
        assert drive.process.stop() == 0
    assert len(drive.commands) == 0


def test_the_status_comes_ten_times_a_second(nodes, client):
    """Also when nothing changes, so that subscribers notice at once when the guard is gone."""
    drive = Drive(nodes, client)
    drive.until('disarmed')
    first = len(drive.status)
    client.wait_for(lambda: len(drive.status) > first + 20)
    assert 0.08 < np.median(np.diff(drive.status.times[first:])) < 0.15


def test_the_distance_to_stop_in_bounds_the_speed_and_is_logged_at_start(nodes, client):
    """One line in the log has the worst-case stopping distance; the speed obeys it."""
    drive = Drive(
        nodes, client, arm_at_start=True, stop_distance_m=0.3, base_deceleration_mps2=1.0
    )
    found = drive.process.wait_for_output(r'distance 0\.30 m \(v <= ([\d.]+) m/s')
    with drive.propose(x=1.0):
        drive.until('driving')
        assert drive.next_commands()[-1].linear.x == pytest.approx(float(found[1]), abs=0.005)


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT])
def test_a_guard_that_is_signalled_to_end_leaves_zero_behind(nodes, client, number):
    """The last message on cmd_vel is zero, in the middle of a drive, and the status is 0."""
    drive = Drive(nodes, client, arm_at_start=True)
    with drive.propose():
        drive.until('driving')
        assert moving(drive.next_commands()[-1])
        drive.process.signal(number)
        assert drive.process.wait() == 0
    # Nobody is left to publish, and commands arrive in order: a zero that is last stays last.
    client.wait_for(lambda: not moving(drive.commands.last), what='a last zero')
    assert moving(drive.commands.messages[-3])  # it was under way until just before


@pytest.mark.parametrize('where', ['update', 'teleop'])
def test_a_defect_of_the_guards_own_leaves_zero_behind(nodes, client, tmp_path, where):
    """An exception in a tick or a callback ends it with a traceback, and zero before that."""
    (tmp_path / 'planted').mkdir()
    (tmp_path / 'planted' / 'guard.py').write_text(
        'import sys\n'
        'from mobile_vla_ros.nodes import guard_node\n'
        'from mobile_vla_ros.safety.guard import Guard\n'
        f'whole = Guard.{where}\n'
        'def broken(self, *args):\n'
        '    command = self._person._command\n'
        '    if command is not None and command.twist[1]:\n'
        '        raise RuntimeError("a defect of ours")\n'
        '    return whole(self, *args)\n'
        f'Guard.{where} = broken\n'
        'sys.exit(guard_node.main())\n'
    )
    commands = client.subscribe('cmd_vel', Twist)
    process = nodes.start(
        'planted.guard',
        params={**NIMBLE, 'arm_at_start': True, 'override': ['arm_at_start']},
        env={'PYTHONPATH': str(tmp_path)},
    )
    sideways = [0.0]
    with client.stream('teleop/cmd_vel', lambda: twist(0.4, sideways[0]), rate_hz=20):
        client.wait_for(lambda: commands.last and moving(commands.last))
        sideways[0] = 0.1
        assert process.wait() == 1, process.output
    assert 'RuntimeError: a defect of ours' in process.output
    client.wait_for(lambda: not moving(commands.last), what='a last zero')


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT, signal.SIGQUIT])
def test_a_guard_that_is_stopped_while_it_imports_prints_nothing(nodes, tmp_path, number):
    """Ctrl-C in the first second: no traceback, and no failure."""
    (tmp_path / 'sitecustomize.py').write_text(
        'import sys, time\n'
        'class Slow:\n'
        '    def find_spec(self, name, *_):\n'
        '        if name == "mobile_vla_ros.nodes.guard.node":\n'
        '            print("importing", flush=True)\n'
        '            time.sleep(100)\n'
        'sys.meta_path.insert(0, Slow())\n'
    )
    process = nodes.start('guard_node', env={'PYTHONPATH': str(tmp_path)})
    process.wait_for_output('importing')
    process.signal(number)
    assert process.wait() == 0
    assert process.output == 'importing\n'


def test_stamped_commands_carry_time_and_frame(nodes, client):
    """A TwistStamped is stamped now, in the frame of the parameter."""
    commands = client.subscribe('cmd_vel', TwistStamped)
    nodes.start(
        'guard_node',
        params={
            'cmd_vel_type': 'twist_stamped',
            'frame_id': 'base',
            'zero_while_disarmed': True,
        },
    )
    client.wait_for(lambda: len(commands) > 3)
    assert commands.last.header.frame_id == 'base'
    age = client.node.get_clock().now().nanoseconds / 1e9 - (
        commands.last.header.stamp.sec + commands.last.header.stamp.nanosec / 1e9
    )
    assert 0 <= age < TIMEOUT_S


def test_a_ros_clock_that_never_starts_does_not_keep_the_guard_from_publishing(nodes, client):
    """With use_sim_time and no /clock, zeros still come at the guard's rate."""
    drive = Drive(nodes, client, use_sim_time=True)
    assert not any(map(moving, drive.next_commands(10)))


def test_diagnostics_name_the_guard(nodes, client):
    """/diagnostics carries the same status, for rqt and Foxglove."""
    inbox = client.subscribe('/diagnostics', DiagnosticArray)
    nodes.start('guard_node')
    client.wait_for(lambda: inbox.last is not None)
    status = inbox.last.status[0]
    assert (status.name, status.message) == ('guard', 'disarmed')
    assert status_values(status)['source'] == 'none'


def test_two_namespaces_do_not_affect_each_other(nodes, client):
    """Arming one robot's guard moves that robot alone."""
    boxes = {}
    for robot in ('a', 'b'):
        boxes[robot] = client.subscribe(f'/{robot}/cmd_vel', Twist)
        nodes.start('guard_node', namespace=robot, params=NIMBLE)
    client.wait_for(lambda: boxes['a'].last and boxes['b'].last)
    assert client.call('/a/guard/arm').success
    with client.stream('/a/teleop/cmd_vel', lambda: twist(0.3), rate_hz=20):
        client.wait_for(lambda: moving(boxes['a'].last))
    assert not any(map(moving, boxes['b'].messages))


@pytest.mark.parametrize(
    ('params', 'word'),
    [
        ({'rate_hz': 500.0}, 'rate_hz'),
        ({'max_velocity': [-1.0, 1.0, 1.0]}, 'max_velocity'),
        ({'max_velocity': [1.0, 1.0]}, 'max_velocity'),
        ({'rate_hz': 20}, 'rate_hz'),
        ({'teleop_timeout_s': 3.0, 'takeover_hold_s': 1.0}, 'takeover_hold_s'),
        ({'cmd_vel_type': 'twist_stampt'}, 'cmd_vel_type'),
        ({'rate_hz': float('inf')}, 'rate_hz'),
        ({'stop_distance_m': -1.0}, 'stop_distance_m'),
        ({'override': ['liner_y']}, "mean 'linear_y'"),
    ],
)
def test_invalid_parameters_are_refused_with_a_sentence(nodes, params, word):
    """Out of range, wrong sign, wrong length, wrong type: status 2, no traceback."""
    process = nodes.start('guard_node', params=params)
    assert process.wait() == 2, process.output
    assert word in process.output
    assert 'Traceback' not in process.output


WRONG = """/**:
  ros__parameters:
    rate_hz: fast
    max_velocity: []
    max_planar_speed_mps: .nan
    max_acceleration: [1.0, 1.0, -4.0]
    frame_id: 7
    observation_max_age_s: -0.3
    dry_run: 1.0
    stop_distance_m: [1.0]
"""


def test_everything_wrong_in_a_parameter_file_is_named_at_once(nodes, tmp_path):
    """Wrong types, signs and lengths: one sentence, and status 2."""
    (tmp_path / 'wrong.yaml').write_text(WRONG)
    process = nodes.start('guard_node', params_file=tmp_path / 'wrong.yaml')
    assert process.wait() == 2, process.output
    for name in (
        'rate_hz',
        'max_velocity',
        'max_planar_speed_mps',
        'max_acceleration',
        'frame_id',
        'observation_max_age_s',
        'dry_run',
        'stop_distance_m',
    ):
        assert name in process.output
    assert 'Traceback' not in process.output


@pytest.mark.parametrize('text', ['a:\n  - b: [', '/**:\n  ros__parameters:\n    a: [1.0, 1]\n'])
def test_a_parameter_file_that_ros_cannot_read_is_a_sentence(nodes, tmp_path, text):
    """Broken YAML, or a list of two types: status 2, the file named, no traceback."""
    (tmp_path / 'broken.yaml').write_text(text)
    process = nodes.start('guard_node', params_file=tmp_path / 'broken.yaml')
    assert process.wait() == 2, process.output
    assert 'guard_node: error:' in process.output
    assert 'broken.yaml' in process.output
    assert 'Traceback' not in process.output


def test_the_guard_is_light(nodes, client):
    """
    No torch in the process, and 40 MB of its own, so that nothing heavy can hang it.

    Pages of mapped libraries count apart: how many are resident depends on the page cache (36 MB
    on one day, 47 MB just after an installation, for the same files).
    """
    drive = Drive(nodes, client, arm_at_start=True)
    drive.next_commands(20)
    with open(f'/proc/{drive.process.pid}/maps') as maps:
        assert 'torch' not in maps.read()
    with open(f'/proc/{drive.process.pid}/status') as status:
        kb = {
            line.split(':')[0]: int(line.split()[1])
            for line in status
            if line.startswith(('VmRSS', 'RssAnon'))
        }
    assert kb['RssAnon'] < 40_000
    assert kb['VmRSS'] < 100_000

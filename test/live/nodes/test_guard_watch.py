"""What may stop a drive is watched all the time, and nothing drives on after a stall."""

import signal
import threading
import time

import pytest
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from rcl_interfaces.srv import ListParameters
from std_msgs.msg import Bool
from std_srvs.srv import Trigger

from ros_helpers import status_values

FORWARD = 0.3


def forward(speed: float = FORWARD) -> Twist:
    message = Twist()
    message.linear.x = speed
    return message


class Drive:
    """A guard that was armed as on a robot, and a policy that proposes 0.3 m/s."""

    def __init__(self, nodes, client, **params):
        self.client = client
        self.commands = client.subscribe('cmd_vel', Twist)
        self.status = client.subscribe('guard/status', DiagnosticStatus)
        self.process = nodes.start(
            'guard_node',
            params={
                'override': ['inference'],
                'max_acceleration': [100.0] * 3,
                # A busy machine sends the test's own streams late.
                'proposal_timeout_s': 2.0,
                'observation_max_age_s': 4.0,
                **params,
            },
        )

    def propose(self):
        """Stream proposals from images of now."""

        def make():
            message = TwistStamped(twist=forward())
            message.header.stamp = self.client.node.get_clock().now().to_msg()
            return message

        return self.client.stream('policy/cmd_vel', make, rate_hz=20)

    def arm(self):
        """Arm, and wait until the policy drives."""
        self.client.wait_for(lambda: self.client.call('guard/arm').success, what='the arming')
        self.client.wait_for(lambda: self.speed() == FORWARD, what='the drive')

    def speed(self) -> float:
        """Return the newest commanded speed, m/s."""
        return self.commands.last.linear.x if self.commands.last else 0.0

    def until(self, stop_reason: str, *states: str) -> dict[str, str]:
        """Wait for a status with that reason; return its values."""
        seen = max(len(self.status) - 1, 0)
        return self.client.wait_for(
            lambda: next(
                (
                    values
                    for status in self.status.messages[seen:]
                    if (values := status_values(status))['stop_reason'] == stop_reason
                    and (not states or status.message in states)
                ),
                None,
            ),
            what=f'the reason {stop_reason}',
        )


def test_a_joystick_that_stamps_its_commands_takes_over_in_mid_drive(nodes, client, others):
    """Its zeros stop the robot."""
    drive = Drive(nodes, client)
    with drive.propose():
        drive.arm()
        with others('joy').stream('teleop/cmd_vel', TwistStamped, rate_hz=20):
            client.wait_for(lambda: drive.speed() == 0.0, what='the stop')
            assert drive.until('none', 'teleop')['source'] == 'takeover'


def test_a_second_type_on_teleop_is_a_fault_by_name(nodes, client, others):
    """One process cannot subscribe to both; so the one it does not receive ends the drive."""
    drive = Drive(nodes, client)
    with drive.propose():
        client.publisher('teleop/cmd_vel', Twist)
        drive.arm()
        others('stranger').publisher('teleop/cmd_vel', TwistStamped)
        assert '/stranger publishes TwistStamped' in drive.until('input_not_received')['reason']
        client.wait_for(lambda: drive.speed() == 0.0, what='the stop')
        assert not client.call('guard/arm').success


def test_an_estop_whose_publisher_disappears_disarms(nodes, client, others):
    """Also one that came after arming."""
    button, remote = others('button'), others('remote')
    pressable = button.publisher('estop', Bool)
    drive = Drive(nodes, client)
    with drive.propose():
        client.wait_for(
            lambda: '/button publishes /estop' in client.call('guard/preflight').message
        )
        drive.arm()
        button.node.destroy_publisher(pressable)
        values = drive.until('estop_lost')
        assert '/button' in values['reason']
        assert values['armed'] == 'false'
        client.wait_for(lambda: drive.speed() == 0.0, what='the stop')
        drive.arm()
        publisher = remote.publisher('estop', Bool)
        remote.publisher('teleop/cmd_vel', TwistStamped)  # is announced later, and logged
        drive.process.wait_for_output('is geometry_msgs/msg/TwistStamped now')
        remote.node.destroy_publisher(publisher)
        assert '/remote' in drive.until('estop_lost')['reason']


def test_an_estop_that_has_to_send_disarms_when_it_falls_silent(nodes, client):
    """A button that was killed stays on the graph for seconds; estop_timeout_s finds it."""
    drive = Drive(nodes, client, estop_timeout_s=1.5)
    with drive.propose():
        with client.stream('estop', Bool, rate_hz=10):
            drive.arm()
            time.sleep(2.0)
            assert drive.speed() == FORWARD
        drive.until('estop_silent')
        client.wait_for(lambda: drive.speed() == 0.0, what='the stop')
        assert 'estop_timeout_s' in client.call('guard/arm').message


@pytest.mark.parametrize(
    'topic,kind', [('policy/cmd_vel', TwistStamped), ('estop', Bool)], ids=['policy', 'estop']
)
def test_a_second_publisher_in_mid_drive_is_a_fault_by_name(nodes, client, others, topic, kind):
    """Two policies, or two buttons of which the last word wins."""
    drive = Drive(nodes, client)
    with drive.propose():
        client.publisher('estop', Bool)
        drive.arm()
        others('intruder').publisher(topic, kind)
        values = drive.until('competing_input')
        assert f'2 nodes publish /{topic}' in values['reason']
        assert '/intruder' in values['reason']
        client.wait_for(lambda: drive.speed() == 0.0, what='the stop')


def test_a_person_who_sends_once_a_second_is_not_overridden_in_between(nodes, client):
    """With after_takeover resume: backing away in single steps, no lunge forward."""
    drive = Drive(nodes, client, after_takeover='resume')
    with drive.propose():
        drive.arm()
        publisher = client.publisher('teleop/cmd_vel', Twist)
        client.wait_for(lambda: publisher.get_subscription_count() == 2)
        for step in range(8):
            publisher.publish(forward(-0.2))
            if step == 0:
                time.sleep(0.2)
                seen = len(drive.commands)
            time.sleep(1.02)
        speeds = [one.linear.x for one in drive.commands.messages[seen:]]
        assert min(speeds) == -0.2
        assert max(speeds) == 0.0
        client.wait_for(lambda: drive.speed() == FORWARD, what='the policy')


def test_after_a_takeover_the_policy_drives_on_at_a_person_s_word(nodes, client):
    """By default the robot stands, armed, until ~/resume."""
    drive = Drive(nodes, client, takeover_hold_s=0.3)
    with drive.propose():
        drive.arm()
        client.publish('teleop/cmd_vel', Twist())
        values = drive.until('awaiting_resume', 'waiting')
        assert values['armed'] == 'true'
        time.sleep(0.5)
        assert drive.speed() == 0.0
        assert client.call('guard/resume').success
        client.wait_for(lambda: drive.speed() == FORWARD, what='the policy')
        assert client.call('guard/disarm').success
        assert not client.call('guard/resume').success


def test_a_disarmed_guard_leaves_the_base_to_others_and_names_them(nodes, client, others):
    """Zero until the base stands, then nothing; it speaks again when it is armed."""
    drive = Drive(nodes, client, base_deceleration_mps2=10.0)
    client.wait_for(lambda: client.call('guard/arm').success, what='the first arming')
    client.wait_for(lambda: len(drive.commands), what='commands')
    assert client.call('guard/disarm').success
    seen = len(drive.commands)
    client.wait_for(lambda: len(drive.commands) > seen, what='zeros')
    client.wait_for(
        lambda: time.monotonic() - drive.commands.times[-1] > 0.6, what='silence, 1.1 s later'
    )
    seen = len(drive.commands)
    joystick = others('teleop_twist_joy')
    with joystick.stream('cmd_vel', forward, rate_hz=20):
        client.wait_for(lambda: len(drive.commands) > seen + 20, what='its commands')
        assert 'publishes /cmd_vel too' in drive.until('disarmed', 'disarmed')['reason']
        speeds = [one.linear.x for one in drive.commands.messages[seen:]]
        assert set(speeds) == {FORWARD}
    joystick.node.destroy_publisher(joystick.publisher('cmd_vel', Twist))
    client.wait_for(lambda: client.call('guard/arm').success, what='the arming')
    seen = len(drive.commands)
    client.wait_for(lambda: len(drive.commands) > seen + 5, what='commands')


@pytest.mark.parametrize('arena', [False, True], ids=['robot', 'arena'])
def test_what_was_sent_while_the_guard_stood_still_moves_nothing(nodes, client, arena):
    """After SIGSTOP for 3 s and SIGCONT, the commands in its queues are as old as they are."""
    drive = Drive(
        nodes,
        client,
        max_acceleration=[2.0] * 3,
        arm_at_start=arena,
        after_takeover='resume' if arena else 'stay_stopped',
        override=['inference', 'arm_at_start'],
    )
    with client.stream('teleop/cmd_vel', lambda: forward(0.4), rate_hz=20):
        client.wait_for(lambda: arena or client.call('guard/arm').success, what='the arming')
        client.wait_for(lambda: drive.speed() == 0.4, what='the drive')
        drive.process.signal(signal.SIGSTOP)
        time.sleep(2.5)
    time.sleep(0.5)  # the person let go 0.5 s ago, and the teleop timeout is 0.3 s
    seen, statuses = len(drive.commands), len(drive.status)
    drive.process.signal(signal.SIGCONT)
    client.wait_for(lambda: len(drive.commands) > seen + 20, what='commands')
    assert not any(one.linear.x for one in drive.commands.messages[seen:])
    reasons = [status_values(one)['stop_reason'] for one in drive.status.messages[statuses:]]
    assert 'stalled' in reasons
    if not arena:
        assert status_values(drive.status.last)['armed'] == 'false'


def test_proposals_after_a_stall_start_from_standstill_or_not_at_all(nodes, client):
    """The policy went on meanwhile; a robot is disarmed, whatever it proposes."""
    drive = Drive(nodes, client)
    with drive.propose():
        drive.arm()
        drive.process.signal(signal.SIGSTOP)
        time.sleep(1.0)
        seen = len(drive.commands)
        drive.process.signal(signal.SIGCONT)
        drive.until('stalled', 'fault', 'disarmed')
        client.wait_for(lambda: len(drive.commands) > seen + 10, what='commands')
        assert not any(one.linear.x for one in drive.commands.messages[seen:])


def test_no_press_of_the_estop_is_lost_in_a_flood(nodes, client, others):
    """Thirty presses, each between thousands of messages that say "not pressed"."""
    drive = Drive(nodes, client, override=['inference', 'estop'])
    floods = [others(f'flood_{i}') for i in range(2)]
    done = threading.Event()

    def flood(one):
        publisher = one.publisher('estop', Bool)
        while not done.is_set():
            for _ in range(200):
                publisher.publish(Bool(data=False))
            time.sleep(0.002)

    button = others('button').publisher('estop', Bool)
    client.wait_for(lambda: button.get_subscription_count() >= 2, what='the guard')
    client.wait_for(lambda: drive.status.last, what='a status')
    threads = [threading.Thread(target=flood, args=[one], daemon=True) for one in floods]
    for thread in threads:
        thread.start()
    try:
        for _ in range(30):
            client.wait_for(lambda: client.call('guard/arm').success, what='the arming')
            button.publish(Bool(data=True))
            client.wait_for(
                lambda: status_values(drive.status.last)['armed'] == 'false', what='the stop'
            )
    finally:
        done.set()
        for thread in threads:
            thread.join()


@pytest.mark.quiet_machine
def test_disarm_is_answered_while_other_services_are_flooded(nodes, client, others):
    """Within half a second, though four clients ask for everything else all the time."""
    drive = Drive(nodes, client)
    done = threading.Event()

    def flood(one):
        clients = [
            (one.node.create_client(Trigger, 'guard/preflight'), Trigger.Request()),
            (one.node.create_client(Trigger, 'guard/arm'), Trigger.Request()),
            (
                one.node.create_client(ListParameters, 'guard/list_parameters'),
                ListParameters.Request(),
            ),
        ]
        while not done.is_set():
            for service, request in clients:
                if service.service_is_ready():
                    service.call_async(request)
            time.sleep(0.002)

    threads = [
        threading.Thread(target=flood, args=[others(f'flood_{i}')], daemon=True) for i in range(4)
    ]
    with drive.propose():
        client.call('guard/disarm')
        for thread in threads:
            thread.start()
        try:
            time.sleep(2.0)
            waits_s = []
            for _ in range(5):
                began_s = time.monotonic()
                assert client.call('guard/disarm').success
                waits_s.append(time.monotonic() - began_s)
        finally:
            done.set()
            for thread in threads:
                thread.join()
    assert max(waits_s) < 0.5, waits_s

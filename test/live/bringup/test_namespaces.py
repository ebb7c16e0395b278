"""Two robots on one network: commands to one do not reach the other."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from nav_msgs.msg import Odometry

from mobile_vla_ros.bringup.processes import Processes
from mobile_vla_ros.bringup.stacks import DRIVE


def speed(message: Twist) -> float:
    return float(np.hypot(message.linear.x, message.linear.y) + abs(message.angular.z))


def test_robots_in_two_namespaces_do_not_receive_each_other_s_commands(client, tmp_path):
    """The same launch file twice: driving r1 moves only r1."""
    commands = {robot: client.subscribe(f'{robot}/cmd_vel', Twist) for robot in ('r1', 'r2')}
    moved = {robot: client.subscribe(f'{robot}/odom', Odometry) for robot in ('r1', 'r2')}
    states = {
        robot: client.subscribe(f'{robot}/guard/status', DiagnosticStatus)
        for robot in ('r1', 'r2')
    }
    with Processes(tmp_path) as first, Processes(tmp_path / 'second') as second:
        for processes, robot in ((first, 'r1'), (second, 'r2')):
            # The arena's guard would take this test's subscription for another base.
            specs = DRIVE.nodes(sim=True, namespace=robot, override='arm_at_start')
            processes.start([spec for spec in specs if spec.name != 'inference'])
        client.wait_for(
            lambda: all(
                len(inbox) for inboxes in (commands, moved, states) for inbox in inboxes.values()
            ),
            60,
            'both robots',
        )
        drive = Twist()
        drive.linear.x = 0.5
        with client.stream('r1/teleop/cmd_vel', lambda: drive, 20.0):
            client.wait_for(
                lambda: moved['r1'].last.twist.twist.linear.x > 0.3, what='the first robot to move'
            )
            seen = len(commands['r2'])
            client.wait_for(
                lambda: len(commands['r2']) > seen + 20,
                what="a second of the other robot's commands",
            )
        assert max(speed(message) for message in commands['r1'].messages) > 0.3
        assert max(speed(message) for message in commands['r2'].messages) == 0.0
        assert not {'teleop', 'driving'} & {state.message for state in states['r2'].messages}
        assert max(speed(odom.twist.twist) for odom in moved['r2'].messages) < 1e-6

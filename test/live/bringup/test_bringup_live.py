"""The described processes, live."""

from geometry_msgs.msg import Twist, TwistStamped

from mobile_vla_ros.bringup.processes import Processes
from mobile_vla_ros.bringup.spec import NodeSpec
from mobile_vla_ros.bringup.stacks import DRIVE


def by_name(specs) -> dict[str, NodeSpec]:
    return {spec.name: spec for spec in specs}


def test_the_guard_of_the_description_runs_as_described(ros_domain, client, tmp_path):
    """Parameters, remappings, namespace and parameter files reach the live node."""
    own = tmp_path / 'mine.yaml'
    own.write_text('/**:\n  ros__parameters:\n    frame_id: wheels\n    rate_hz: 50.0\n')
    guard = by_name(
        DRIVE.nodes(
            policy='p',
            sim=True,
            stamped=True,
            namespace='r1',
            cmd_vel_topic='base/cmd',
            params_file=own,
        )
    )['guard']
    commands = client.subscribe('/r1/base/cmd', TwistStamped)
    with Processes(tmp_path / 'log') as processes:
        processes.start([guard])
        with client.stream('/r1/teleop/cmd_vel', Twist, rate_hz=10):
            client.wait_for(lambda: len(commands) > 5)
        assert commands.last.header.frame_id == 'wheels'
        assert processes.stop() == {'guard': 0}

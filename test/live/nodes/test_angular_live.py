"""angular_z as an axis, live: camera, inference and guard."""

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped

from noise_camera import INSTRUCTION, NoiseCamera
from ros_helpers import status_values
from turning import BOTH

LIMIT_RADPS = 0.3  # of the guard: less than the policy learned


def test_a_turn_reaches_the_base_within_the_guard_s_limit(turning_policy, nodes, client):
    """Camera, inference, guard, cmd_vel over DDS: angular.z is proposed and limited."""
    proposals = client.subscribe('policy/cmd_vel', TwistStamped)
    commands = client.subscribe('cmd_vel', Twist)
    status = client.subscribe('guard/status', DiagnosticStatus)
    camera = NoiseCamera(client)
    nodes.start(
        'guard_node',
        params={
            'arm_at_start': True,
            'override': ['arm_at_start'],
            'max_velocity': [1.0, 1.0, LIMIT_RADPS],
            'observation_max_age_s': 4.0,
            'proposal_timeout_s': 2.0,
        },
    )
    nodes.start(
        'inference_node',
        params={'policy': str(turning_policy(BOTH[0])), 'instruction': INSTRUCTION},
    )
    with camera.stream():
        client.wait_for(lambda: len(proposals) >= 10, 90, 'proposals')
        client.wait_for(
            lambda: any(m.angular.z > 0.9 * LIMIT_RADPS for m in commands.messages),
            what='a turn on cmd_vel',
        )
    proposed = [m.twist.angular.z for m in proposals.messages]
    assert np.mean(proposed) > 1.2 * LIMIT_RADPS
    assert all(0 <= m.angular.z <= LIMIT_RADPS + 1e-9 for m in commands.messages)
    assert any(m.linear.x > 0 for m in commands.messages)
    assert any(status_values(one)['source'] == 'policy' for one in status.messages)

"""policy/health of the live inference node: its content and its timing."""

import numpy as np
import pytest
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
from rclpy.qos import QoSProfile, qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_msgs.msg import String

from mobile_vla_ros.nodes.shared.messages import LATCHED
from noise_camera import INSTRUCTION, noise_image
from ros_helpers import wait_until

OK, HOLD, FAULT = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR
DEEP = QoSProfile(depth=100)


@pytest.fixture
def healths(client):
    """Return all messages on policy/health."""
    return client.subscribe(
        'policy/health', DiagnosticArray, QoSProfile(depth=100, durability=LATCHED.durability)
    )


def changes(healths) -> list[tuple]:
    """Return level and reason of each message, without repeats."""
    found = []
    for array in healths.messages:
        one = (array.status[0].level, array.status[0].message)
        if not found or found[-1] != one:
            found.append(one)
    return found


def test_a_drive_holds_until_the_window_is_full_and_at_a_new_instruction(
    nodes, client, healths, small_run
):
    """A hold is no fault: no fault is published meanwhile, and each hold has its reason."""
    rng = np.random.default_rng(0)
    proposals = client.subscribe('policy/cmd_vel', TwistStamped, DEEP)
    nodes.start('inference_node', params={'policy': str(small_run / 'best')})
    publisher = client.publisher('camera/image_raw', Image, qos_profile_sensor_data)
    wait_until(publisher.get_subscription_count, 60, 'the node')
    with client.stream(
        'camera/image_raw', lambda: noise_image(client, rng), 10.0, qos_profile_sensor_data
    ):
        wait_until(
            lambda: any('no instruction' in reason for _, reason in changes(healths)),
            60,
            'the hold',
            lambda: str(changes(healths)),
        )
        client.publish('instruction', String(data=INSTRUCTION), LATCHED)
        wait_until(
            lambda: changes(healths)[-1] == (OK, ''),
            what='OK',
            detail=lambda: str(changes(healths)),
        )
        wait_until(lambda: len(proposals) > 3, what='proposals')
        before = len(healths)
        client.publish('instruction', String(data='go to the blue ball'), LATCHED)
        wait_until(
            lambda: any(
                'new instruction' in array.status[0].message for array in healths.messages[before:]
            ),
            what='the hold',
            detail=lambda: str(changes(healths)),
        )
        wait_until(
            lambda: changes(healths)[-1] == (OK, ''),
            what='OK',
            detail=lambda: str(changes(healths)),
        )
    assert FAULT not in {level for level, _ in changes(healths)[:-1]}
    assert [level for level, _ in changes(healths)][:2] == [HOLD, HOLD]


def test_health_is_published_twice_a_second_without_changes(nodes, client, healths, small_run):
    """The guard treats a silent inference node as failed."""
    nodes.start('inference_node', params={'policy': str(small_run / 'best')})
    wait_until(lambda: len(healths) >= 8, 60, 'health')
    assert np.median(np.diff(healths.times[2:])) <= 0.5


def test_a_lifecycle_manager_can_change_its_state(nodes, client, healths, small_run):
    """Each state is published; a node that was cleaned up can be configured again."""
    proposals = client.subscribe('policy/cmd_vel', TwistStamped, DEEP)
    process = nodes.start(
        'inference_node',
        params={'policy': str(small_run / 'best'), 'instruction': INSTRUCTION, 'autostart': False},
    )

    def done(name):
        number = getattr(Transition, f'TRANSITION_{name.upper()}')
        request = ChangeState.Request(transition=Transition(id=number))
        return client.call('inference/change_state', ChangeState, request, 60).success

    def go(*names):
        for name in names:
            assert done(name), name

    rng = np.random.default_rng(0)
    images = client.publisher('camera/image_raw', Image, qos_profile_sensor_data)
    wait_until(lambda: client.node.count_publishers('/rosout') > 1, 60, 'the node')
    assert not done('activate')  # refused, and the node continues
    go('configure', 'activate')
    for again in (('activate',), ('cleanup', 'configure', 'activate'), ()):
        wait_until(images.get_subscription_count, what='the node')
        with client.stream(
            'camera/image_raw', lambda: noise_image(client, rng), 10.0, qos_profile_sensor_data
        ):
            seen = len(proposals)
            wait_until(
                lambda seen=seen: len(proposals) > seen + 3,
                what='proposals',
                detail=lambda: str(changes(healths)) + process.output,
            )
            assert not done('configure')
            go('deactivate' if again else 'active_shutdown')
            wait_until(
                lambda: changes(healths)[-1] == (HOLD, 'not active'),
                what='the hold',
                detail=lambda: str(changes(healths)),
            )
            assert {one.level for one in healths.last.status[1:]} == {FAULT}
            seen = len(proposals)
        go(*again)
        assert len(proposals) == seen
        if again:
            wait_until(
                lambda: changes(healths)[-1] == (HOLD, 'no image yet'),
                what='the hold',
                detail=lambda: str(changes(healths)),
            )
    assert 'Traceback' not in process.output

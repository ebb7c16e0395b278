"""Large compressed images in the live inference node."""

import itertools

from geometry_msgs.msg import TwistStamped
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import CompressedImage

from busy_images import busy_images
from mobile_vla_ros.images.stored import decode
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.nodes.inference.camera import CameraFrame
from mobile_vla_ros.nodes.shared.image_messages import to_compressed
from mobile_vla_ros.runtime.overlay import BAR_HEIGHT, IMAGE_HEIGHT, WIDTH


def test_the_node_drives_with_a_large_compressed_camera(nodes, client, small_run):
    """It proposes from a JPEG that it decodes no larger than needed, and draws it."""
    frames = itertools.cycle(busy_images(1280, 720, count=4))
    proposals = client.subscribe('policy/cmd_vel', TwistStamped)
    overlays = client.subscribe(
        'inference/overlay/compressed', CompressedImage, qos_profile_sensor_data
    )
    nodes.start(
        'inference_node',
        params={
            'policy': str(small_run / 'best'),
            'instruction': 'go to the red box',
            'image_transport': 'compressed',
        },
    )
    with client.stream(
        'camera/image_raw/compressed',
        lambda: to_compressed(next(frames), stamp=client.now()),
        10.0,
        qos_profile_sensor_data,
    ):
        client.wait_for(lambda: len(proposals) and len(overlays), 60, 'a proposal, drawn')
    side = read_spec(small_run / 'best').image.size
    assert CameraFrame(to_compressed(busy_images(1280, 720)[0]), 0, 0, side).image.shape == (
        90,
        160,
        3,
    )
    assert decode(bytes(overlays.last.data)).shape == (IMAGE_HEIGHT + BAR_HEIGHT, WIDTH, 3)

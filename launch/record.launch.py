"""Record: ros2 launch mobile_vla_ros record.launch.py instruction:='go to the red box'."""

from mobile_vla_ros.bringup.ros2_launch import launch_description
from mobile_vla_ros.bringup.stacks import RECORD


def generate_launch_description():
    """Return the launch description."""
    return launch_description(RECORD)

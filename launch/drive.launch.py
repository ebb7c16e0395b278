"""Drive with a policy: ros2 launch mobile_vla_ros drive.launch.py policy:=FOLDER."""

from mobile_vla_ros.bringup.ros2_launch import launch_description
from mobile_vla_ros.bringup.stacks import DRIVE


def generate_launch_description():
    """Return the launch description."""
    return launch_description(DRIVE)

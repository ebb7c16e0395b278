"""The arena as a robot: ros2 launch mobile_vla_ros sim.launch.py."""

from mobile_vla_ros.bringup.ros2_launch import launch_description
from mobile_vla_ros.bringup.stacks import SIM


def generate_launch_description():
    """Return the launch description."""
    return launch_description(SIM)

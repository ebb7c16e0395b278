"""The arena as a robot: ros2 launch mobile_vla_ros sim.launch.py."""

from mobile_vla_ros.bringup.ros2_launch import launch_description
from mobile_vla_ros.bringup.stacks import SIM


def generate_launch_description():
    """Return what ros2 launch starts."""
    return launch_description(SIM)

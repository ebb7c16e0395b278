"""A ``Bringup`` as a launch description; the only place that imports launch."""

import os
from typing import Any

from launch import LaunchContext, LaunchDescription
from launch.actions import DeclareLaunchArgument, OpaqueFunction, Shutdown
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

from mobile_vla_ros.bringup.dds import image_sender_env
from mobile_vla_ros.bringup.spec import Bringup, NodeSpec

BAD_USE = 2  # exit status of a node with invalid parameters


def launch_description(bringup: Bringup) -> LaunchDescription:
    """Return the launch description of a bring-up, with its arguments declared."""
    declared = [
        DeclareLaunchArgument(
            argument.name,
            default_value=argument.default,
            description=argument.description,
            choices=['', *argument.choices] if argument.choices else None,
        )
        for argument in bringup.arguments
    ]

    def start(context: LaunchContext) -> list[Node]:
        values = {
            argument.name: LaunchConfiguration(argument.name).perform(context)
            for argument in bringup.arguments
        }
        return [_node(spec) for spec in bringup.nodes(**values)]

    return LaunchDescription([*declared, OpaqueFunction(function=start)])


def _node(spec: NodeSpec) -> Node:
    def ended(event: Any, _context: LaunchContext) -> list[Shutdown]:
        if spec.required or event.returncode == BAD_USE:
            return [Shutdown(reason=f'{spec.name} ended with status {event.returncode}')]
        return []

    return Node(
        package=spec.package,
        executable=spec.executable,
        name=spec.name,
        namespace=spec.namespace,
        parameters=[*spec.params_files, spec.parameters],
        remappings=list(spec.remappings.items()),
        arguments=list(spec.arguments),
        additional_env=image_sender_env(os.environ) if spec.sends_images else None,
        output='screen',
        on_exit=ended,
    )

"""Node parameters with descriptors."""

import sys
from typing import Any

from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.node import Node

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.params_files import line_of


def declare(
    node: Node,
    name: str,
    default: Any,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    read_only: bool = True,
) -> Any:
    """
    Declare a parameter with a descriptor and return its value.

    :param default: the default; its Python type fixes the parameter's type.
    :param limits: minimum and maximum of a scalar number.
    :raises UserError: when the value given at start has the wrong type or is out of range.
    """
    descriptor = ParameterDescriptor(description=description, read_only=read_only)
    if limits is not None and isinstance(default, float):
        descriptor.floating_point_range = [
            FloatingPointRange(from_value=float(limits[0]), to_value=float(limits[1]))
        ]
    elif limits is not None:
        descriptor.integer_range = [
            IntegerRange(from_value=int(limits[0]), to_value=int(limits[1]))
        ]
    try:
        return node.declare_parameter(name, default, descriptor).value
    except (InvalidParameterTypeException, InvalidParameterValueException) as error:
        expected = f'a {type(default).__name__}'
        if limits is not None:
            expected += f' from {limits[0]} to {limits[1]}'
        given, place = node.get_parameter_or(name, None), line_of(node, name, sys.argv)
        raise UserError(
            (f'{place}: ' if place else '')
            + f'parameter {name!r} of node {node.get_name()!r} is refused ({error})',
            got=given.value if given else None,
            expected=expected,
            remedy=f'it is: {description}',
        ) from None

"""Messages of a bag that command a base, or tell how it moves, as twists."""

import math
import re
from collections.abc import Callable
from typing import Any, NamedTuple

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.source import AXES, ImportOptions, axes_of, scales_of

TWIST, TWIST_STAMPED = 'geometry_msgs/msg/Twist', 'geometry_msgs/msg/TwistStamped'
ODOMETRY, JOY = 'nav_msgs/msg/Odometry', 'sensor_msgs/msg/Joy'
ACKERMANN = 'ackermann_msgs/msg/AckermannDrive'
ACKERMANN_STAMPED = 'ackermann_msgs/msg/AckermannDriveStamped'
# What rosbags has no definition of; ackermann_msgs is the same in ROS 1 and 2.
DEFINITIONS = {
    ACKERMANN: 'float32 steering_angle\nfloat32 steering_angle_velocity\nfloat32 speed\n'
    'float32 acceleration\nfloat32 jerk\n',
    ACKERMANN_STAMPED: 'std_msgs/Header header\nackermann_msgs/AckermannDrive drive\n',
}
# Options that concern the messages of one type alone.
HEEDED = {
    JOY: {'scale', 'actions'},
    ACKERMANN: {'wheelbase_m'},
    ACKERMANN_STAMPED: {'wheelbase_m'},
}
JOY_AXES = 'linear_x=axes[1],linear_y=axes[0],angular_z=axes[3]'  # as the console's
ELEMENT = re.compile(r'(axes|buttons)\[(\d{1,3})\]')


class Reader(NamedTuple):
    """
    How to read the messages of one type.

    :param stamped: whether they have a header.
    :param values: returns vx vy vz in m/s, wx wy wz in rad/s of one; raises LookupError without.
    """

    stamped: bool
    values: Callable[[Any], list[float]]


def reader_of(kind: str, options: ImportOptions) -> Reader:
    """
    Return the reader of a type in ``TYPES``.

    :raises UserError: when an option that it needs is missing, or one is given that it ignores.
    """
    for name in sorted({'scale', 'actions', 'wheelbase_m'} - HEEDED.get(kind, set())):
        if getattr(options, name):
            raise UserError(
                f'commands of {kind} do not heed the option {name}',
                got=getattr(options, name),
                remedy='leave it out, or import what needs it by itself',
            )
    return TYPES[kind](options)


def _joy(options: ImportOptions) -> Reader:
    given = axes_of(options.actions)
    scales = scales_of(options.scale, given)
    places = {name: ELEMENT.fullmatch(one) for name, one in (given or axes_of(JOY_AXES)).items()}
    known = {name for name, found in places.items() if found}
    if scales.keys() - known or (options.actions and not given):
        raise UserError(
            'actions of a joystick cannot be mapped so', got=options.actions, expected=JOY_AXES
        )

    def values(message: Any) -> list[float]:
        twist = [0.0] * 6
        for name, scale in scales.items():
            found = places[name]
            assert found is not None, 'checked above'
            twist[AXES[name]] = scale * float(getattr(message, found[1])[int(found[2])])
        return twist

    return Reader(True, values)


def _ackermann(options: ImportOptions, stamped: bool) -> Reader:
    wheelbase_m = options.wheelbase_m
    if wheelbase_m is None:
        raise UserError(
            'its commands are steering angles', remedy='give --wheelbase, the metres between axles'
        )

    def values(message: Any) -> list[float]:
        drive = message.drive if stamped else message
        return [
            drive.speed,
            0,
            0,
            0,
            0,
            drive.speed * math.tan(drive.steering_angle) / wheelbase_m,
        ]

    return Reader(stamped, values)


def _of_twist(twist: Any) -> list[float]:
    parts = twist.linear, twist.angular
    return [value for part in parts for value in (part.x, part.y, part.z)]


# The first two are commands by themselves; the others, where they are named.
TYPES: dict[str, Callable[[ImportOptions], Reader]] = {
    TWIST: lambda _: Reader(False, _of_twist),
    TWIST_STAMPED: lambda _: Reader(True, lambda one: _of_twist(one.twist)),
    ODOMETRY: lambda _: Reader(True, lambda one: _of_twist(one.twist.twist)),
    ACKERMANN: lambda options: _ackermann(options, False),
    ACKERMANN_STAMPED: lambda options: _ackermann(options, True),
    JOY: _joy,
}

"""What every node shares: parameters with descriptors, running, and stopping well."""

import os
import signal
import sys
import threading
from collections.abc import Callable

import numpy as np
import rclpy
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from geometry_msgs.msg import Twist
from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor
from rclpy.duration import Duration
from rclpy.exceptions import InvalidParameterTypeException, InvalidParameterValueException
from rclpy.executors import ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.qos import DurabilityPolicy, QoSProfile, ReliabilityPolicy
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from mobile_vla_ros.errors import UserError

# Whoever comes later hears the last one too.
LATCHED = QoSProfile(
    depth=1, reliability=ReliabilityPolicy.RELIABLE, durability=DurabilityPolicy.TRANSIENT_LOCAL
)
# Hears whoever publishes, with or without receipts; what was lost is not sent again when it is
# old.
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
SPIN_TIMEOUT_S = 0.05
LAST_WORD = Duration(nanoseconds=200_000_000)


def declare(
    node: Node,
    name: str,
    default,
    description: str,
    *,
    limits: tuple[float, float] | None = None,
    read_only: bool = True,
):
    """
    Declare a parameter with a descriptor and return its value.

    :param default: the default; its Python type fixes the parameter's type.
    :param limits: lowest and highest value allowed, for a scalar number.
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
        given = node.get_parameter_or(name, None)
        raise UserError(
            f'parameter {name!r} of node {node.get_name()!r} is refused ({error})',
            got=given.value if given else None,
            expected=expected,
            remedy=f'it is: {description}',
        ) from None


def time_ns(stamp) -> int:
    """Return nanoseconds of a builtin_interfaces/Time."""
    return stamp.sec * 1_000_000_000 + stamp.nanosec


def twist_array(message: Twist) -> np.ndarray:
    """Return (6,) float64 of a Twist: m/s, then rad/s."""
    linear, angular = message.linear, message.angular
    return np.array([linear.x, linear.y, linear.z, angular.x, angular.y, angular.z])


def twist_message(twist: np.ndarray) -> Twist:
    """Return a Twist of (6,) m/s and rad/s."""
    message = Twist()
    message.linear.x, message.linear.y, message.linear.z = (float(v) for v in twist[:3])
    message.angular.x, message.angular.y, message.angular.z = (float(v) for v in twist[3:])
    return message


def status_message(
    name: str,
    message: str,
    values: dict,
    level: bytes = DiagnosticStatus.OK,
    hardware_id: str = '',
) -> DiagnosticStatus:
    """Return a DiagnosticStatus with its values as text."""
    return DiagnosticStatus(
        level=level,
        name=name,
        message=message,
        hardware_id=hardware_id,
        values=[KeyValue(key=key, value=str(value)) for key, value in values.items()],
    )


def status_array(stamp, *statuses: DiagnosticStatus) -> DiagnosticArray:
    """Return statuses as one message, with the time (builtin_interfaces/Time) they are of."""
    array = DiagnosticArray(status=list(statuses))
    array.header.stamp = stamp
    return array


def receipt_ns(node: Node, info: dict) -> int:
    """
    Return when a message was received, on the node's clock; by the middleware, which was there
    first, unless a simulation makes the time.

    :param info: the middleware's, of the message.
    """
    clock = node.get_clock()
    if clock.ros_time_is_active:
        return clock.now().nanoseconds
    return info['received_timestamp'] or clock.now().nanoseconds


def ros_version() -> str:
    """Return distribution and middleware of ROS, as an episode keeps them."""
    return (
        f'{os.environ.get("ROS_DISTRO", "")} {rclpy.get_rmw_implementation_identifier()}'.strip()
    )


def let_arrive(publisher):
    """Wait a moment for the last message to reach those who listen, before the node is gone."""
    publisher.wait_for_all_acked(LAST_WORD)


def work_to_end(node: Node, name: str, work: Callable[[], None], closing: threading.Event):
    """
    Do, in a thread of its own, the work that a node is there for; a failure ends the node.

    :param name: the executable's name, for its messages.
    :param work: sets ``node.exit_status`` itself when all went well; a ``UserError`` of its
        becomes a sentence and status 2, anything else a line in the log and status 1.
    :param closing: set while the node is being stopped; what fails then is no news.
    """
    try:
        work()
    except UserError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        node.exit_status = 2
    except Exception as error:  # a thread's exception would otherwise leave the node spinning
        if not closing.is_set():
            node.get_logger().error(f'{type(error).__name__}: {error}')
            node.exit_status = 1


def off_thread(executor, work: Callable[[], object]) -> Future:
    """Do work in a thread of its own; a coroutine awaits what it returns or raises."""
    done = Future(executor=executor)

    def attempt():
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=attempt, daemon=True).start()
    return done


def run(
    name: str, factory: Callable[[], Node], *, args: list[str] | None = None, executor=None
) -> int:
    """
    Build a node, spin it until SIGINT, SIGTERM, SIGHUP or ``node.exit_status`` says so, and
    stop it well.

    rclpy's own signal handlers are off, so that ``node.on_exit()`` can still publish (a guard's
    last zero) before the context is shut down.

    :param name: the executable's name, for its messages.
    :param factory: makes the node; a ``UserError`` of its becomes a sentence and status 2.
    :returns: the exit status of the process.
    """
    stop = {'signal': None}

    def remember(number, _frame):
        stop['signal'] = number

    signal.signal(signal.SIGINT, remember)
    signal.signal(signal.SIGTERM, remember)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # as nohup leaves it
        signal.signal(signal.SIGHUP, remember)  # the terminal, or the ssh to it, is gone
    try:
        rclpy.init(args=args, signal_handler_options=SignalHandlerOptions.NO)
    except RuntimeError as error:  # a parameter file or an argument that ROS cannot read
        print(f'{name}: error: {error}', file=sys.stderr)
        return 2
    node = None
    status = 0
    try:
        node = factory()
        executor = executor or SingleThreadedExecutor()
        executor.add_node(node)
        while stop['signal'] is None and getattr(node, 'exit_status', None) is None:
            executor.spin_once(timeout_sec=SPIN_TIMEOUT_S)
        status = getattr(node, 'exit_status', None) or 0
    except UserError as error:
        print(f'{name}: error: {error}', file=sys.stderr)
        status = 2
    except ExternalShutdownException:
        pass
    finally:
        if node is not None:
            if hasattr(node, 'on_exit'):
                node.on_exit()
            node.destroy_node()
        rclpy.try_shutdown()
    return status

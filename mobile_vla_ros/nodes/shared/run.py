"""Runs a node as a process, and long work in threads beside it."""

import signal
import sys
import threading
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

import rclpy
from rclpy.executors import Executor, ExternalShutdownException, SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.params_files import check_params_files

SPIN_TIMEOUT_S = 0.05


class EndingNode(Protocol):
    """A node that ends its process by setting ``exit_status``."""

    exit_status: int | None

    def get_logger(self) -> Any:
        """Return the node's logger."""


def work_to_end(
    node: EndingNode, name: str, work: Callable[[], None], closing: threading.Event
) -> None:
    """
    Do the work that a node exists for, in the calling thread; a failure ends the node.

    :param name: the executable's name, for its messages.
    :param work: sets ``node.exit_status`` on success; a ``UserError`` becomes a sentence on
        standard error and status 2, any other exception a line in the log and status 1.
    :param closing: set while the node is being stopped; failures are ignored from then on.
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


def off_thread(executor: Executor, work: Callable[[], object]) -> Future:
    """Do work in a thread of its own; a coroutine awaits what it returns or raises."""
    done = Future(executor=executor)

    def attempt() -> None:
        try:
            done.set_result(work())
        except Exception as error:
            done.set_exception(error)

    threading.Thread(target=attempt, daemon=True).start()
    return done


def run(
    name: str,
    factory: Callable[[], Node],
    *,
    args: list[str] | None = None,
) -> int:
    """
    Build a node and spin it until SIGINT, SIGTERM, SIGQUIT, SIGHUP or ``exit_status`` ends it.

    rclpy's own signal handlers are off, so that ``node.on_exit()`` can still publish (a guard's
    last zero) before the context is shut down.

    :param name: the executable's name, for its messages.
    :param factory: builds the node; a ``UserError`` that it raises becomes a sentence and
        status 2.
    :returns: the exit status of the process.
    """
    received: list[int] = []

    def remember(number: int, _frame: FrameType | None) -> None:
        received.append(number)

    signal.signal(signal.SIGINT, remember)
    signal.signal(signal.SIGTERM, remember)
    signal.signal(signal.SIGQUIT, remember)  # Ctrl-\\ in the terminal
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
        check_params_files(node, sys.argv if args is None else args)
        executor = SingleThreadedExecutor()
        executor.add_node(node)
        while not received and getattr(node, 'exit_status', None) is None:
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

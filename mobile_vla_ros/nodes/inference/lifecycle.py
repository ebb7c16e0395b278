"""A lifecycle node that survives invalid transitions, and a load that a signal interrupts."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode

from mobile_vla_ros.errors import Left

ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGHUP)


class PatientLifecycleNode(LifecycleNode):
    """
    Rejects invalid transitions; rclpy would terminate the process.

    :ivar exit_status: set to end the process (see ``run``).
    """

    def __init__(self, name: str):
        super().__init__(name)
        self.exit_status: int | None = None
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(_reject_invalid, service.callback)


def _reject_invalid(
    change: Callable, request: ChangeState.Request, response: ChangeState.Response
) -> ChangeState.Response:
    try:
        return change(request, response)
    except RuntimeError:  # rclpy's RCLError; the log has the transition already
        response.success = False
        return response


@contextmanager
def exit_on_signal() -> Iterator[None]:
    """
    Leave the block at a signal that ends ``run``, at once: for a long load, while nothing drives.

    The previous handler is called as well. Only the main thread receives signals; in any other
    the block runs as it is.

    :raises Left: at a signal, with status 0.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def leave(number: int, frame: FrameType | None) -> None:
        previous = before[signal.Signals(number)]
        if callable(previous):
            previous(number, frame)
        raise Left(0)

    before = {number: signal.getsignal(number) for number in ENDING}
    before = {number: one for number, one in before.items() if one != signal.SIG_IGN}
    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

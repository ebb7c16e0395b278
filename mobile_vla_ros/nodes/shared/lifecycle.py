"""A lifecycle node that no manager's mistake ends, and that a signal ends also in a long load."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from lifecycle_msgs.srv import ChangeState
from rclpy.lifecycle import LifecycleNode


class PatientLifecycleNode(LifecycleNode):
    """Refuses a transition that there is none of from its state; rclpy ends the process there."""

    def __init__(self, name: str):
        super().__init__(name)
        for service in self.services:
            if service.srv_type is ChangeState:
                service.callback = partial(_refuse, service.callback)


def _refuse(change: Callable, request, response):
    try:
        return change(request, response)
    except RuntimeError:  # rclpy's RCLError; the log has the transition already
        response.success = False
        return response


@contextmanager
def ended_at_once() -> Iterator[None]:
    """
    Leave the block at a signal of the end, and not after it: for a long one in which nothing is
    driven or written.

    :raises SystemExit: at SIGINT and SIGTERM, with status 0; ``common.run`` hears of them too.
    """
    if threading.current_thread() is not threading.main_thread():  # only that one hears signals
        yield
        return

    def leave(number, frame):
        if callable(before[number]):
            before[number](number, frame)
        raise SystemExit(0)

    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in before:
        signal.signal(number, leave)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

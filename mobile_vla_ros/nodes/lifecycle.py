"""A lifecycle node that a manager's mistake does not end."""

from collections.abc import Callable
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

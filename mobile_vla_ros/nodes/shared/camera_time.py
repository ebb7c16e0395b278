"""What times a camera's frames: its own stamps, or the middleware's times of sending."""

from dataclasses import dataclass

from builtin_interfaces.msg import Time
from rclpy.node import Node

from mobile_vla_ros.errors import UserError, did_you_mean
from mobile_vla_ros.nodes.shared.messages import time_ns
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.types import NANOSECONDS

STAMP, RECEIPT = 'stamp', 'receipt'


@dataclass(frozen=True)
class CameraTime:
    """
    How a node times the frames of its camera.

    With ``receipt`` a frame's time is its receipt minus its transport, which the middleware
    measures, minus ``latency_s``: the time at which it was sent, and the same in every node.

    :param by: ``stamp`` or ``receipt``.
    :param latency_s: from the exposure to the sending, which nothing measures; only for
        ``receipt``.
    :raises UserError: for a latency with ``stamp``.
    """

    by: str = STAMP
    latency_s: float = 0.0

    def __post_init__(self) -> None:
        if self.latency_s and not self.receipt:
            raise UserError(
                'the latency of a camera counts only where its stamps are ignored',
                got=f'camera_latency_s {self.latency_s:g} with camera_time {self.by}',
                expected='camera_latency_s 0.0',
                remedy='set that, or camera_time:=receipt if the camera has no clock',
            )

    @property
    def receipt(self) -> bool:
        """Whether the camera's stamps are ignored."""
        return self.by == RECEIPT

    def frame_ns(self, stamp: Time, info: dict) -> int:
        """
        Return the time of a frame, nanoseconds; 0 or less if it is unknown.

        :param info: the middleware's information on the message.
        """
        if not self.receipt:
            return time_ns(stamp)
        sent_ns: int = info['source_timestamp']
        return sent_ns - round(self.latency_s * NANOSECONDS) if sent_ns > 0 else 0


def declare_camera_time(node: Node) -> CameraTime:
    """
    Declare ``camera_time`` and ``camera_latency_s``; return their values.

    :raises UserError: for an unknown value, for ``receipt`` on a simulation's clock, or for a
        latency with ``stamp``.
    """
    by = declare(
        node,
        'camera_time',
        STAMP,
        "stamp: a frame's time is its stamp; receipt, for a camera without a clock: "
        'its receipt minus its transport',
    )
    latency_s = declare(
        node,
        'camera_latency_s',
        0.0,
        'with camera_time receipt: seconds from the exposure of an image until it is published',
        limits=(0.0, 10.0),
    )
    if by not in (STAMP, RECEIPT):
        raise UserError(
            'unknown camera_time',
            got=repr(by),
            expected=f'{STAMP} or {RECEIPT}',
            remedy=did_you_mean(by, (STAMP, RECEIPT)),
        )
    if by == RECEIPT and node.get_parameter('use_sim_time').value:
        raise UserError(
            'transport cannot be measured in simulated time',
            got='camera_time receipt and use_sim_time',
            remedy="use the simulation's stamps: camera_time:=stamp",
        )
    return CameraTime(by, latency_s)

"""Camera messages as frames, judged as they arrive."""

from functools import cached_property

import numpy as np
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.compressed import compressed_to_rgb
from mobile_vla_ros.images.messages import check, to_rgb
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.messages import time_ns
from mobile_vla_ros.runtime.camera_check import CameraCheck
from mobile_vla_ros.runtime.camera_faults import FrameHeader, brightness, content_hash
from mobile_vla_ros.types import NANOSECONDS


class CameraFrame:
    """
    A camera message as a frame, decoded on first use.

    :param received_ns: time of receipt on the node's clock.
    :param steady_ns: the same moment on the steady clock.
    :param side: of the square image that the policy sees, pixels.
    :param stamp_ns: its time; None: the message's stamp.
    """

    def __init__(
        self,
        message: Image | CompressedImage,
        received_ns: int,
        steady_ns: int,
        side: int,
        stamp_ns: int | None = None,
    ):
        self.message = message
        self.side = side
        self.stamp_ns = time_ns(message.header.stamp) if stamp_ns is None else stamp_ns
        self.received_ns = received_ns
        self.steady_ns = steady_ns

    @cached_property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8, RGB; a large JPEG at a reduced scale, as in training."""
        if isinstance(self.message, Image):
            return to_rgb(self.message)
        return compressed_to_rgb(self.message, self.side)

    @cached_property
    def size(self) -> tuple[int, int]:
        """
        Width and height as sent by the camera; decodes nothing.

        :raises UserError: when the message holds no whole image.
        """
        header = check(self.message)
        return header.width, header.height

    @property
    def form(self) -> str:
        """Size and encoding in words."""
        kind = (
            self.message.encoding
            if isinstance(self.message, Image)
            else self.message.format.split(';')[-1].strip() or 'compressed'
        )
        return f'{self.size[0]}x{self.size[1]} {kind}'


class CameraGate:
    """
    Judges each message in its callback and passes on only frames that are safe to drive by.

    :param guard: reports whether the base moves, which distinguishes a frozen camera from a
        still scene.
    :param side: of the square image that the policy sees, pixels.
    :param real_time: whether the node's clock is the system's.
    :ivar unreadable: how many messages held no image that can be read.
    """

    def __init__(
        self, check: CameraCheck, guard: GuardStatusListener, side: int, *, real_time: bool
    ):
        self.check = check
        self.newest: CameraFrame | None = None
        self.unreadable = 0
        self._guard, self._side, self._real_time = guard, side, real_time

    def pass_on(
        self,
        message: Image | CompressedImage,
        ros_ns: int,
        steady_ns: int,
        sequence: int | None = None,
        sent_ns: int | None = None,
    ) -> CameraFrame | None:
        """
        Judge a message; return its frame, None while there is a camera fault.

        :param ros_ns: the node's clock now.
        :param sequence: the publisher's sequence number, None where the middleware has none.
        :param sent_ns: when it was sent (``CameraTime``), 0 if unknown; None: use its stamp.
        """
        frame = CameraFrame(message, ros_ns, steady_ns, self._side, sent_ns)
        check, now_ns = self.check, steady_ns if self._real_time else ros_ns
        stamp, broken = message.header.stamp, ''
        sec, nanosec = stamp.sec, stamp.nanosec
        if sent_ns is not None:
            sec, nanosec = divmod(sent_ns, NANOSECONDS)
        check.tick(ros_ns, steady_ns)  # first: a step of this clock is not the camera's
        try:
            form = frame.form
        except Exception as error:  # an image must not end a drive
            form, broken = check.form, _sentence(error)  # unreadable, but not silent
        check.message(FrameHeader(sec, nanosec, ros_ns, now_ns, form, sequence))
        try:
            if check.due(now_ns) and not broken:
                check.content(
                    now_ns,
                    content_hash(message.data),
                    brightness(frame.image),
                    self._guard.moving_s,
                )
        except Exception as error:
            broken = _sentence(error)
        if broken:
            self.unreadable += 1
            check.unreadable(now_ns, broken)
        self.newest = frame
        return frame if check.usable else None


def _sentence(error: Exception) -> str:
    if isinstance(error, UserError):
        return str(error)
    return f'an image failed: {type(error).__name__}: {first_line(error)}'

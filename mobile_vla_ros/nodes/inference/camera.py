"""Camera messages as frames, judged as they arrive."""

import io
from functools import cached_property

import numpy as np
from PIL import Image as PillowImage
from PIL import UnidentifiedImageError
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import compressed_bytes, compressed_to_rgb, to_rgb
from mobile_vla_ros.nodes.shared.guard_status import GuardStatusListener
from mobile_vla_ros.nodes.shared.messages import time_ns
from mobile_vla_ros.runtime.camera_check import CameraCheck
from mobile_vla_ros.runtime.camera_faults import FrameHeader, brightness, content_hash


class CameraFrame:
    """
    A camera message as a frame, decoded on first use.

    :param received_ns: time of receipt on the node's clock.
    :param steady_ns: the same moment on the steady clock.
    :param side: of the square image that the policy sees, pixels.
    """

    def __init__(
        self, message: Image | CompressedImage, received_ns: int, steady_ns: int, side: int
    ):
        self.message = message
        self.side = side
        self.stamp_ns = time_ns(message.header.stamp)
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

        :raises UserError: when a compressed message holds no image.
        """
        if isinstance(self.message, Image):
            return self.message.width, self.message.height
        try:
            with PillowImage.open(io.BytesIO(compressed_bytes(self.message))) as image:
                return image.size
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            PillowImage.DecompressionBombError,
        ) as error:
            raise UserError(
                'a compressed camera image is broken', got=type(error).__name__
            ) from None

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
    """

    def __init__(
        self, check: CameraCheck, guard: GuardStatusListener, side: int, *, real_time: bool
    ):
        self.check = check
        self.newest: CameraFrame | None = None
        self._guard, self._side, self._real_time = guard, side, real_time

    def pass_on(
        self,
        message: Image | CompressedImage,
        ros_ns: int,
        steady_ns: int,
        sequence: int | None = None,
    ) -> CameraFrame | None:
        """
        Judge a message; return its frame, None while there is a camera fault.

        :param ros_ns: the node's clock now.
        :param sequence: the publisher's sequence number, None where the middleware has none.
        """
        frame = CameraFrame(message, ros_ns, steady_ns, self._side)
        check, now_ns = self.check, steady_ns if self._real_time else ros_ns
        stamp, broken = message.header.stamp, ''
        check.tick(ros_ns, steady_ns)  # first: a step of this clock is not the camera's
        try:
            form = frame.form
        except UserError as error:
            form, broken = check.form, str(error)  # unreadable, but not silent
        check.message(FrameHeader(stamp.sec, stamp.nanosec, ros_ns, now_ns, form, sequence))
        try:
            if check.due(now_ns) and not broken:
                check.content(
                    now_ns,
                    content_hash(message.data),
                    brightness(frame.image),
                    self._guard.moving_s,
                )
        except UserError as error:
            broken = str(error)
        if broken:
            check.unreadable(now_ns, broken)
        self.newest = frame
        return frame if check.usable else None

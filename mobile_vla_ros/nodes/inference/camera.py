"""What inference takes from the camera: each message judged as it comes, before the policy."""

import io
from functools import cached_property

from PIL import Image as Picture
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
    A camera message as a frame that is decoded when somebody looks at it.

    :param received_ns: on the node's clock.
    :param steady_ns: the same moment on the steady clock.
    :param side: of the square that the policy sees (`encoded.decode`).
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
    def image(self):
        """(height, width, 3) uint8, RGB; of a large JPEG at a reduced scale, as in training."""
        if isinstance(self.message, Image):
            return to_rgb(self.message)
        return compressed_to_rgb(self.message, self.side)

    @cached_property
    def size(self) -> tuple[int, int]:
        """
        Width and height as the camera took it; nothing is decoded.

        :raises UserError: when a compressed message is no image.
        """
        if isinstance(self.message, Image):
            return self.message.width, self.message.height
        try:
            with Picture.open(io.BytesIO(compressed_bytes(self.message))) as picture:
                return picture.size
        except (
            UnidentifiedImageError,
            OSError,
            SyntaxError,
            Picture.DecompressionBombError,
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
    Judges each message in its callback; what may not be driven by goes no further.

    :param guard: says whether the base moves, which a frozen camera is told by.
    :param real_time: whether the node's clock is the real one.
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
        Judge a message; return the frame when it may be driven by.

        :param ros_ns: the node's clock now.
        :param sequence: the publisher's count of its messages, None where it is not told.
        """
        shot = CameraFrame(message, ros_ns, steady_ns, self._side)
        check, now_ns = self.check, steady_ns if self._real_time else ros_ns
        stamp, problem = message.header.stamp, ''
        check.tick(ros_ns, steady_ns)  # or a step of this clock would be told as the camera's
        try:
            form = shot.form
        except UserError as error:
            form, problem = check.form, str(error)  # it came all the same: no silence
        check.message(FrameHeader(stamp.sec, stamp.nanosec, ros_ns, now_ns, form, sequence))
        try:
            if check.due(now_ns) and not problem:
                check.content(
                    now_ns,
                    content_hash(message.data),
                    brightness(shot.image),
                    self._guard.moving_s,
                )
        except UserError as error:
            problem = str(error)
        if problem:
            check.unreadable(now_ns, problem)
        self.newest = shot
        return shot if check.usable else None

"""The recorder's parameters; the shadow shares those of images."""

from dataclasses import dataclass

from rclpy.node import Node
from sensor_msgs.msg import CompressedImage, Image

from mobile_vla_ros.episode.timing.command_rule import MAX_TIMEOUT_S, SETTING
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images import messages as images
from mobile_vla_ros.images.compressed import FORMATS
from mobile_vla_ros.nodes.shared.camera_time import CameraTime, declare_camera_time
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.topics import encoding_param

MEGABYTE = 1_000_000
UNKNOWN_S = -1.0


@dataclass(frozen=True)
class ImageParams:
    """How images arrive, what times them, and how they are stored."""

    transport: str
    format: str
    quality: int
    time: CameraTime
    encoding: str

    def named(self, message: Image | CompressedImage) -> Image | CompressedImage:
        """Return an image message as it arrived, with its colours named."""
        return images.with_encoding(message, self.encoding)

    def encode(self, message: Image | CompressedImage) -> bytes:
        """Return the bytes to store of a message from ``named``; it may raise UserError."""
        return images.stored_bytes(message, self.format, self.quality)


def image_params(node: Node) -> ImageParams:
    """
    Declare the parameters of a node that stores images; return their values.

    :raises UserError: when one has the wrong type or is out of range.
    """
    params = ImageParams(
        declare(
            node,
            'image_transport',
            'raw',
            'raw (camera/image_raw) or compressed (camera/image_raw/compressed)',
        ),
        declare(
            node, 'image_format', 'jpeg', 'how raw images are stored: jpeg, or png for no loss'
        ),
        declare(node, 'jpeg_quality', 90, 'quality of a JPEG', limits=(1, 100)),
        declare_camera_time(node),
        encoding_param(node),
    )
    if params.format not in FORMATS:
        raise UserError(
            'unknown image_format', got=repr(params.format), expected=' or '.join(FORMATS)
        )
    return params


@dataclass(frozen=True)
class RecorderParams:
    """The recorder's parameters; the topic may replace ``instruction``."""

    data_dir: str
    instruction: str
    operator: str
    robot: str
    images: ImageParams
    flush_period_s: float
    queue_frames: int
    queue_bytes: int
    camera_wait_s: float
    expected_rate_hz: float
    disk_floor_bytes: int
    follow_guard: bool
    base_command_timeout_s: float | None
    ring_s: float
    ring_bytes: int
    extra_topics: tuple[str, ...]
    extra_cameras: tuple[str, ...]

    @property
    def messages(self) -> bool:
        """Whether episodes need room for messages of other topics."""
        return bool(self.extra_topics or self.extra_cameras)


def recorder_params(node: Node) -> RecorderParams:
    """
    Declare the recorder's parameters; return their values.

    :raises UserError: when one has the wrong type or is out of range.
    """
    return RecorderParams(
        data_dir=declare(
            node,
            'data_dir',
            '~/mobile_vla_takes',
            'folder of the episodes; created if missing',
        ),
        instruction=declare(
            node,
            'instruction',
            '',
            'instruction, until one arrives on the topic instruction',
        ),
        operator=declare(node, 'operator', '', 'name of the operator, stored with every episode'),
        robot=declare(node, 'robot', '', 'name of the robot, stored with every episode'),
        images=image_params(node),
        flush_period_s=declare(
            node,
            'flush_period_s',
            0.5,
            'seconds of an episode that a crash may cost',
            limits=(0.05, 1.0),
        ),
        queue_frames=declare(
            node,
            'queue_frames',
            60,
            'frames that may wait for the disk; further ones are dropped',
            limits=(1, 1000),
        ),
        queue_bytes=MEGABYTE
        * declare(node, 'queue_mb', 128, 'memory for these frames, MB', limits=(1, 100_000)),
        camera_wait_s=declare(
            node,
            'camera_wait_s',
            3.0,
            'seconds that a start waits for an image',
            limits=(0.0, 60.0),
        ),
        expected_rate_hz=declare(
            node,
            'expected_rate_hz',
            0.0,
            "the camera's rate, by which each episode is judged; 0: "
            'the rate of the best two seconds before it',
            limits=(0.0, 1000.0),
        ),
        disk_floor_bytes=MEGABYTE
        * declare(
            node,
            'disk_floor_mb',
            512,
            'free space to leave on the disk, MB',
            limits=(1, 1_000_000_000),
        ),
        follow_guard=declare(
            node,
            'follow_guard',
            False,
            'record an episode while the guard is armed, one per instruction',
        ),
        base_command_timeout_s=base_command_timeout(node),
        ring_s=declare(
            node,
            'ring_s',
            0.0,
            'seconds that the black box holds while nothing is recorded; 0: there is none',
            limits=(0.0, 300.0),
        ),
        ring_bytes=MEGABYTE
        * declare(node, 'ring_mb', 256, 'memory for these seconds, MB', limits=(1, 100_000)),
        extra_topics=_names(
            node,
            'extra_topics',
            'other topics to keep in the episodes as they arrive, of any type',
        ),
        extra_cameras=_names(
            node, 'extra_cameras', 'topics of further cameras, whose images are stored compressed'
        ),
    )


def _names(node: Node, name: str, description: str) -> tuple[str, ...]:
    """Declare a list of the names of topics; return them, each once."""
    names = declare(node, name, [''], description) or ()  # None: an empty list
    return tuple(dict.fromkeys(name.strip() for name in names if name.strip()))


def base_command_timeout(node: Node) -> float | None:
    """
    Declare what the base does when no command comes; return it as an episode states it.

    :raises UserError: for a negative value other than -1.
    """
    timeout_s: float = declare(
        node,
        SETTING,
        UNKNOWN_S,
        'the base stops this many seconds after a command; 0: it holds the last command; '
        '-1: unknown',
        limits=(UNKNOWN_S, MAX_TIMEOUT_S),
    )
    if timeout_s < 0 and timeout_s != UNKNOWN_S:
        raise UserError(
            f'{SETTING} is negative',
            got=f'{timeout_s:g}',
            expected=f'0 to {MAX_TIMEOUT_S:g}, or {UNKNOWN_S:g} for unknown',
            remedy='give the seconds after which the base stops by itself',
        )
    return timeout_s if timeout_s >= 0 else None

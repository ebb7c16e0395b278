"""An episode that the recorder has open, in a file or still in memory. Knows no ROS."""

import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, TypeAlias

from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.ring import RingWriter
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import StaleTime
from mobile_vla_ros.images.stored import BrokenImage, read_header
from mobile_vla_ros.nodes.recorder.params import RecorderParams

if TYPE_CHECKING:
    from sensor_msgs.msg import CompressedImage, Image

Message: TypeAlias = 'Image | CompressedImage'
BROKEN = 'a broken image'


@dataclass
class OpenEpisode:
    """
    What belongs to one recording.

    :ivar image_kind: size and encoding of its images (``kind``).
    :ivar began_s: when it began, on the steady clock.
    :ivar other_images: a sentence while the camera sends images of another kind, else ''.
    :ivar noted: keys of the problems that it already holds.
    :ivar lost_commands: how many commands were left out, by reason.
    :ivar stale: for how long the robot was driven on an old command.
    """

    recording: Recording
    writer: EpisodeWriter | RingWriter
    image_kind: str
    began_s: float = 0.0
    other_images: str = ''
    noted: set[str] = field(default_factory=set)
    lost_commands: Counter[str] = field(default_factory=Counter)
    stale: StaleTime = field(default_factory=StaleTime)


def open_episode(
    writer: EpisodeWriter | RingWriter, image: Message, params: RecorderParams, floor_bytes: int
) -> OpenEpisode:
    """
    Start the thread that writes an episode.

    :param image: the newest message; all images must have its size and encoding.
    :param floor_bytes: free disk space below which the episode is closed.
    """
    fitting = max(1, params.queue_bytes // max(1, len(image.data)))
    recording = Recording(
        writer,
        queue_frames=min(params.queue_frames, fitting),
        queue_bytes=params.queue_bytes,
        steady_ns=time.monotonic_ns,
        floor_bytes=floor_bytes,
    )
    return OpenEpisode(recording, writer, kind(image))


def kind(message: Message) -> str:
    """Return size and encoding of a camera message in words, such as ``1280x720 rgb8``."""
    if hasattr(message, 'encoding'):
        return f'{message.width}x{message.height} {message.encoding}'
    try:
        width, height, image_format = read_header(bytes(message.data))
    except BrokenImage:
        return BROKEN
    return f'{width}x{height} {image_format}'

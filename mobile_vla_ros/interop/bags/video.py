"""
Video topics: one picture a message, each made of those before it.

The messages are ``foxglove_msgs/CompressedVideo`` (docs.foxglove.dev: each message decodes to
exactly one picture), ``FFMPEGPacket`` (ffmpeg_image_transport) and CompressedImage whose format
names a video. PyAV decodes them; it is imported when the first one is.
"""

import re
from collections.abc import Iterator
from typing import Any, Generic, TypeVar

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import check_size

VIDEO = 'foxglove_msgs/msg/CompressedVideo'
PACKET = 'ffmpeg_image_transport_msgs/msg/FFMPEGPacket'
DEFINITIONS = {
    VIDEO: 'builtin_interfaces/Time timestamp\nstring frame_id\nuint8[] data\nstring format\n',
    PACKET: 'std_msgs/Header header\nint32 width\nint32 height\nstring encoding\nuint64 pts\n'
    'uint8 flags\nbool is_bigendian\nuint8[] data\n',
}
# What encoders and formats call a codec (libx264, h264_nvenc, h265) → PyAV's name.
CODECS = {
    r'.*(h|x)\.?264.*': 'h264',
    r'.*((h|x)\.?265|hevc).*': 'hevc',
    r'.*av1.*': 'av1',
    r'.*vp9.*': 'vp9',
}
Key = TypeVar('Key')


def codec_of(message: Any) -> str:
    """Return the codec of a message, '' for one that is an image by itself."""
    name = getattr(message, 'format', getattr(message, 'encoding', ''))
    name = re.split('[;, ]', name.strip().lower())[0]
    is_video = hasattr(message, 'timestamp') or hasattr(message, 'pts')
    if not is_video and not hasattr(message, 'format'):
        return ''
    found = next((codec for one, codec in CODECS.items() if re.fullmatch(one, name)), '')
    if is_video and not found:
        raise UserError('a video has an unknown codec', got=repr(name), expected='h264, h265, …')
    return found


class Decoder(Generic[Key]):
    """
    Decodes the messages of one topic.

    :raises UserError: when PyAV is missing, or cannot decode the codec.
    """

    def __init__(self, codec: str) -> None:
        try:
            import av
        except ModuleNotFoundError:
            raise UserError('a video needs the library av', remedy='pip install av') from None
        self._av = av
        try:
            self._context: Any = av.CodecContext.create(codec, 'r')
        except ValueError:
            raise UserError(f'this PyAV cannot decode {codec}', remedy='pip install av') from None
        self._context.thread_count = 1
        self._context.options = {'err_detect': 'explode'}  # instead of guessing what is missing
        self._whole = False  # whether every picture since a key frame was decoded
        self._waiting: dict[int, Key] = {}
        self._count = 0

    def add(self, data: bytes, key: Key) -> Iterator[tuple[Key, np.ndarray]]:
        """
        Decode a message; yield the key and the pixels of each picture that is complete.

        :returns: (height, width, 3) uint8, BGR.
        :raises UserError: for a picture beyond the limits.
        """
        packet = self._av.Packet(data)
        packet.pts = self._count
        self._waiting[self._count] = key
        self._count += 1
        yield from self._decoded(packet)

    def end(self) -> Iterator[tuple[Key, np.ndarray]]:
        """Yield the pictures that were held back."""
        yield from self._decoded(None)

    @property
    def lost(self) -> list[Key]:
        """The keys of the messages without a picture, after ``end``."""
        return list(self._waiting.values())

    def _decoded(self, packet: Any) -> Iterator[tuple[Key, np.ndarray]]:
        try:
            frames = self._context.decode(packet)
        except self._av.error.FFmpegError:  # it stays among the lost
            self._whole = False
            return
        for frame in frames:
            self._whole = (self._whole or bool(frame.key_frame)) and not frame.is_corrupt
            if self._whole and frame.pts in self._waiting:
                check_size(frame.width, frame.height)
                yield self._waiting.pop(frame.pts), frame.to_ndarray(format='bgr24')

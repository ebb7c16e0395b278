"""Small episodes, and a process that writes episodes until it is killed."""

import io
import struct
import sys
from collections.abc import Callable

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import Command

PERIOD_NS = 100_000_000
CREATED_NS = 1_800_000_000_000_000_000
START_NS = 50_000_000_000
IMU = Channel('/imu', 'sensor_msgs/msg/Imu', 'std_msgs/Header header\n# größer')
TF = Channel('/tf_static', 'tf2_msgs/msg/TFMessage', '', latched=True)

WRIST = Channel(
    '/wrist/image_raw/compressed', 'sensor_msgs/msg/CompressedImage', 'std_msgs/Header header'
)


def compressed(image: bytes, form: str = 'png', order: str = '<') -> bytes:
    """Return a CompressedImage in CDR; its frame_id has an odd length."""
    body = struct.pack(f'{order}iI', 0, 0)
    for text in (b'wrist\0', form.encode() + b'\0', image):
        body += bytes(-len(body) % 4) + struct.pack(f'{order}I', len(text)) + text
    return bytes([0, order == '<', 0, 0]) + body


def message(index: int) -> bytes:
    """Return the bytes of a message, of lengths from 5 to 40,005."""
    return b'\0\1\0\0' + bytes([index % 256]) * (1 + index % 5 * 10_000)


def encoded(
    index: int, kind: str = 'PNG', size: tuple[int, int] = (16, 12), **options: int
) -> bytes:
    """Return a small encoded image whose pixels all hold ``index``."""
    buffer = io.BytesIO()
    Image.new('RGB', size, (index % 256, index // 256, 250)).save(buffer, kind, **options)
    return buffer.getvalue()


def large(index: int) -> bytes:
    """Return an image of 24 kB: a flush of seven writes several chunks of the file."""
    return encoded(index, size=(100, 80), compress_level=0)


def write_rows(
    writer: EpisodeWriter,
    frames: int,
    *,
    delay_ns: int = 5_000_000,
    first: int = 0,
    image: Callable[[int], bytes] = encoded,
):
    """Write frames at 10 Hz and commands at 20 Hz; vx holds the frame's number, vy the half."""
    for index in range(first, first + frames):
        stamp_ns = START_NS + index * PERIOD_NS
        writer.add_frame(image(index), stamp_ns, stamp_ns + delay_ns)
        for half in range(2):
            at_ns = stamp_ns + half * PERIOD_NS // 2
            twist = np.array([index / 100, half, 0, 0, 0, -index / 100])
            writer.add_command(Command(twist, at_ns, at_ns, 'teleop'))


def write_episode(folder, frames: int = 20, instruction: str = 'go to the red box', **info):
    """Write and close one episode; return its path."""
    writer = EpisodeWriter(folder, EpisodeInfo(instruction, **info), CREATED_NS)
    write_rows(writer, frames)
    return writer.close('success')


def write_forever(folder: str, frames: int):
    """Write episodes of ``frames`` frames, flushed every 7; print what is on disk so far."""
    while True:
        info = EpisodeInfo('go to the red box')
        writer = EpisodeWriter(folder, info, CREATED_NS, messages=True)
        print('open', writer.episode_id, flush=True)
        for first in range(0, frames, 7):
            write_rows(writer, 7, first=first, image=large)
            for number in range(first, first + 7):
                writer.add_message(IMU, message(number), *[START_NS + number] * 2)
            writer.flush()
            print('flushed', first + 7, flush=True)
        writer.close('success')
        print('closed', writer.episode_id, flush=True)


if __name__ == '__main__':
    write_forever(sys.argv[1], int(sys.argv[2]))

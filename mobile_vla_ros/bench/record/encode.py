"""Cost of writing a frame, against the JPEG encoder alone and the reference run's layout."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla_ros.bench.table import Figure, at_most, plain

WIDTH, HEIGHT, QUALITY = 1280, 720, 90
FRAMES, BLOCK = 360, 15
MESSAGE_BYTES = (500, 1_000_000)  # an IMU's, a point cloud's
INSTRUCTION = 'go to the red box'
# As in an episode of the reference run; one of its frames costs as much as thirty of this package.
REFERENCE_FRAMES = 18
PERIOD_NS = 33_333_333
WRITE_FACTOR, SIZE_SHARE = 1.2, 0.1
START_NS = 1_700_000_000_000_000_000


@dataclass
class RawImage:
    """The fields of a sensor_msgs/Image that the recorder reads."""

    height: int
    width: int
    step: int
    data: bytes
    encoding: str = 'bgr8'
    is_bigendian: int = 0


def measure(folder: Path, *, quiet: bool = False) -> list[Figure]:
    """
    Encode and write the same images alternately, under the same machine load.

    Milliseconds are CPU time, except those of the close, which waits for the disk.

    :param folder: empty; keeps the files.
    """
    from mobile_vla_ros.bench.synthetic_camera import draw_number, images
    from mobile_vla_ros.episode.storage.reader import Episode
    from mobile_vla_ros.interop.legacy_layout import write_legacy_layout

    bgr = [
        np.ascontiguousarray(image[:, :, ::-1])
        for image in images(WIDTH, HEIGHT, REFERENCE_FRAMES)
    ]
    for number, image in enumerate(bgr):
        draw_number(image, number)
    alone_ms, write_ms, close_ms, path = _by_turns(folder, bgr, quiet)
    with Episode.open(path) as episode:
        frames = len(episode)
    size_mb = path.stat().st_size / frames / 1e6
    reference = folder / 'legacy_layout.h5'
    started = time.process_time()
    write_legacy_layout(reference, bgr, np.zeros((REFERENCE_FRAMES, 3), np.float32))
    reference_ms = (time.process_time() - started) / REFERENCE_FRAMES * 1e3
    reference_mb = reference.stat().st_size / REFERENCE_FRAMES / 1e6
    part = 'encode'
    return [
        plain(part, 'JPEG encoder alone', alone_ms, 'ms/frame'),
        plain(part, 'a frame converted, encoded and written', write_ms, 'ms/frame'),
        at_most(
            part, 'writing against the encoder alone', write_ms / alone_ms, WRITE_FACTOR, 'times'
        ),
        plain(part, f'closing an episode of {frames} frames', close_ms, 'ms', 0),
        plain(part, 'size', size_mb, 'MB/frame', 3),
        plain(part, "size in the reference run's layout", reference_mb, 'MB/frame', 3),
        at_most(
            part,
            "size against the reference run's layout",
            size_mb / reference_mb,
            SIZE_SHARE,
            'times',
            3,
        ),
        plain(part, "writing the reference run's layout", reference_ms, 'ms/frame', 1),
        plain(
            part, "time against the reference run's layout", write_ms / reference_ms, 'times', 3
        ),
        *(
            plain(part, f'writing an extra message of {size} bytes', message_ms, 'ms', 3)
            for size in MESSAGE_BYTES
            for message_ms in [_message_ms(folder / f'messages_{size}', size)]
        ),
    ]


def _by_turns(folder: Path, bgr: list, quiet: bool) -> tuple[float, float, float, Path]:
    """
    Return ms a frame of the encoder alone and of writing, ms of the close, and the episode.

    A block is half a second of frames and ends with the flush that is due then.
    """
    from tqdm import tqdm

    from mobile_vla_ros.episode.storage.schema import EpisodeInfo
    from mobile_vla_ros.episode.storage.writer import EpisodeWriter
    from mobile_vla_ros.images.messages import encode_message

    messages = [RawImage(HEIGHT, WIDTH, WIDTH * 3, image.tobytes()) for image in bgr]
    writer = EpisodeWriter(folder, EpisodeInfo(INSTRUCTION), START_NS)
    alone, written = [], []
    for first in tqdm(
        range(0, FRAMES, BLOCK), desc='encode', unit='block', disable=quiet, leave=False
    ):
        block = range(first, first + BLOCK)
        started = time.process_time()
        for number in block:
            _encoder_alone(bgr[number % len(bgr)])
        alone.append((time.process_time() - started) / BLOCK)
        started = time.process_time()
        for number in block:
            now_ns = START_NS + number * PERIOD_NS
            encoded = encode_message(messages[number % len(messages)], 'jpeg', QUALITY)
            writer.add_frame(encoded, now_ns, now_ns)
            writer.flush_if_due(now_ns)
        written.append((time.process_time() - started) / BLOCK)
    started = time.perf_counter()
    path = writer.close()
    close_ms = (time.perf_counter() - started) * 1e3
    # The first block of each is a warm-up.
    return float(np.mean(alone[1:])) * 1e3, float(np.mean(written[1:])) * 1e3, close_ms, path


def _message_ms(folder: Path, size: int) -> float:
    """Return ms of writing a message of an extra topic, flushed every ``BLOCK``."""
    from mobile_vla_ros.episode.records import Channel
    from mobile_vla_ros.episode.storage.schema import EpisodeInfo
    from mobile_vla_ros.episode.storage.writer import EpisodeWriter

    writer = EpisodeWriter(folder, EpisodeInfo(INSTRUCTION), START_NS, messages=True)
    channel, data = Channel('/points', 'sensor_msgs/msg/PointCloud2'), bytes([1]) * size
    started = time.process_time()
    for number in range(FRAMES):
        writer.add_message(channel, data, *[START_NS + number] * 3)
        if number % BLOCK == BLOCK - 1:
            writer.flush()
    spent_s = time.process_time() - started
    writer.discard()
    return spent_s / FRAMES * 1e3


def _encoder_alone(image: np.ndarray) -> np.ndarray:
    """Encode with the package's JPEG library alone."""
    import cv2

    return cv2.imencode('.jpg', image, (cv2.IMWRITE_JPEG_QUALITY, QUALITY))[1]

"""Processes that record until they are killed or their disk is full."""

import io
import json
import os
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mobile_vla_ros.episode.catalog.inspect import judge_episode
from mobile_vla_ros.episode.storage import disk
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import Command
from small_episodes import IMU, encoded, message

PERIOD_S = 1 / 30


def noise(number: int, size: tuple[int, int] = (160, 120)) -> bytes:
    """Return a JPEG of noise, which hardly compresses: about 20 kB."""
    pixels = np.random.default_rng(number).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, 'JPEG', quality=90)
    return buffer.getvalue()


def begin(folder: Path, **options) -> Recording:
    """Start an episode in the folder."""
    info = EpisodeInfo('go to the red box')
    writer = EpisodeWriter(folder, info, time.time_ns(), messages=True)
    options = {'queue_frames': 60, 'queue_bytes': 10_000_000, **options}
    return Recording(writer, steady_ns=time.monotonic_ns, **options)


def hand_over(recording: Recording, number: int, image: bytes) -> bool:
    """Hand over one frame, a message, and a command with the same number as vx."""
    now_ns = time.monotonic_ns()
    recording.command(Command(np.array([number, 0, 0, 0, 0, 0.0]), now_ns, now_ns, 'teleop'))
    recording.message(IMU, message(number), now_ns, now_ns)
    return recording.frame(lambda: image, now_ns, now_ns)


def record_forever(folder: Path):
    """Write one whole episode, then one at 30 Hz forever; log each frame handed over."""
    recording = begin(folder)
    for number in range(5):
        hand_over(recording, number, encoded(number))
    recording.finish('success')
    assert recording.join(60) and recording.path, recording.error
    images = [encoded(number) for number in range(1000)]
    recording = begin(folder)
    with (folder / 'handed_over.log').open('w') as log:
        print('recording', recording.path, flush=True)
        for number, image in enumerate(images):
            log.write(f'{number} {time.monotonic_ns()}\n')
            log.flush()
            hand_over(recording, number, image)
            time.sleep(PERIOD_S)


def fill_disk(folder: Path, floor_bytes: int, others_fill: bool):
    """Record until the recording ends by itself; print its state as JSON."""
    recording = begin(folder, floor_bytes=floor_bytes)
    images, handed = [noise(number) for number in range(8)], 0
    deadline = time.monotonic() + 100
    while not recording.ended and time.monotonic() < deadline:
        # The queue never overflows, so that every missing frame was refused by the disk.
        if recording.queued < 30 and hand_over(recording, handed, images[handed % 8]):
            handed += 1
        if others_fill and handed == 120:
            _fill_up(folder / 'other_files')
        time.sleep(0.005)
    result = {
        'handed': handed,
        'drops': recording.drops,
        'problem': recording.problem,
        'error': recording.error,
        'free': disk.free_bytes(folder),
        'path': str(recording.path),
        'health': recording.health,
        'files': sorted(path.name for path in folder.iterdir()),
        'frames': recording.frames,
    }
    with Episode.open(recording.path) as episode:
        result |= {
            'complete': episode.complete,
            'outcome': episode.outcome,
            'right': [episode.encoded(i) == images[i % 8] for i in range(len(episode))],
            'commands': len(episode.commands),
            'messages': len(episode.messages(IMU.topic)),
            'lost_messages': recording.lost_messages,
            'same_verdict': judge_episode(episode) == episode.health,
            'events': [[e.name, e.text] for e in episode.events],
        }
    _fill_up(folder / 'rest')
    try:
        begin(folder)
    except UserError as error:
        result['refused'] = str(error)
    result['files_after'] = sorted(path.name for path in folder.iterdir())
    print(json.dumps(result))


def _fill_up(path: Path):
    """Write zeros until the disk is full."""
    with path.open('wb', buffering=0) as file:
        for size in (65536, 4096):
            try:
                while file.write(bytes(size)) == size:
                    pass
            except OSError:
                continue


if __name__ == '__main__':
    if sys.argv[1] == 'record':
        record_forever(Path(sys.argv[2]))
    else:
        fill_disk(Path(sys.argv[2]), int(sys.argv[3]), sys.argv[4] == 'others')
    sys.stdout.flush()
    os._exit(0)

"""
Thousands of episodes in a moment: copies of one, each with its own id and time.

As a script it measures the cost of listing so many:
``python test/helpers/many_episodes.py FOLDER COUNT`` (fills the folder if it is empty).
"""

import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np

from mobile_vla_ros.episode.storage import schema
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.types import Command
from small_episodes import CREATED_NS, START_NS, encoded

STEP_NS = 200_000_000
KEYS = {
    'w': (1, 0),
    's': (-1, 0),
    'a': (0, 1),
    'd': (0, -1),
    'q': (1, 1),
    'e': (1, -1),
    'z': (-1, 1),
    'c': (-1, -1),
    ' ': (0, 0),
}
SECONDS_PER_EPISODE = 60

# Runs `mobile_vla` and prints its cost to stderr: time, peak memory, imported libraries.
MEASURED = """
import json, resource, sys, time
from mobile_vla_ros.cli.main import main
began, worked = time.monotonic(), time.process_time()
status = main(sys.argv[1:])
elapsed, worked = time.monotonic() - began, time.process_time() - worked
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
print(json.dumps({'status': status, 'seconds': round(elapsed, 2), 'cpu_s': round(worked, 2),
                  'peak_mb': round(peak, 1),
                  'heavy': sorted({'torch', 'pandas', 'transformers'} & set(sys.modules))}),
      file=sys.stderr)
"""


def drive(
    folder,
    keys: str,
    instruction: str = 'go to the red box',
    *,
    speed: float = 1.15,
    step_ns: int = STEP_NS,
    outcome: str = 'success',
    first_image: int = 1,
    created_ns: int = CREATED_NS,
) -> Path:
    """Write an episode like those of the reference run: one frame and one command per key."""
    writer = EpisodeWriter(folder, EpisodeInfo(instruction), created_ns)
    for step, key in enumerate(keys):
        at_ns = START_NS + step * step_ns
        writer.add_frame(encoded(first_image + step), at_ns, at_ns)
        vx, vy = KEYS[key]
        writer.add_command(
            Command(np.array([vx * speed, vy * speed, 0, 0, 0, 0.0]), at_ns, at_ns, 'teleop')
        )
    return writer.close(outcome)


def multiply(source: Path, folder: Path, count: int):
    """Fill a folder with copies of one episode, each with another id."""
    whole = source.read_bytes()
    for index in range(count):
        episode_id = schema.new_episode_id(CREATED_NS + index * SECONDS_PER_EPISODE * 10**9)
        path = folder / f'{episode_id}{schema.SUFFIX}'
        path.write_bytes(whole)
        with h5py.File(path, 'r+') as file:
            file.attrs['episode_id'] = episode_id
            file.attrs['instruction'] = f'go to the {("red", "blue", "green")[index % 3]} box'


def run_measured(*arguments) -> tuple[str, dict]:
    """Run `mobile_vla` as a process; return its output and its cost."""
    done = subprocess.run(
        [sys.executable, '-c', MEASURED, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=1800,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout, json.loads(done.stderr.splitlines()[-1])


def main(folder: str, count: str):
    """Print the cost of the first and the second listing, and of the coach."""
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    if not any(folder.glob('*.h5')):
        source = drive(folder.parent, ''.join(itertools.islice(itertools.cycle('wwqqawwd'), 18)))
        began = time.monotonic()
        multiply(source, folder, int(count))
        print(f'written in {time.monotonic() - began:.1f} s, {source.stat().st_size} bytes each')
        os.unlink(source)
    for name in ('list', 'list', 'coach'):
        out, cost = run_measured('episodes', name, folder)
        last = out.splitlines()[-1] if name == 'list' else ''
        print(
            f'{name:6} {cost["seconds"]:7.2f} s  {cost["cpu_s"]:7.2f} s CPU  '
            f'{cost["peak_mb"]:6.1f} MB  {last}'
        )


if __name__ == '__main__':
    main(*sys.argv[1:])

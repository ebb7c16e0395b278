"""Record onto a disk that fills up, and down to the recorder's floor, on a real tmpfs."""

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path

from mobile_vla_ros.bench.table import Figure, at_most, none_of, plain
from mobile_vla_ros.errors import UserError

# Only this process and its children see the mount, and it ends with them; needs no root.
UNSHARE = ('unshare', '--map-root-user', '--mount')
DISK_MB, FLOOR_MB = 32, 20
RATE_HZ, SECONDS = 30.0, 120.0
BALLAST_AFTER_CALLS = 100  # about two seconds
SIZE = (1280, 720)


def measure(folder: Path) -> list[Figure]:
    """
    Record one episode until the tmpfs is full, and another down to the floor.

    :param folder: empty; keeps the logs.
    :raises UserError: if a node exits early.
    """
    trial = _mount(folder / 'trial')
    if (
        shutil.which(UNSHARE[0]) is None
        or subprocess.run([*UNSHARE, *trial], capture_output=True, check=False).returncode
    ):
        return [plain('disk', 'not measured', 'not permitted to mount a tmpfs (unshare)')]
    done = subprocess.run(
        [*UNSHARE, sys.executable, '-m', __name__, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise UserError('the benchmark stopped', got=done.stderr.strip())
    found = json.loads(done.stdout.splitlines()[-1])
    figures = []
    for name, episode in found.items():
        figures += [
            plain('disk', f'{name}: frames in the file', episode['in_file']),
            Figure(
                'disk',
                f'{name}: ended by',
                episode['by'],
                f'the {episode["by"]}',
                'the recorder',
                episode['by'] == 'recorder',
            ),
            Figure(
                'disk',
                f'{name}: the file',
                'whole' if episode['whole'] else 'cut',
                'whole' if episode['whole'] else 'cut',
                'whole',
                episode['whole'],
            ),
            none_of('disk', f'{name}: frames missing in the middle', episode['gaps']),
        ]
    figures.append(
        at_most(
            'disk',
            'floor: written below it',
            max(FLOOR_MB - found['floor']['free_mb'], 0.0),
            8.0,
            'MB',
            1,
        )
    )
    return figures


def _mount(point: Path) -> list[str]:
    point.mkdir()
    return ['mount', '-t', 'tmpfs', '-o', f'size={DISK_MB}m', 'tmpfs', str(point)]


def _inside(folder: Path) -> dict[str, dict]:
    """Record on file systems private to this process; return the result of each episode."""
    return {
        'full': _fill(folder / 'full', 1, ballast=True),
        'floor': _fill(folder / 'floor', FLOOR_MB, ballast=False),
    }


def _fill(folder: Path, floor_mb: int, *, ballast: bool) -> dict:
    from mobile_vla_ros.bench.record.load import frame_numbers, record
    from mobile_vla_ros.episode.storage.reader import Episode

    folder.mkdir()
    disk = folder / 'disk'
    subprocess.run(_mount(disk), check=True, capture_output=True)
    found = record(
        folder,
        seconds=SECONDS,
        rate_hz=RATE_HZ,
        size=SIZE,
        quiet=True,
        data_dir=disk / 'takes',
        parameters={'disk_floor_mb': floor_mb},
        meanwhile=_Ballast(disk) if ballast else lambda: None,
    )
    with Episode.open(found['path']) as episode:
        numbers = frame_numbers(episode)
        whole = bool(episode.complete and episode.health)
    return {
        'by': found['by'],
        'in_file': len(numbers),
        'whole': whole,
        'gaps': numbers[-1] - numbers[0] + 1 - len(numbers),
        'free_mb': shutil.disk_usage(disk).free / 1e6,
    }


class _Ballast:
    """Fill the disk at the call number BALLAST_AFTER_CALLS, as another process might."""

    def __init__(self, disk: Path):
        self._disk, self._calls = disk, itertools.count()

    def __call__(self):
        if next(self._calls) != BALLAST_AFTER_CALLS:
            return
        with contextlib.suppress(OSError), (self._disk / 'ballast').open('wb', 0) as file:
            while True:
                file.write(bytes(4096))


if __name__ == '__main__':
    try:
        print(json.dumps(_inside(Path(sys.argv[1]))))
    except UserError as error:
        sys.exit(str(error))

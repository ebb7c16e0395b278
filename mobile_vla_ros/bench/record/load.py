"""Losses and cost of the recorder at a high camera rate."""

import itertools
import time
from collections.abc import Callable
from pathlib import Path

from mobile_vla_ros.bench.process import Cost
from mobile_vla_ros.bench.table import Figure, at_most, none_of, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError

RATE_HZ, OVERLOAD_HZ = 30.0, 60.0
OVERLOAD_SHARE = 0.1
CORES, MEGABYTES = 1.0, 500.0
# The recorder publishes its status every 0.5 s; twice that means that it was blocked.
STATUS_GAP_S = 1.0
START_S = 75.0  # longer than the timeout of the source, whose error names what it waits for
POLL_S = 0.02
RECORDER, SOURCE = 'recorder', 'bench_source'
INSTRUCTION = 'go to the red box'


def measure(folder: Path, seconds: float, *, quiet: bool = False) -> list[Figure]:
    """
    Record for ``seconds`` at 30 Hz, then for a tenth of that at 60 Hz.

    :param folder: empty; keeps episodes and logs.
    """
    normal = record(folder / 'at_30', seconds=seconds, rate_hz=RATE_HZ, quiet=quiet)
    over = record(
        folder / 'at_60',
        seconds=max(seconds * OVERLOAD_SHARE, 3.0),
        rate_hz=OVERLOAD_HZ,
        quiet=quiet,
    )
    part = 'load 30 Hz'
    figures = [
        plain(part, 'episode', normal['seconds'], 's', 1),
        plain(part, 'frames sent', normal['frames']),
        plain(part, 'camera rate', normal['frame_hz'], 'Hz'),
        none_of(part, 'frames lost on the way to the recorder', normal['lost'], normal['frames']),
        none_of(part, 'frames dropped by the recorder', normal['dropped'], normal['frames']),
        none_of(part, 'frames repeated or out of order', normal['disorder']),
        none_of(part, 'commands lost', normal['commands_lost'], normal['commands']),
        at_most(part, 'recorder, mean', normal['cores'], CORES, 'cores'),
        at_most(part, 'recorder, peak memory', normal['peak_mb'], MEGABYTES, 'MB', 0),
        at_most(part, 'longest gap in its status', normal['status_gap_s'], STATUS_GAP_S, 's'),
        plain(part, 'most frames queued', normal['most_queued']),
        plain(part, 'source, mean', normal['source_cores'], 'cores'),
        plain(part, 'file', normal['bytes'] / max(normal['in_file'], 1) / 1e6, 'MB/frame', 3),
    ]
    part = 'load 60 Hz'
    return [
        *figures,
        plain(part, 'episode', over['seconds'], 's', 1),
        plain(part, 'frames sent', over['frames']),
        plain(part, 'camera rate', over['frame_hz'], 'Hz'),
        plain(part, 'frames in the file', over['in_file']),
        plain(part, 'frames dropped and counted', over['counted']),
        none_of(
            part,
            'frames lost and not counted',
            max(over['missing'] - over['counted'], 0),
            over['frames'],
        ),
        none_of(part, 'frames repeated or out of order', over['disorder']),
        plain(part, 'commands lost', over['commands_lost']),
        at_most(part, 'longest gap in its status', over['status_gap_s'], STATUS_GAP_S, 's'),
        plain(part, 'recorder, mean', over['cores'], 'cores'),
        at_most(part, 'recorder, peak memory', over['peak_mb'], MEGABYTES, 'MB', 0),
    ]


def record(
    folder: Path,
    *,
    seconds: float,
    rate_hz: float,
    size: tuple[int, int] = (1280, 720),
    quiet: bool = False,
    data_dir: Path | None = None,
    parameters: dict | None = None,
    meanwhile: Callable[[], None] = lambda: None,
) -> dict:
    """
    Record one episode with the real recorder, and count what is missing in the file.

    :param folder: keeps episodes and logs.
    :param size: width and height of the images, pixels.
    :param data_dir: of the episodes; None: in ``folder``.
    :param parameters: of the recorder, in addition to the shipped ones.
    :param meanwhile: called repeatedly during the episode.
    :returns: the result of `inspect`, the last line of the source (frames, commands, …), and the
        cost: cores, peak_mb, source_cores, seconds.
    :raises UserError: if a node exits early.
    """
    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes

    data_dir = data_dir or folder / 'takes'
    with Processes(folder / 'log', isolated()) as processes:
        processes.start(recorder(data_dir, parameters or {}))
        processes.start(source(seconds=seconds, rate_hz=rate_hz, size=size), finite=True)
        events = Events(processes, quiet)
        try:
            events.wait('started', START_S)
            costs = {name: Cost(processes[name].process.pid) for name in (RECORDER, SOURCE)}
            events.wait(
                'silent', seconds + START_S, bar_s=seconds, what=f'{rate_hz:g} Hz', each=meanwhile
            )
            cores = {name: cost.cores() for name, cost in costs.items()}
            ended = events.wait('ended', START_S)
            peak_mb = costs[RECORDER].peak_mb()
        except ProcessEnded as error:
            raise UserError(f'the benchmark stopped: {error}') from error
    found = inspect(data_dir, ended)
    return {
        **ended,
        **found,
        'cores': cores[RECORDER],
        'source_cores': cores[SOURCE],
        'peak_mb': peak_mb,
        'seconds': ended['frames'] / ended['frame_hz'],
    }


def recorder(data_dir: Path, parameters: dict, **changes):
    """Return the recorder alone, as `record.launch.py` starts it."""
    from dataclasses import replace

    from mobile_vla_ros.bringup.stacks import RECORD

    (spec,) = (
        one
        for one in RECORD.nodes(console=False, guard=False, data_dir=str(data_dir))
        if one.name == RECORDER
    )
    return replace(
        spec,
        parameters={
            **spec.parameters,
            'instruction': INSTRUCTION,
            'image_transport': 'raw',
            **parameters,
        },
        **changes,
    )


def source(*, seconds: float, rate_hz: float, size: tuple[int, int], **parameters):
    """Return the benchmark's source of images and commands."""
    from mobile_vla_ros.bringup.spec import NodeSpec

    return NodeSpec(
        SOURCE,
        SOURCE,
        parameters={
            'seconds': float(seconds),
            'rate_hz': float(rate_hz),
            'width': size[0],
            'height': size[1],
            **parameters,
        },
        sends_images=True,
    )


def inspect(data_dir: Path, ended: dict) -> dict:
    """
    Compare the one episode of a folder with what the source sent.

    :param ended: the source's last line.
    :returns: in_file (frames sent that are in the file), missing (frames sent that are not),
        counted (missing frames reported by the episode's events), dropped (of these, by the
        recorder's queue), lost (missing for another reason), disorder, commands_lost, bytes,
        verdict.
    :raises UserError: if there is not exactly one episode, or it cannot be read.
    """
    from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
    from mobile_vla_ros.episode.storage.schema import dropped_frames

    paths = find_episodes(data_dir)
    if len(paths) != 1:
        raise UserError(f'{data_dir} contains {len(paths)} episodes', expected='1')
    with Episode.open(paths[0]) as episode:
        numbers = frame_numbers(episode)
        sent = range(ended['first_frame'], ended['first_frame'] + ended['frames'])
        drops = [
            (dropped_frames(event.text), event.text)
            for event in episode.events
            if event.name == 'drop'
        ]
        commands = {int(number) for number in episode.commands.twist[:, 3]}
        commands_sent = range(ended['first_command'], ended['first_command'] + ended['commands'])
        verdict = (episode.health or {}).get('verdict', '')
    missing = len(set(sent) - set(numbers))
    dropped = sum(count for count, text in drops if ' lost ' not in text)
    return {
        'path': str(paths[0]),
        'bytes': paths[0].stat().st_size,
        'verdict': verdict,
        'in_file': len(set(sent) & set(numbers)),
        'missing': missing,
        'counted': sum(count for count, _ in drops),
        'dropped': dropped,
        'lost': max(missing - dropped, 0),
        'disorder': sum(b <= a for a, b in itertools.pairwise(numbers)),
        'commands_lost': len(set(commands_sent) - commands),
    }


def frame_numbers(episode) -> list[int]:
    """
    Return the number in the pixels of every frame.

    :raises UserError: if the number of a frame cannot be read: the image was changed.
    """
    import cv2
    import numpy as np

    from mobile_vla_ros.bench.synthetic_camera import read_number

    numbers = []
    for index in range(len(episode)):
        # An image decodes several times faster at a quarter of its size.
        image = cv2.imdecode(
            np.frombuffer(episode.encoded(index), np.uint8), cv2.IMREAD_REDUCED_COLOR_4
        )
        number = None if image is None else read_number(image, scale=4)
        if number is None:
            raise UserError(
                f'{episode.path} contains an image that was not sent',
                got=f'no number in frame {index}',
            )
        numbers.append(number)
    return numbers


class Events:
    """Reads the JSON lines of the source."""

    def __init__(self, processes, quiet: bool):
        self._processes, self._quiet = processes, quiet
        self._seen = 0

    def pause(self, seconds: float, what: str) -> None:
        """Let the nodes run; raises ProcessEnded if one exits."""
        from tqdm import trange

        for _ in trange(round(seconds / POLL_S), desc=what, disable=self._quiet, leave=False):
            self._processes.check()
            time.sleep(POLL_S)

    def wait(
        self,
        event: str,
        timeout_s: float,
        *,
        bar_s: float | None = None,
        what: str = '',
        each: Callable[[], None] = lambda: None,
    ) -> dict:
        """
        Return the next line of an event; wait for it.

        :param bar_s: the expected seconds, for a progress bar; None: no bar.
        :raises UserError: after the timeout.
        :raises ProcessEnded: if a node exits early.
        """
        from tqdm import tqdm

        began = time.monotonic()
        with tqdm(
            total=bar_s,
            desc=what,
            disable=self._quiet or bar_s is None,
            leave=False,
            bar_format='{desc} {bar} {n:.0f}/{total:.0f} s',
        ) as bar:
            while True:
                for line in self._processes[SOURCE].json_lines()[self._seen :]:
                    self._seen += 1
                    if line['event'] == event:
                        return line
                self._processes.check()
                each()
                elapsed_s = time.monotonic() - began
                bar.update(min(elapsed_s, bar_s or elapsed_s) - bar.n)
                if elapsed_s > timeout_s:
                    raise UserError(
                        f'the source did not report {event!r}',
                        got=f'after {timeout_s:.0f} s: '
                        f'{self._processes[SOURCE].tail(2)}; the recorder: '
                        f'{self._processes[RECORDER].tail(5)}',
                    )
                time.sleep(POLL_S)

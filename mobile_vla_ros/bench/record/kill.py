"""Kill recorders at random moments; count what survives and what the next one recovers."""

import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mobile_vla_ros.bench.record.load import RATE_HZ, START_S, Events, recorder, source
from mobile_vla_ros.bench.table import Figure, all_of, at_most, none_of, plain
from mobile_vla_ros.bringup.domain import isolated
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import sha256

LOST_S = 1.0
LONGEST_S = 3.0
# Small images: a hundred episodes must fit on any disk.
SIZE = (640, 360)
POLL_S = 0.05


@dataclass
class Killed:
    """An episode, and when its recorder was killed; times are wall clock, nanoseconds."""

    part: Path
    started_ns: int
    killed_ns: int

    @property
    def whole(self) -> Path:
        """The path of the recovered episode."""
        return self.part.with_suffix('')


def measure(folder: Path, kills: int, seed: int, *, quiet: bool = False) -> list[Figure]:
    """
    Kill ``kills`` recorders at random moments of their episodes, and count what survives.

    Each recorder finds the episode of the one before and is killed in turn, often while it
    recovers; the last one runs until everything is recovered.

    :param folder: empty; keeps episodes and logs.
    """
    episodes = folder / 'takes'
    killed, seen = _kill(folder, episodes, kills, seed, quiet)
    states = [_state(episode) for episode in killed]
    untouched = sum(_hash(path) == before for path, before in seen.items())
    part = 'kill'
    return [
        plain(part, 'recorders killed in mid-episode', kills),
        plain(part, 'frames kept', sum(state['frames'] for state in states)),
        all_of(part, 'episodes that open', sum(state['opens'] for state in states), kills),
        all_of(
            part,
            'episodes recovered and marked as recovered',
            sum(state['marked'] for state in states),
            kills,
        ),
        at_most(
            part, 'longest part of an episode lost', max(s['lost_s'] for s in states), LOST_S, 's'
        ),
        plain(part, 'frames that a busy machine lost, counted', sum(s['counted'] for s in states)),
        none_of(part, 'frames missing in the middle', sum(s['gaps'] for s in states)),
        all_of(part, 'earlier episodes untouched', untouched, len(seen)),
    ]


def _kill(
    folder: Path,
    episodes: Path,
    kills: int,
    seed: int,
    quiet: bool,
) -> tuple[list[Killed], dict[Path, str]]:
    """Return the episodes, and the hash of each finished file when first seen."""
    import random

    from tqdm import tqdm

    from mobile_vla_ros.bringup.processes import ProcessEnded, Processes

    moments = random.Random(seed)
    killed: list[Killed] = []
    seen: dict[Path, str] = {}
    with Processes(folder / 'log', isolated()) as processes:
        processes.start(
            source(
                seconds=0.0,
                rate_hz=RATE_HZ,
                size=SIZE,
                takes=kills,
                recorder='kill_{}/recorder',
                settle_s=0.2,
            )
        )
        events = Events(processes, quiet=True)
        try:
            for number in tqdm(
                range(kills), desc='kill', unit='episode', disable=quiet, leave=False
            ):
                before = set(episodes.glob('*.part'))
                processes.start(_in_namespace(episodes, f'kill_{number}'))
                events.wait('started', START_S)
                (part,) = set(episodes.glob('*.part')) - before
                episode = Killed(part, time.time_ns(), 0)
                time.sleep(moments.uniform(0.0, LONGEST_S))
                episode.killed_ns = time.time_ns()
                processes['recorder'].process.kill()
                processes.stop('recorder')
                killed.append(episode)
                _note(episodes, seen)
            processes.start(_in_namespace(episodes, 'survivor'))
            _recovered(killed, processes)
        except ProcessEnded as error:
            raise UserError(f'the benchmark stopped: {error}') from error
        _note(episodes, seen)
    return killed, seen


def _in_namespace(episodes: Path, namespace: str):
    """
    Return a recorder in its own namespace that subscribes to the shared camera.

    A killed process stays on the graph for seconds: with one name for all, a call could reach its
    services instead of the next recorder's.
    """
    return recorder(
        episodes,
        {},
        namespace=namespace,
        remappings={name: f'/{name}' for name in ('camera/image_raw', 'cmd_vel')},
    )


def _recovered(killed: list[Killed], processes):
    """Wait until the last recorder has recovered all episodes, at most START_S."""
    deadline = time.monotonic() + START_S
    while not all(episode.whole.exists() for episode in killed) and time.monotonic() < deadline:
        processes.check()
        time.sleep(POLL_S)


def _note(episodes: Path, seen: dict[Path, str]):
    for path in episodes.glob('*.h5'):
        if path not in seen:
            seen[path] = _hash(path)


def _hash(path: Path) -> str:
    if not path.exists():
        return ''
    return sha256(path)


def _state(killed: Killed) -> dict:
    """
    Return what survives of an episode.

    :returns: frames, opens, marked, counted (frames that were lost before the recorder, by its
        own count), gaps (frames missing between the first and the last beyond these), and lost_s:
        seconds of the episode after its last row.
    """
    from mobile_vla_ros.bench.record.load import frame_numbers
    from mobile_vla_ros.episode.storage.reader import Episode
    from mobile_vla_ros.episode.storage.schema import dropped_frames

    path = killed.whole if killed.whole.exists() else killed.part
    try:
        with Episode.open(path) as episode:
            numbers = frame_numbers(episode)
            rows_ns = np.append(episode.frame_stamp_ns, episode.commands.received_ns)
            newest_ns = int(rows_ns.max(initial=killed.started_ns))
            lost = [one.text for one in episode.events if one.name == 'drop']
            marked = episode.complete and episode.recovered
    except UserError:
        return {
            'frames': 0,
            'opens': False,
            'marked': False,
            'counted': 0,
            'gaps': 0,
            'lost_s': (killed.killed_ns - killed.started_ns) / 1e9,
        }
    gaps = numbers[-1] - numbers[0] + 1 - len(numbers) if numbers else 0
    counted = sum(map(dropped_frames, lost))
    gaps = max(0, gaps - counted)
    return {
        'frames': len(numbers),
        'opens': True,
        'marked': marked,
        'counted': counted,
        'gaps': gaps,
        'lost_s': (killed.killed_ns - newest_ns) / 1e9 + gaps / RATE_HZ,
    }

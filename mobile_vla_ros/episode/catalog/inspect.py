"""One episode on disk: everything that is known of it, and its verdict measured again."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

from mobile_vla_ros.episode.catalog.file_worker import FileWorker, shared_call
from mobile_vla_ros.episode.quality import verdict
from mobile_vla_ros.episode.quality.further_camera import FurtherCamera
from mobile_vla_ros.episode.quality.image_quality import ImageTally
from mobile_vla_ros.episode.quality.verdict import Health
from mobile_vla_ros.episode.storage import recovery, schema
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import dropped_frames, messages_of
from mobile_vla_ros.episode.timing.base_estimate import estimate
from mobile_vla_ros.episode.timing.command_rule import SETTING, CommandRule, known_rule
from mobile_vla_ros.episode.timing.timeline import times_of
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.types import ACCEPTED_VERDICTS, NANOSECONDS, TWIST_AXES

RECOVERY = 'episode.storage.recovery'  # as work for a ``FileWorker``
# m/s or rad/s: a command beyond it comes from a broken file or is in other units.
MAX_SPEED = 100.0


def describe(path: Path) -> dict[str, Any]:
    """
    Return everything that is known of an episode, as plain values.

    :raises UserError: when it cannot be read.
    """
    with Episode.open(path) as episode:
        size = ''
        if len(episode):
            height, width, _ = episode.frame(0).image.shape
            size = f'{width}x{height}'
        return {
            'path': str(path),
            **episode.attributes,
            **({'edits': episode.edits.words()} if episode.edits.standing else {}),
            'health': judged(episode),
            'frames': len(episode),
            'commands': len(episode.commands),
            **({} if episode.proposals is None else {'proposals': len(episode.proposals)}),
            **({'topics': topics(episode)} if episode.topics else {}),
            'image_size': size,
            'events': [vars(event) for event in episode.events],
        }


def topics(episode: Episode) -> dict[str, dict[str, Any]]:
    """Return of each extra topic its type, the number of messages, and their rate (0: unknown)."""
    found = {}
    for topic, channel in episode.topics.items():
        steady_ns = episode.messages(topic).steady_ns
        span_s = float(np.ptp(steady_ns)) / NANOSECONDS if len(steady_ns) else 0.0
        rate_hz = round((len(steady_ns) - 1) / span_s, 1) if span_s else 0.0
        found[topic] = {'type': channel.type, 'count': channel.count, 'rate_hz': rate_hz}
    return found


def vetted(
    paths: Iterable[Path], *, images: bool = True
) -> Iterator[tuple[Path, UserError | None]]:
    """
    Yield each file, and why it must not be opened in this process; None if it may.

    It is opened and read in another process first, as HDF5 may hang, crash or take all memory.

    :param images: read the images too, as the caller will.
    """
    for path in paths:
        fault = None
        try:
            shared_call('episode.catalog.inspect:read_through', path, images, whole=images)
        except UserError as error:
            fault = error
        yield path, fault


def vet(path: Path) -> None:
    """Raise UserError when a file must not be opened in this process; see ``vetted``."""
    for _, fault in vetted([path]):
        if fault is not None:
            raise fault


def read_through(path: Path, images: bool) -> None:
    """
    Open an episode, in a ``FileWorker``, and read every image; broken ones do not matter.

    :param images: False: none of them; True: the messages of other topics, too.
    """
    with Episode.open(path) as episode:
        for index in range(len(episode) if images else 0):
            with suppress(UserError):
                episode.encoded(index)
        for topic in episode.topics if images else ():
            for _ in episode.messages(topic).readable():
                pass


def need_recovery(
    folder: Path, worker: FileWorker, shown: Callable[[Iterable[Path]], Iterable[Path]]
) -> tuple[list[Path], list[Path]]:
    """
    Return the files of a folder that need recovery, and the parts that are being written.

    :param shown: passes the finished files on, to show how many have been checked.
    """

    def wanted(work: str, path: Path) -> bool:
        try:
            return bool(worker.call(f'{RECOVERY}:{work}', path))
        except UserError:
            return True  # recovering it says why

    parts = sorted(folder.glob(f'*{schema.PART_SUFFIX}'))
    whole = sorted(one for one in folder.glob(f'*{schema.SUFFIX}') if one.is_file())
    found = [part for part in recovery.without_writer(folder) if wanted('is_abandoned', part)]
    found += [path for path in shown(whole) if wanted('is_damaged', path)]
    return found, [part for part in parts if part.is_file() and recovery.is_written(part)]


def judged(episode: Episode) -> Health | None:
    """
    Return the verdict on what an episode shows; None if it was cut short.

    It is the writer's, unless a trim has cut off some of what the writer judged, or the frames are
    another camera's.

    :raises UserError: when the file is broken at its verdict or an image.
    """
    if episode.complete and (episode.edits.trim is not None or not episode.by_main_camera):
        return judge_episode(episode)
    return episode.health


def judge_episode(episode: Episode) -> Health:
    """
    Measure an episode again; reads every image, decodes about one a second.

    :returns: verdict, reasons and measures, as ``quality.verdict.judge`` does.
    :raises UserError: when the file is broken at an image.
    """
    tally = ImageTally()
    for index, received_ns in enumerate(episode.frame_received_ns.tolist()):
        tally.add(episode.encoded(index), received_ns)
    known: Health = episode.health or {}
    return verdict.judge(
        frame_stamp_ns=episode.frame_stamp_ns,
        frame_received_ns=episode.frame_received_ns,
        frame_steady_ns=episode.frame_steady_ns,
        frozen=tally.frozen,
        command_steady_ns=episode.commands.steady_ns,
        twist=episode.commands.twist,
        drops=_drops(episode),
        broken=tally.broken,
        samples=tally.samples,
        expected_rate_hz=known.get('expected_rate_hz') if episode.by_main_camera else None,
        timed=known.get('timed', True),
        rule=_rule(episode),
        odometry=episode.odometry,
        cameras=[_further(episode, name) for name in [*episode.cameras][1:]]
        if episode.by_main_camera
        else (),
    )


def _further(episode: Episode, name: str) -> FurtherCamera:
    messages = episode.messages(episode.cameras[name])
    times = messages.stamp_ns, messages.received_ns, messages.steady_ns
    return FurtherCamera(name, *times, lambda rows: [*messages.readable(rows)])


def _drops(episode: Episode) -> int:
    """Return how many images of the camera its events count as lost."""
    if episode.by_main_camera:
        return sum(dropped_frames(one.text) for one in episode.events if one.name == 'drop')
    lost = f' {messages_of(episode.cameras[episode.camera])}:'
    return sum(dropped_frames(one.text) for one in episode.events if lost in one.text)


def _rule(episode: Episode) -> CommandRule:
    """Return what the base does, measured again unless a trim or another camera prevents that."""
    if episode.edits.trim is not None or not episode.by_main_camera:
        return episode.command_rule()
    return known_rule(episode.attributes.get(SETTING)) or estimate(
        times_of(episode)[0],
        episode.commands.steady_ns,
        episode.commands.twist,
        episode.encoded,
        episode.odometry,
    )


def refusal(
    episode: Episode, accept: Sequence[str] = ACCEPTED_VERDICTS, *, excluded: bool = False
) -> str | None:
    """
    Return why an episode must not be learned from, about "it"; None if it may be.

    It is excluded or unfinished, its verdict is another, or its content is of no use whatever the
    verdict: no instruction, or an invalid command.

    :param excluded: accept it although somebody excluded it.
    """
    reason = _unusable(episode)
    if reason:
        return reason
    if episode.excluded and not excluded:
        return f'it is excluded: {episode.excluded}'
    if not episode.complete:
        return 'it is unfinished: mobile_vla episodes recover completes it'
    health = judged(episode) or judge_episode(episode)
    if health['verdict'] in accept:
        return None
    return f'verdict {health["verdict"]}: ' + ('; '.join(health['reasons']) or 'no fault')


def _unusable(episode: Episode) -> str | None:
    """Return what makes an episode's content unusable whatever its verdict, None if nothing."""
    if not episode.instruction.strip():
        return 'it has no instruction'
    twist = episode.commands.twist
    invalid = np.argwhere(~(np.abs(twist) <= MAX_SPEED))
    if len(invalid):
        row, column = invalid[0]
        return (
            f'it has an invalid command; got row {row}: {TWIST_AXES[column]} '
            f'{twist[row, column]:g}; expected a finite value of at most {MAX_SPEED:g}'
        )
    return None


def check(path: Path) -> Health:
    """Decode every image and return the verdict anew: bad as well if broken or unfinished."""
    try:
        with Episode.open(path) as episode:
            for index in range(len(episode)):
                episode.frame(index)
            health = judge_episode(episode)
            if not episode.complete:
                health['verdict'] = 'bad'
                health['reasons'].insert(0, 'the episode was cut short')
            return health
    except UserError as error:
        return {'verdict': 'bad', 'reasons': [str(error)]}

"""Read an episode, whole or cut short, and find the episodes of a folder."""

from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np

from mobile_vla_ros.episode.cameras import (
    CameraImages,
    camera_name,
    chosen_camera,
    further_cameras,
)
from mobile_vla_ros.episode.odometry import Odometry, odometry_topic, read_odometry
from mobile_vla_ros.episode.quality.verdict import Health, read_health, stored_rule
from mobile_vla_ros.episode.records import Channel, Commands, Event, RecordedRows
from mobile_vla_ros.episode.storage import edits, schema, version1
from mobile_vla_ros.episode.storage.byte_rows import ByteRows, Messages, TopicRows, read_topics
from mobile_vla_ros.episode.storage.hdf5_gate import MALFORMED, Hdf5File, open_file
from mobile_vla_ros.episode.timing.base_estimate import estimate
from mobile_vla_ros.episode.timing.command_rule import (
    SETTING,
    CommandLog,
    CommandRule,
    KnownBy,
    known_rule,
)
from mobile_vla_ros.episode.timing.receipts import without_steps
from mobile_vla_ros.episode.timing.timeline import recorded_times
from mobile_vla_ros.errors import UserError, first_line
from mobile_vla_ros.images.stored import BrokenImage, decode
from mobile_vla_ros.types import SOURCES, Frame

VERSIONS = {version1.VERSION: version1.LAYOUT, schema.VERSION: schema.LAYOUT}
PATHS = {path for layout in VERSIONS.values() for path in layout}
TIMES = ('stamp_ns', 'received_ns', 'steady_ns')
CHANNEL_COLUMNS = ('topic', 'type', 'type_hash', 'latched', 'offset', 'size')
MAX_UNREADABLE = 4 * schema.FRAME_ROWS  # images at the end of a killed episode
RECOVER = 'salvage it with mobile_vla episodes recover, or move it away'

Images = version1.Images | ByteRows | CameraImages


@dataclass(frozen=True)
class _Camera:
    """The frames of a camera: their times, and images by row of the recording."""

    name: str
    recording: RecordedRows
    images: Images


class Episode:
    """
    One episode, open for reading; use it as a context manager.

    Times and commands are in memory; images are read and decoded on demand. ``proposals`` are a
    policy's proposals beside the commands, None for an episode without a policy. ``messages`` are
    those of other topics, as they arrived. A ``.part``, of a writer that was killed or is still
    running, shows the flushed rows.

    Edits (``storage.edits``) are applied: attributes are the edited ones, and what a trim cuts off
    is hidden, except in ``recording``.
    """

    def __init__(
        self, path: Path, file: Hdf5File, *, as_recorded: bool = False, camera: str = ''
    ) -> None:
        self.path = path
        self._file = file
        self.attributes = file.attributes
        version = self._check_format()
        schema.check_attributes(file.attributes)
        schema.check_datasets(file.datasets, VERSIONS[version])
        images: version1.Images | ByteRows
        if version == version1.VERSION:
            version1.add_steady(file.datasets)
            times = self._written('frames', *TIMES)
            images = version1.Images(file.datasets[version1.IMAGES])
            count = images.count_readable(len(times[0]), MAX_UNREADABLE)
        else:
            if file.view is not None:  # an image may look like a heap by chance
                file.view.mends_heaps = False
            offset, size, *times = self._written('frames', 'offset', 'size', *TIMES)
            stored, group = file.datasets[schema.IMAGE_BYTES], ('images', 'frames')
            images = ByteRows(group, stored, offset, size, most=MAX_UNREADABLE)
            count = images.count
        self.frame_stamp_ns, self.frame_received_ns, self.frame_steady_ns = (
            column[:count] for column in times
        )
        self.commands = Commands(
            *self._written('commands', 'twist', 'stamp_ns', 'received_ns', 'source', 'steady_ns')
        )
        self.proposals = self._proposals() if 'proposals/twist' in file.datasets else None
        has_topics = version == schema.VERSION and schema.MESSAGE_BYTES in file.datasets
        self._topics = self._extra_topics() if has_topics else None
        self.events = [
            Event(name.decode(), int(time), text.decode(errors='replace'), int(steady))
            for name, time, text, steady in zip(
                *self._written('events', 'name', 'time_ns', 'text', 'steady_ns'), strict=True
            )
        ]
        self._undo_steps()
        self._estimate: CommandRule | None = None
        self.edits = edits.Edits() if as_recorded else edits.read(path, self.episode_id)
        names = [*self.cameras]
        self._main = self._camera(names[0], images)
        self._shown = self._main
        wanted = chosen_camera(camera, names, path) if camera else names[0]
        if wanted != names[0]:
            messages = self.messages(self.cameras[wanted])
            self.frame_stamp_ns, self.frame_received_ns = messages.stamp_ns, messages.received_ns
            self.frame_steady_ns = messages.steady_ns
            self._shown = self._camera(wanted, CameraImages(messages))
        if self.edits.standing:
            self._apply_edits()

    def _camera(self, name: str, images: Images) -> _Camera:
        """Return a camera whose frames are at the times that this object has now."""
        times = self.frame_stamp_ns, self.frame_received_ns, self.frame_steady_ns
        rows = np.arange(len(self))
        return _Camera(name, RecordedRows(*times, rows, self.commands, self.events), images)

    @property
    def cameras(self) -> dict[str, str]:
        """The topics of all cameras by name, the main one first; '' if they are not known."""
        topic = str(self.attributes.get('image_topic', ''))
        return {camera_name(topic): topic} | further_cameras(self.topics.values())

    @property
    def camera(self) -> str:
        """Name of the camera whose images are the frames, one of ``cameras``."""
        return self._shown.name

    @property
    def by_main_camera(self) -> bool:
        """Whether the frames are those of the main camera."""
        return self.camera == self._main.name

    @property
    def recording(self) -> RecordedRows:
        """What was recorded, whatever edits hide of it."""
        return self._shown.recording

    def _undo_steps(self) -> None:
        """Move what follows a step back of the receipts, in episodes without a steady clock."""
        none = np.zeros(0, np.int64)
        found = without_steps(
            self.frame_steady_ns,
            self.commands.steady_ns,
            none if self.proposals is None else self.proposals.steady_ns,
            none if self._topics is None else self._topics.steady_ns,
            np.array([event.steady_ns for event in self.events], np.int64),
        )
        self.frame_steady_ns, steady_ns, proposed_ns, messages_ns, events_ns = found
        self.commands = replace(self.commands, steady_ns=steady_ns)
        if self.proposals is not None:
            self.proposals = replace(self.proposals, steady_ns=proposed_ns)
        if self._topics is not None:
            self._topics = replace(self._topics, steady_ns=messages_ns)
        self.events = [
            replace(event, steady_ns=int(time_ns))
            for event, time_ns in zip(self.events, events_ns, strict=True)
        ]

    @classmethod
    def open(cls, path: Path | str, *, as_recorded: bool = False, camera: str = '') -> 'Episode':
        """
        Open an episode.

        :param as_recorded: without its edits; frames are then counted as in ``recording.rows``.
        :param camera: whose images are the frames: its name, or a part that no other camera's
            name has (``cameras``); '': the main one's.
        :raises UserError: when the file is missing, broken, not an episode or of a later version,
            or when it is refused: it names other files, or lists more than it stores; when its
            edits cannot be applied. The sentence names the file.
        :raises NoSuchCamera: a UserError, when it has no such camera, or several.
        """
        path = Path(path).expanduser()
        if not path.is_file():
            raise UserError(f'no episode at {path}', expected='a file written by the recorder')
        file = None
        try:
            file = open_file(path, PATHS)
            return cls(path, file, as_recorded=as_recorded, camera=camera)
        except UserError:
            _close(file)
            raise
        except MALFORMED as error:
            _close(file)
            raise UserError(
                f'{path} cannot be read as an episode',
                got=first_line(error),
                expected=f'an HDF5 file of format {schema.FORMAT}',
                remedy=RECOVER,
            ) from None

    def _check_format(self) -> int:
        """Return the version."""
        found, version = self.attributes.get('format'), self.attributes.get('version')
        if found != schema.FORMAT:
            raise UserError(
                f'{self.path} is not an episode of this package',
                got=f'format {found!r:.40}',
                expected=schema.FORMAT,
                remedy='import other layouts with mobile_vla episodes import',
            )
        if type(version) is not int or version not in VERSIONS:
            raise UserError(
                f'{self.path} has an unsupported version',
                got=f'{version!r:.40}',
                expected=' or '.join(map(str, VERSIONS)),
                remedy='update mobile_vla_ros',
            )
        return version

    def _written(self, stream: str, *names: str) -> list[np.ndarray]:
        """Return columns up to the first row that is incomplete or was never written."""
        datasets = [self._file.datasets[f'{stream}/{name}'] for name in names]
        count = min(len(dataset) for dataset in datasets)
        columns = [dataset[:count] for dataset in datasets]  # once: every HDF5 read costs
        for column in columns:
            if column.dtype == np.int64:
                unwritten = np.flatnonzero(column == schema.NO_TIME)
                count = min(count, unwritten[0]) if len(unwritten) else count
        columns = [column[:count] for column in columns]
        for name, column in zip(names, columns, strict=True):
            if column.dtype == np.int64 and (np.abs(column) > schema.MAX_TIME).any():
                raise ValueError(f'{stream}/{name} has a value beyond {schema.MAX_TIME}')
        return columns

    def _proposals(self) -> Commands:
        twist, stamp_ns, received_ns, steady_ns = self._written('proposals', 'twist', *TIMES)
        source = np.full(len(received_ns), SOURCES['policy'], np.uint8)
        return Commands(twist, stamp_ns, received_ns, source, steady_ns)

    def _extra_topics(self) -> TopicRows:
        channels = self._written('channels', *CHANNEL_COLUMNS)
        messages = self._written('messages', 'channel', 'offset', 'size', *TIMES)
        return read_topics(self._file.datasets[schema.MESSAGE_BYTES], channels, messages)

    def _apply_edits(self) -> None:
        main_ns, _ = recorded_times(self._main.recording)
        misfit = edits.misfit(self.edits, main_ns)
        if misfit:
            raise edits.unusable(edits.path_of(self.path), misfit)
        for name in (edits.INSTRUCTION, edits.OUTCOME):
            if name in self.edits.values:
                self.attributes = {**self.attributes, name: self.edits.values[name]}
        if self.edits.trim is None:
            return
        first_ns, last_ns = edits.bounds_ns(self.edits, int(main_ns.min()))
        times_ns, _ = recorded_times(self.recording)
        rows = np.flatnonzero((times_ns >= first_ns) & (times_ns <= last_ns))
        self._shown = replace(self._shown, recording=replace(self.recording, rows=rows))
        self.frame_stamp_ns = self.frame_stamp_ns[rows]
        self.frame_received_ns = self.frame_received_ns[rows]
        self.frame_steady_ns = self.frame_steady_ns[rows]
        self.commands = edits.shown_commands(self.commands, first_ns, last_ns)
        if self.proposals is not None:
            self.proposals = edits.shown_commands(self.proposals, first_ns, last_ns)
        if self._topics is not None:
            self._topics = self._topics.shown(first_ns, last_ns)
        self.events = [event for event in self.events if first_ns <= event.steady_ns <= last_ns]

    def __enter__(self) -> 'Episode':
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        """Return the number of frames."""
        return len(self.frame_stamp_ns)

    def close(self) -> None:
        """Close the file; times and commands stay usable."""
        self._file.close()

    @property
    def episode_id(self) -> str:
        """``<UTC time>_<8 hex>``, the file's name without its suffix."""
        return str(self.attributes['episode_id'])

    @property
    def instruction(self) -> str:
        """The instruction that the robot followed."""
        return str(self.attributes['instruction'])

    @property
    def outcome(self) -> str:
        """One of ``schema.OUTCOMES``."""
        return str(self.attributes['outcome'])

    @property
    def topics(self) -> dict[str, Channel]:
        """The extra topics that were recorded, each with its type; empty without any."""
        return {} if self._topics is None else self._topics.topics()

    def messages(self, topic: str) -> Messages:
        """
        Return the messages of one of ``topics``.

        :raises UserError: when the episode does not hold this topic.
        """
        if self._topics is None or topic not in self.topics:
            raise UserError(
                f'{self.path} does not hold the topic {topic}',
                got=', '.join(self.topics) or 'no extra topic',
                remedy='record it with extra_topics of the recorder',
            )
        return self._topics.of(topic, self.path)

    @cached_property
    def odometry(self) -> Odometry | None:
        """
        What the base reports of its own motion, read at the first use; None if it is not recorded.

        A trim hides what was received before its first frame and after its last.
        """
        topic = odometry_topic(self.topics.values())
        if topic is None:
            return None
        messages = self.messages(topic)
        return read_odometry(list(messages.readable()), messages.steady_ns)

    @property
    def excluded(self) -> str:
        """Why somebody excluded the episode from training, '' if nobody did."""
        return self.edits.excluded

    @property
    def cuts_ns(self) -> np.ndarray:
        """(K,) int64 steady times at which somebody split the episode: no window spans them."""
        start_ns = self.start_ns if self.edits.splits else 0
        return edits.cuts_ns(self.edits, start_ns)

    @property
    def start_ns(self) -> int:
        """Steady time of the main camera's first frame, from which edits count; 0 without one."""
        times_ns, _ = recorded_times(self._main.recording)
        return int(times_ns.min()) if len(times_ns) else 0

    @property
    def origin(self) -> str:
        """The source of an imported episode; '' for a recorded one."""
        return str(self.attributes.get('origin', ''))

    @property
    def recovered(self) -> bool:
        """Whether the episode was completed after its writer had died, or from a cut file."""
        return bool(self.attributes.get('recovered', False))

    @property
    def complete(self) -> bool:
        """Whether the writer closed the episode."""
        return bool(self.attributes['complete'])

    @property
    def health(self) -> Health | None:
        """
        The writer's verdict (see ``quality.verdict.judge``); None if the episode was cut short.

        It is about the whole recording by the main camera: see ``catalog.inspect.judged`` for an
        edited episode, or another camera.

        :raises UserError: when the file is broken at the verdict.
        """
        text = str(self.attributes['health'])
        try:
            return read_health(text) if text else None
        except ValueError as error:
            raise UserError(
                f'{self.path} is broken at its verdict',
                got=first_line(error),
                expected='JSON with verdict, reasons and measures',
                remedy=RECOVER,
            ) from None

    def command_rule(self, unknown_s: float | None = None) -> CommandRule:
        """
        Return what the base of this episode does when no command comes.

        The episode says so, or else the caller, or else the verdict that was stored with it, or
        else its odometry or its images, which are then read (``timing.base_estimate``).

        :param unknown_s: the timeout of a base that the episode does not state; 0: it holds.
        :raises UserError: when the file is broken at its verdict.
        """
        recorded = known_rule(self.attributes.get(SETTING))
        if recorded is not None:
            return recorded
        if unknown_s is not None:
            return CommandRule(unknown_s, KnownBy.GIVEN)
        if self._estimate is None:
            whole = self._main.recording  # neither trim nor camera change what the base does
            self._estimate = stored_rule(self.health or {}) or estimate(
                recorded_times(whole)[0],
                whole.commands.steady_ns,
                whole.commands.twist,
                lambda row: self._stored(self._main, row, row),
                self.odometry,
            )
        return self._estimate

    def command_log(self, unknown_s: float | None = None) -> CommandLog:
        """Return the commands with their rule (``command_rule``)."""
        commands = self.commands
        return CommandLog(commands.steady_ns, commands.twist, self.command_rule(unknown_s))

    def encoded(self, index: int) -> bytes:
        """
        Return the stored bytes of frame ``index``: JPEG or PNG.

        :raises UserError: when the file is broken at this frame.
        """
        if not -len(self) <= index < len(self):
            raise IndexError(f'frame {index} of {len(self)}')
        return self._stored(self._shown, int(self.recording.rows[index]), index)

    def _stored(self, camera: _Camera, row: int, index: int) -> bytes:
        """Return the image of a row of the recording, which is frame ``index``."""
        try:
            return bytes(camera.images[row])
        except MALFORMED as error:
            raise self._broken(index, first_line(error)) from None

    def frame(self, index: int, min_side: int | None = None) -> Frame:
        """
        Return frame ``index`` decoded to RGB, with its times.

        :param min_side: as for ``images.stored.decode``.
        :raises UserError: when the file is broken at this frame.
        """
        try:
            image = decode(self.encoded(index), min_side)
        except BrokenImage as error:
            raise self._broken(index, error.reason) from None
        return Frame(image, int(self.frame_stamp_ns[index]), int(self.frame_received_ns[index]))

    def _broken(self, index: int, reason: str) -> UserError:
        return UserError(
            f'{self.path} is broken at frame {index}',
            got=reason,
            expected='a JPEG or PNG image',
        )


def find_episodes(folder: Path | str) -> list[Path]:
    """
    Return the finished episodes of a folder, sorted by name and so by time.

    :raises UserError: when there is no such folder, or no episode in it.
    """
    folder = Path(folder).expanduser()
    if not folder.is_dir():
        raise UserError(
            f'no folder of episodes at {folder}', expected='a folder written by the recorder'
        )
    found = sorted(path for path in folder.glob(f'*{schema.SUFFIX}') if path.is_file())
    if not found:
        parts = len(list(folder.glob(f'*{schema.PART_SUFFIX}')))
        raise UserError(
            f'{folder} holds no episode',
            got=f'{parts} unfinished episodes (.part)' if parts else 'no .h5 file',
            expected=f'files <UTC time>_<8 hex>{schema.SUFFIX}',
            remedy='record some with ros2 launch mobile_vla_ros record.launch.py',
        )
    return found


def episodes_at(path: Path | str) -> list[Path]:
    """Return the episodes of a folder (``find_episodes``), or the one file at ``path``."""
    path = Path(path).expanduser()
    return [path] if path.is_file() else find_episodes(path)


def _close(file: Hdf5File | None) -> None:
    if file is not None:
        file.close()

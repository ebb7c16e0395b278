"""The episode in progress, if there is one, and the verdict on the previous one. Knows no ROS."""

import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.episode.quality.verdict import sentences
from mobile_vla_ros.episode.records import Channel
from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo, messages_of
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import SETTING, STALE_S
from mobile_vla_ros.episode.timing.command_source import CommandLabeller
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.stored import BrokenImage
from mobile_vla_ros.nodes.recorder.black_box import BlackBox
from mobile_vla_ros.nodes.recorder.episode_folder import EpisodeFolder
from mobile_vla_ros.nodes.recorder.open_episode import (
    BROKEN,
    Message,
    OpenEpisode,
    kind,
    open_episode,
)
from mobile_vla_ros.nodes.recorder.params import RecorderParams
from mobile_vla_ros.safety.status import GuardStatus
from mobile_vla_ros.types import Command

if TYPE_CHECKING:
    from rclpy.task import Future

IDLE, STARTING, RECORDING, CLOSING = 'idle', 'starting', 'recording', 'closing'
OTHER_KIND = 'images of another size or encoding'
MAX_NOTED = 50  # problems that an episode names; a camera may send a new one with every image
POLL_S = 0.01


class CurrentEpisode:
    """
    Holds the state of the recorder; unless it records, frames and commands go to the black box.

    All methods but ``open`` belong to one thread.

    :ivar box: the black box.
    :param encode: gives the stored bytes of an image message; raises UserError if it cannot.
    :param now_ns: the node's clock, which may be a simulated one; steady_ns: ``EpisodeTime``.
    """

    def __init__(
        self,
        params: RecorderParams,
        folder: EpisodeFolder,
        encode: Callable[[Message], bytes],
        now_ns: Callable[[], int],
        steady_ns: Callable[[], int],
    ) -> None:
        self.state = IDLE
        self.steady_ns = steady_ns
        self.box = BlackBox(params, folder, self._end_box)
        self._open: OpenEpisode | None = None
        self._labels = CommandLabeller()
        self._params = params
        self._folder = folder
        self._encode = encode
        self._now_ns = now_ns
        self._last = {'last_episode': '', 'last_verdict': '', 'last_reasons': ''}

    @property
    def recording(self) -> Recording | None:
        """The recording in progress or being closed."""
        current = self._open
        return None if current is None else current.recording

    @property
    def last(self) -> Path | None:
        """The file of the last episode that was kept."""
        return Path(self._last['last_episode']) if self._last['last_episode'] else None

    def count_again(self) -> None:
        """Count the episodes again: the last one was edited."""
        self._folder.changed()

    def open(
        self,
        image: Message,
        info: EpisodeInfo,
        expected_hz: float | None,
        *,
        proposals: bool = False,
    ) -> OpenEpisode:
        """
        Create the file of a new episode; call it in a thread, since a disk may be slow.

        :param image: the newest message; all images must have its size and encoding.
        :param proposals: whether the file has room for a policy's proposals.
        :returns: the argument of ``begin``.
        :raises UserError: when the image, the folder or the disk is unusable.
        """
        self._folder.disk.check_space()
        try:
            self._encode(image)
        except BrokenImage as error:  # every whole one after it would be of another kind
            raise UserError(
                'the newest camera image is broken', got=error.reason, remedy='start again'
            ) from None
        writer = EpisodeWriter(
            self._folder.path,
            info,
            time.time_ns(),
            flush_period_s=self._params.flush_period_s,
            expected_rate_hz=expected_hz,
            proposals=proposals,
            messages=self._params.messages,
        )
        return open_episode(writer, image, self._params, self._folder.disk.floor_bytes)

    @staticmethod
    def discard_unopened(opening: 'Future', timeout_s: float) -> None:
        """
        Discard an episode that never begins; the next start would recover its empty file.

        :param opening: the result of ``open`` in another thread; waits for it.
        """
        deadline_s = time.monotonic() + timeout_s
        while not opening.done() and time.monotonic() < deadline_s:
            time.sleep(POLL_S)
        if opening.done() and opening.exception() is None:
            recording = opening.result().recording
            recording.discard()
            recording.join(timeout_s)

    def begin(self, opened: OpenEpisode) -> None:
        """Record from now on."""
        self.box.end()
        self._open, self.state = opened, RECORDING
        self.event('start')
        opened.began_s = time.monotonic()
        self._labels.begin()

    def event(self, name: str, text: str = '') -> None:
        """Record what happens now."""
        current = self._active()
        assert current is not None
        current.recording.event(name, self._now_ns(), text, steady_ns=self.steady_ns())

    def frame(
        self, message: Message, stamp_ns: int, received_ns: int, steady: int, missing: int
    ) -> None:
        """Record one camera message, and how many before it were lost."""
        if self.state != RECORDING and self.box.prepare(message):
            self._labels.begin()
        current = self._active()
        if current is None:
            return
        if missing:
            why = 'lost between camera and recorder'
            current.recording.lost(missing, received_ns, why, steady)
        found = kind(message)
        if found == current.image_kind:
            current.other_images = ''
            current.recording.frame(partial(self._encode, message), stamp_ns, received_ns, steady)
            return
        current.other_images = (
            f'the camera sends {found}, and the episode began with {current.image_kind}'
        )
        self.note(found, current.other_images)
        what = BROKEN if found == BROKEN else OTHER_KIND
        current.recording.lost(1, received_ns, f'the camera sends {what}', steady)

    def lost(self, count: int) -> None:
        """Count frames that the middleware reports as lost."""
        current = self._active()
        if current is not None:
            current.recording.lost(
                count, self._now_ns(), 'lost by the middleware', self.steady_ns()
            )

    def command(self, command: Command, sent_ns: int) -> None:
        """Record one command as soon as its source is known."""
        current = self._active()
        if current is not None:
            now_ns = time.monotonic_ns()
            current.stale.command(command.twist, now_ns)
            self._labels.command(command, sent_ns, now_ns)
            self.write_commands()

    def proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int, steady: int) -> None:
        """Record a policy's proposal, if the file has room for it."""
        current = self._active()
        if current is not None and current.writer.proposals:
            current.recording.proposal(twist, stamp_ns, received_ns, steady)

    def message(
        self,
        channel: Channel,
        data: bytes,
        times_ns: tuple[int, int, int],
        missing: int,
        encode: Callable[[bytes], bytes] = bytes,
    ) -> None:
        """
        Record a message of an extra topic, and how many before it were lost.

        :param times_ns: its stamp, and both receipts.
        :param encode: as of ``Recording.message``.
        """
        current, (_, received_ns, steady) = self._active(), times_ns
        if current is None:
            return
        if missing:
            of = messages_of(channel.topic)
            why = 'lost before they arrived'
            current.recording.lost(missing, received_ns, why, steady, of)
        current.recording.message(channel, data, *times_ns, encode)

    def guard_status(self, status: GuardStatus, sent_ns: int) -> None:
        """Store a report of the guard, which labels commands (`CommandLabeller.status`)."""
        self._labels.status(status, sent_ns or self._now_ns(), time.monotonic_ns())
        self.write_commands()

    def write_commands(self, *, all_of_them: bool = False) -> None:
        """Record the commands whose source is known by now, and where takeovers begin."""
        current = self._active()
        if current is None:
            return
        for one in self._labels.ready(None if all_of_them else time.monotonic_ns()):
            if one.event:
                current.recording.event(
                    'takeover',
                    one.command.received_ns,
                    one.event,
                    steady_ns=one.command.steady_ns,
                )
            current.recording.command(one.command)

    def lose_commands(self, count: int, reason: str) -> None:
        """Count commands that are missing from the episode, by reason."""
        current = self._active()
        if current is not None:
            current.lost_commands[reason] += count
            self.note(reason, f'commands {reason}, the first of them now')

    def expect(self, rate_hz: float | None) -> None:
        """Set the camera's rate in an episode that began before it was known."""
        current = self._active()
        if current is not None and current.writer.expected_rate_hz is None:
            current.writer.expected_rate_hz = rate_hz

    def trigger(self, why: str, info: EpisodeInfo) -> str:
        """
        Note in the episode what has just happened, or make the black box one; return a sentence.

        :param info: attributes of that episode.
        :raises UserError: when nothing is recorded, and the black box holds nothing.
        """
        event = partial(self.event, 'trigger', why)
        if self.state != RECORDING:
            return self.box.keep(info, event)
        event()
        return 'noted in the episode that is being recorded'

    def command_type(self, found: str) -> None:
        """Set the type of the commands."""
        current = self._active()
        if current is not None:
            current.recording.late(command_type=found)

    def note(self, key: str, sentence: str) -> bool:
        """Record a problem as an event, once per key; return whether it is new."""
        current = self._active()
        if current is None or len(current.noted) >= MAX_NOTED or key in current.noted:
            return False
        current.noted.add(key)
        self.event('problem', sentence)
        return True

    def settle(self) -> str:
        """Close an episode that a full disk or a defect ended; return a sentence, or ''."""
        current = self._open if self.state == RECORDING else None
        if current is None or not (current.recording.error or current.recording.ended):
            return ''
        recording = self.release()
        return recording.error or (f'{recording.problem}; the episode is closed: {recording.path}')

    def release(self) -> Recording:
        """Keep the verdict on an episode that ended, and be ready for the next one."""
        assert self._open is not None
        recording = self._open.recording
        self._open, self.state = None, IDLE
        if recording.path is not None and recording.health is not None:
            self._last = {
                'last_episode': str(recording.path),
                'last_verdict': recording.health['verdict'],
                'last_reasons': '; '.join(sentences(recording.health)[1:]),
            }
        self._folder.changed()
        return recording

    def shut_down(self, timeout_s: float) -> str:
        """Close an episode in progress as a stop would; return a sentence, or ''."""
        recording = self.recording
        if recording is None:
            return ''
        if self.state == RECORDING:
            self.write_commands(all_of_them=True)
            self.event('stop', 'the recorder was shut down')
            recording.finish('unknown')
        if not recording.join(timeout_s):
            return f'{recording.part_path} could not be closed in time'
        return recording.error or (f'closed {recording.path}' if recording.path else '')

    def values(self) -> dict[str, str | int]:
        """Return the status values of this episode and of the previous one."""
        current = self._open
        if current is None:
            counts = dict.fromkeys(('frames', 'commands', 'messages', 'drops', 'queue'), 0)
            return {
                'episode': '',
                'seconds': '0.0',
                **counts,
                'stale_commands_s': '0.0',
                **self._last,
                **self.box.values(),
            }
        recording = current.recording
        return {
            'episode': recording.part_path.name,
            'seconds': f'{time.monotonic() - current.began_s:.1f}',
            'frames': recording.frames,
            'commands': recording.commands,
            'messages': recording.messages,
            'drops': recording.drops,
            'queue': recording.queued,
            'stale_commands_s': f'{current.stale.until(time.monotonic_ns())[1]:.1f}',
            **self._last,
            **self.box.values(),
        }

    def problems(self) -> list[str]:
        """Return the problems of the episode in progress as sentences."""
        current = self._open
        if current is None:
            return []
        return [
            self._unknown_base(current),
            current.other_images,
            current.recording.problem or '',
            *(f'{count} commands {reason}' for reason, count in current.lost_commands.items()),
            *(f'{n} {what} are missing' for what, n in current.recording.lost_messages.items()),
        ]

    def _unknown_base(self, current: OpenEpisode) -> str:
        """Return a sentence if the commands are sparse and nobody said what the base does."""
        if self._params.base_command_timeout_s is not None:
            return ''
        if 'base' not in current.noted and not current.stale.notable(time.monotonic_ns()):
            return ''
        sentence = (
            f'commands are older than {STALE_S:g} s while the robot drives, and it is unknown '
            f'whether the base still obeys them: set {SETTING} of the recorder to 0.0 if it holds '
            'the last command, or to the seconds after which it stops'
        )
        self.note('base', sentence)
        return sentence

    def _end_box(self) -> None:
        self.write_commands(all_of_them=True)
        self.event('stop')

    @property
    def active(self) -> Recording | None:
        """What frames, commands and messages go to, in a file or in memory."""
        current = self._active()
        return None if current is None else current.recording

    def _active(self) -> OpenEpisode | None:
        return self._open if self.state == RECORDING else self.box.current

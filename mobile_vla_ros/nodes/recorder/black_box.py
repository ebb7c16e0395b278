"""The black box: the seconds before a fault, an e-stop or a takeover, as an episode. No ROS."""

import time
from collections.abc import Callable

from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.ring import RingWriter
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_source import TAKEOVER
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.episode_folder import EpisodeFolder
from mobile_vla_ros.nodes.recorder.open_episode import (
    BROKEN,
    Message,
    OpenEpisode,
    kind,
    open_episode,
)
from mobile_vla_ros.nodes.recorder.params import RecorderParams
from mobile_vla_ros.safety.status import GuardStatus, State, StopReason
from mobile_vla_ros.types import NANOSECONDS

AFTER_S = 5.0  # recorded after the last trigger
KIND_S = 5.0  # a camera that changes its images is followed at most this often
NO_INSTRUCTION = 'no instruction was given'
BY_A_PERSON = (StopReason.DISARMED, StopReason.NOT_ARMED)


class Triggers:
    """Finds in the guard's reports what a black box is for."""

    def __init__(self) -> None:
        self._before: GuardStatus | None = None

    def due(self, status: GuardStatus) -> str:
        """Return what has just happened: a fault, an e-stop or a takeover; '' for none."""
        before, self._before = self._before, status
        if before is None:
            return ''
        if status.state == State.ESTOP != before.state:
            return f'e-stop: {status.sentence}'
        disarmed = before.armed and not status.armed and status.stop_reason not in BY_A_PERSON
        if disarmed or status.state == State.FAULT != before.state:
            return f'fault: {status.sentence}'
        if status.source == TAKEOVER != before.source:
            return 'takeover: a person drives'
        return ''


class BlackBox:
    """
    Holds the newest seconds while nothing is recorded; a trigger makes them an episode.

    That ends ``AFTER_S`` after the last trigger, or when a recording begins. Its folder is beside
    the other episodes, so that nobody trains on it by mistake. All methods belong to one thread.

    :ivar current: what frames and commands go to; None before the first frame, or without
        ``ring_s``.
    :ivar triggers: what makes it an episode.
    :ivar problem: why its last episode is not whole; '' if it is.
    :param on_end: called before ``current`` is closed, to write what still waits.
    """

    def __init__(
        self, params: RecorderParams, folder: EpisodeFolder, on_end: Callable[[], None]
    ) -> None:
        self.current: OpenEpisode | None = None
        self.problem = ''
        self.triggers = Triggers()
        self._params = params
        self._folder = folder
        self._on_end = on_end
        self._ring: RingWriter | None = None  # of ``current``
        self._until_s: float | None = None  # of the episode that is being written
        self._closing: list[Recording] = []
        self._last = ''

    def prepare(self, image: Message) -> bool:
        """Hold images like this one from now on; return whether it begins anew."""
        if not self._params.ring_s:
            return False
        now_s, current, image_kind = time.monotonic(), self.current, kind(image)
        if image_kind == BROKEN:
            return False
        if current is not None:
            if current.image_kind == image_kind or now_s - current.began_s < KIND_S:
                return False
            self.end()
        ring = RingWriter(self._folder.black_box, self._params.ring_s, self._params.ring_bytes)
        self._ring = ring
        self.current = open_episode(ring, image, self._params, self._folder.disk.floor_bytes)
        self.current.began_s = now_s
        return True

    def keep(self, info: EpisodeInfo, event: Callable[[], None]) -> str:
        """
        Make what is held an episode; return a sentence.

        :param event: records the trigger in it.
        :raises UserError: when nothing is held.
        """
        ring = self._ring
        if ring is None:
            raise UserError(
                'the black box holds nothing',
                got='no image yet' if self._params.ring_s else 'ring_s is 0',
                remedy='start the camera'
                if self._params.ring_s
                else 'set ring_s of the recorder, for example to 30.0',
            )
        if self._until_s is None:
            created_ns = time.time_ns() - round(ring.span_s * NANOSECONDS)

            def create(proposals: bool) -> EpisodeWriter:
                self._folder.disk.check_space()
                return EpisodeWriter(
                    self._folder.black_box,
                    info,
                    created_ns,
                    flush_period_s=self._params.flush_period_s,
                    proposals=proposals,
                    messages=self._params.messages,
                )

            ring.keep(create)
        self._until_s = time.monotonic() + AFTER_S
        event()
        return (
            f'the last {ring.span_s:.0f} s and the next {AFTER_S:g} s are written to '
            f'{self._folder.black_box}'
        )

    def end(self) -> None:
        """Close the episode that is being written, or forget what is held."""
        if self.current is None:
            return
        recording, writing = self.current.recording, self._until_s is not None
        if writing:
            self._on_end()
        self.current = self._ring = self._until_s = None
        self._closing.append(recording)
        recording.finish('unknown') if writing else recording.discard()

    def settle(self) -> list[str]:
        """Close what is due; return a sentence for each episode that ended."""
        current = self.current
        if current is not None and (
            current.recording.ended
            or (self._until_s is not None and time.monotonic() >= self._until_s)
        ):
            self.end()
        ended = [recording for recording in self._closing if recording.ended]
        self._closing = [recording for recording in self._closing if not recording.ended]
        return [found for recording in ended if (found := self._outcome(recording))]

    def shut_down(self, timeout_s: float) -> list[str]:
        """Close the episode that is being written; return as ``settle``."""
        self.end()
        deadline_s = time.monotonic() + timeout_s
        for recording in self._closing:
            recording.join(max(0.0, deadline_s - time.monotonic()))
        return self.settle()

    def values(self) -> dict[str, str]:
        """Return the status values: the seconds held, and the last episode."""
        return {
            'black_box_s': f'{self._ring.span_s if self._ring is not None else 0.0:.1f}',
            'last_black_box': self._last,
        }

    def _outcome(self, recording: Recording) -> str:
        """Return the sentence of an episode that ended; '' if nothing was to be kept."""
        if recording.path is not None:
            self._last = str(recording.path)
        if recording.path is None and not recording.error:
            return ''
        self.problem = recording.error or recording.problem or ''
        if self.problem:
            self.problem = f'black box: {self.problem}'
        return self.problem or f'black box: {recording.path}'

"""The take in progress, if there is one, and what became of the one before. Knows no ROS."""

import io
import time
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image as PillowImage

from mobile_vla_ros.episode.storage.recording import Recording
from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_source import CommandLabeller
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.recorder.episode_folder import TakeFolder
from mobile_vla_ros.nodes.recorder.params import RecorderParams
from mobile_vla_ros.safety.status import GuardStatus
from mobile_vla_ros.types import Command

if TYPE_CHECKING:
    from rclpy.task import Future
    from sensor_msgs.msg import CompressedImage, Image

    Message = Image | CompressedImage
    Encode = Callable[[Message], bytes]

IDLE, STARTING, RECORDING, CLOSING = 'idle', 'starting', 'recording', 'closing'
BROKEN = 'a broken image'
POLL_S = 0.01


class CurrentTake:
    """
    Holds the state of the recorder; frames and commands go nowhere unless it is recording.

    All methods but ``open`` belong to one thread.

    :param encode: gives the stored bytes of an image message; raises UserError where it cannot.
    :param now_ns: the node's clock, which may be a simulated one.
    """

    def __init__(
        self,
        params: RecorderParams,
        folder: TakeFolder,
        encode: 'Encode',
        now_ns: Callable[[], int],
    ):
        self.state = IDLE
        self.recording: Recording | None = None
        self._lost_commands: Counter[str] = Counter()
        self._labels = CommandLabeller()
        self._writer: EpisodeWriter | None = None
        self._params, self._folder = params, folder
        self._encode, self._now_ns = encode, now_ns
        self._kind = self._unlike = ''
        self._began_s = 0.0
        self._noted: set[str] = set()
        self._last = {'last_episode': '', 'last_verdict': '', 'last_reasons': ''}

    def open(
        self,
        image: 'Message',
        info: EpisodeInfo,
        expected_hz: float | None,
        *,
        proposals: bool = False,
    ) -> tuple[str, EpisodeWriter, Recording]:
        """
        Make the file of a new take; to be called in a thread, for a disk may be slow.

        :param image: the newest message; the take's images are to be of its size and encoding.
        :param proposals: whether it has a place for what a policy proposes.
        :returns: what ``begin`` wants.
        :raises UserError: when the image, the folder or the disk does not serve.
        """
        self._folder.check_space()
        self._encode(image)
        found = kind(image)
        if found == BROKEN:  # every whole one after it would be of another kind
            raise UserError(
                'the newest camera image is broken',
                got=f'{len(image.data)} bytes',
                expected='a whole JPEG or PNG',
                remedy='start again',
            )
        writer = EpisodeWriter(
            self._folder.folder,
            info,
            time.time_ns(),
            flush_period_s=self._params.flush_period_s,
            expected_rate_hz=expected_hz,
            proposals=proposals,
        )
        fitting = max(1, self._params.queue_bytes // max(1, len(image.data)))
        return (
            found,
            writer,
            Recording(
                writer,
                queue_frames=min(self._params.queue_frames, fitting),
                steady_ns=time.monotonic_ns,
                floor_bytes=self._folder.floor_bytes,
            ),
        )

    @staticmethod
    def throw_away(opening: 'Future', timeout_s: float):
        """
        Throw away a take that never begins: empty as it is, it would be recovered as a take.

        :param opening: of what ``open`` returns in another thread; it is waited for.
        """
        give_up_s = time.monotonic() + timeout_s
        while not opening.done() and time.monotonic() < give_up_s:
            time.sleep(POLL_S)
        if opening.done() and opening.exception() is None:
            *_, recording = opening.result()
            recording.discard()
            recording.join(timeout_s)

    def begin(self, opened: tuple[str, EpisodeWriter, Recording]):
        """Record from now on."""
        self._kind, self._writer, self.recording = opened
        self._unlike = ''
        self.recording.event('start', self._now_ns())
        self.state, self._began_s = RECORDING, time.monotonic()
        self._labels.begin()
        self._lost_commands.clear()
        self._noted.clear()

    def frame(self, message: 'Message', stamp_ns: int, received_ns: int, missing: int):
        """Hand over one camera message, and how many before it never came."""
        if self.state != RECORDING:
            return
        if missing:
            self.recording.lost(missing, received_ns, 'lost between camera and recorder')
        found = kind(message)
        if found == self._kind:
            self._unlike = ''
            self.recording.frame(partial(self._encode, message), stamp_ns, received_ns)
            return
        self._unlike = f'the camera sends {found}, and the take began with {self._kind}'
        self.note(found, self._unlike)
        self.recording.lost(1, received_ns, f'the camera sends {found}')

    def lost(self, count: int):
        """Count frames that the middleware says it lost."""
        if self.state == RECORDING:
            self.recording.lost(count, self._now_ns(), 'lost by the middleware')

    def command(self, command: Command, sent_ns: int):
        """Take one command; it is handed over when it is known who it came from."""
        if self.state == RECORDING:
            self._labels.command(command, sent_ns, time.monotonic_ns())
            self.write_commands()

    def proposal(self, twist: np.ndarray, stamp_ns: int, received_ns: int):
        """Hand over what a policy proposed, where the take has a place for it."""
        if self.state == RECORDING and self._writer.proposals:
            self.recording.proposal(twist, stamp_ns, received_ns)

    def guard_status(self, status: GuardStatus, sent_ns: int):
        """Store a report of the guard, which labels commands (`CommandLabeller.status`)."""
        self._labels.status(status, sent_ns or self._now_ns(), time.monotonic_ns())
        self.write_commands()

    def write_commands(self, *, all_of_them: bool = False):
        """Hand over the commands whose source is known by now, and where takeovers begin."""
        if self.state != RECORDING:
            return
        for one in self._labels.ready(None if all_of_them else time.monotonic_ns()):
            if one.event:
                self.recording.event('takeover', one.command.received_ns, one.event)
            self.recording.command(one.command)

    def lose_commands(self, count: int, why: str):
        """Count commands that are not in the take, by the reason."""
        self._lost_commands[why] += count
        self.note(why, f'commands {why}, the first of them now')

    def expect(self, rate_hz: float | None):
        """Tell a take that began before the camera's rate was known of it."""
        if self.state == RECORDING and self._writer.expected_rate_hz is None:
            self._writer.expected_rate_hz = rate_hz

    def command_type(self, found: str):
        """Tell the take of which type its commands are."""
        if self.state == RECORDING:
            self.recording.late(command_type=found)

    def note(self, key: str, sentence: str):
        """Write a problem into the take, once a key."""
        if self.state == RECORDING and key not in self._noted:
            self._noted.add(key)
            self.recording.event('problem', self._now_ns(), sentence)

    def settle(self) -> str:
        """Notice a take that ended by itself, on a full disk or a defect; say so, else ''."""
        take = self.recording
        if self.state != RECORDING or not (take.error or take.ended):
            return ''
        self.let_go()
        return take.error or f'{take.problem}; the take is closed: {take.path}'

    def let_go(self) -> Recording:
        """Keep what is to be told of a take that ended, and be ready for the next."""
        take, self.recording, self.state = self.recording, None, IDLE
        if take.path is not None:
            self._last = {
                'last_episode': str(take.path),
                'last_verdict': take.health['verdict'],
                'last_reasons': '; '.join(take.health['reasons']),
            }
        self._folder.changed()
        return take

    def shut_down(self, timeout_s: float) -> str:
        """Close a take in progress, as whole as one that was stopped; return what came of it."""
        take = self.recording
        if take is None:
            return ''
        if self.state == RECORDING:
            self.write_commands(all_of_them=True)
            take.event('stop', self._now_ns(), 'the recorder was shut down')
            take.finish('unknown')
        if not take.join(timeout_s):
            return f'{take.part_path} could not be closed in time'
        return take.error or (f'closed {take.path}' if take.path else '')

    def values(self) -> dict:
        """Return what the status tells of this take and of the last."""
        take = self.recording
        return {
            'episode': take.part_path.name if take else '',
            'seconds': f'{time.monotonic() - self._began_s:.1f}' if take else '0.0',
            'frames': take.frames if take else 0,
            'commands': take.commands if take else 0,
            'drops': take.drops if take else 0,
            'queue': take.queued if take else 0,
            **self._last,
        }

    def problems(self) -> list[str]:
        """Return sentences on what is wrong with the take in progress."""
        if self.recording is None:
            return []
        return [
            self._unlike,
            self.recording.problem or '',
            *(f'{count} commands {why}' for why, count in self._lost_commands.items()),
        ]


def kind(message: 'Message') -> str:
    """Return size and encoding of a camera message in words, such as ``1280x720 rgb8``."""
    if hasattr(message, 'encoding'):
        return f'{message.width}x{message.height} {message.encoding}'
    try:
        image = PillowImage.open(io.BytesIO(message.data))  # reads the head alone
    except Exception:  # Pillow's own for a size beyond all reason, and whatever else rubbish gives
        return BROKEN
    return f'{image.width}x{image.height} {image.format}'

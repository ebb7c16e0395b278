"""
Publish images and commands to measure a recorder, and start and end its episodes.

    python -m mobile_vla_ros.nodes.bench_source --ros-args -p rate_hz:=30.0 -p seconds:=10.0

Prints one line of JSON for each of `receives` (the recorder), `started`, `silent` (publishing has
stopped) and `ended`. Each image has its number in its pixels (`bench.synthetic_camera`), each
command in `angular.x`, so that losses in a file can be counted.
"""

import json
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from mobile_vla_ros.bench import synthetic_camera
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.guard_status import values_of
from mobile_vla_ros.nodes.shared.messages import time_ns
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end

# Images per sway over the scene.
IMAGES = 30
RECORDING = 'recording'
POLL_S, RETRY_S = 0.3, 10.0
# Amplitude and period of the commands: they vary, so that no episode counts as idle.
SWAY_MPS, SWAY_S = 0.3, 4.0


class Status(NamedTuple):
    """A recorder's report."""

    stamp_ns: int
    state: str
    values: dict[str, str]


@dataclass(frozen=True)
class EpisodeParams:
    """
    The episodes to record.

    :param seconds: length of each; 0: do not end them.
    :param episodes: how many to start.
    :param recorder: name of the recorder; {} in it is the number of the episode.
    """

    seconds: float
    episodes: int
    recorder: str
    settle_s: float
    timeout_s: float


class BenchSource(Node):
    """Publish images and commands in a thread each; a third starts and ends the episodes."""

    def __init__(self) -> None:
        super().__init__('bench_source')
        self.exit_status: int | None = None
        rate_hz = declare(self, 'rate_hz', 30.0, 'images per second', limits=(0.5, 240.0))
        command_rate_hz = declare(
            self, 'command_rate_hz', 50.0, 'commands per second', limits=(0.5, 500.0)
        )
        width = declare(self, 'width', 1280, 'width of an image, pixels', limits=(64, 7680))
        height = declare(self, 'height', 720, 'height of an image, pixels', limits=(64, 4320))
        self._params = self._episode_params()
        # bgr8, as OpenCV's camera drivers send it; each message is refilled in place.
        self._messages = [
            _message(image[:, :, ::-1]) for image in synthetic_camera.images(width, height, IMAGES)
        ]
        self._images = self.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        self._twists = self.create_publisher(Twist, 'cmd_vel', 10)
        self._frames = self._commands = 0
        self._changed = threading.Condition()
        self._statuses: dict[str, list[Status]] = {}
        self._silent, self._closing = threading.Event(), threading.Event()
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        for work in (
            lambda: self._pace(rate_hz, self._send_frame),
            lambda: self._pace(command_rate_hz, self._send_command),
            lambda: work_to_end(self, 'bench_source', self._record_all, self._closing),
        ):
            threading.Thread(target=work, daemon=True).start()

    def on_exit(self) -> None:
        """Stop the threads from publishing after shutdown."""
        self._silent.set()
        self._closing.set()

    def _episode_params(self) -> EpisodeParams:
        return EpisodeParams(
            seconds=declare(
                self,
                'seconds',
                10.0,
                'length of an episode; 0: do not end it',
                limits=(0.0, 86400.0),
            ),
            episodes=declare(
                self,
                'takes',
                1,
                'how many episodes to start',
                limits=(1, 100_000),
            ),
            recorder=declare(
                self,
                'recorder',
                'recorder',
                "the recorder's name; {} in it is the number of the episode",
            ),
            settle_s=declare(
                self, 'settle_s', 1.0, 'seconds of images before an episode', limits=(0.0, 600.0)
            ),
            timeout_s=declare(
                self, 'patience_s', 60.0, 'seconds to wait for an answer', limits=(1.0, 600.0)
            ),
        )

    # --- publishing ---

    def _pace(self, rate_hz: float, send: Callable[[], None]) -> None:
        """Call ``send`` at a rate; like a camera, skip what is late."""
        period_s = 1.0 / rate_hz
        due = time.monotonic()
        while not self._silent.wait(max(due - time.monotonic(), 0.0)):
            send()
            due = max(due, time.monotonic() - period_s) + period_s

    def _send_frame(self) -> None:
        message, pixels = self._messages[self._frames % len(self._messages)]
        synthetic_camera.draw_number(pixels, self._frames)
        message.header.stamp = self.get_clock().now().to_msg()
        self._frames += 1  # before publishing: another thread reads the count
        self._images.publish(message)

    def _send_command(self) -> None:
        message = Twist()
        angle = 2 * np.pi * time.monotonic() / SWAY_S
        message.linear.x, message.linear.y = SWAY_MPS, SWAY_MPS * float(np.sin(angle))
        message.angular.x = float(self._commands)
        self._commands += 1
        self._twists.publish(message)

    # --- episodes ---

    def _on_diagnostics(self, array: DiagnosticArray) -> None:
        with self._changed:
            for status in array.status:
                self._statuses.setdefault(status.name, []).append(
                    Status(time_ns(array.header.stamp), status.message, values_of(status))
                )
            self._changed.notify_all()

    def _record_all(self) -> None:
        for number in range(self._params.episodes):
            self._record(self._params.recorder.format(number))
        if self._params.seconds:
            self.exit_status = 0

    def _record(self, recorder: str) -> None:
        statuses = self._statuses.setdefault(recorder, [])
        self._start(recorder)
        first_frame, first_command, seen = self._frames, self._commands, len(statuses)
        started_s = time.monotonic()
        _report('started', recorder=recorder)
        if not self._params.seconds:
            return
        # The recorder may end it too, for example on a full disk.
        self._wait(
            lambda: any(status.state != RECORDING for status in statuses[seen + 1 :]),
            self._params.seconds,
        )
        self._silent.set()
        sent_s = time.monotonic() - started_s
        _report('silent')
        time.sleep(1.0)  # two statuses: frames on their way have arrived
        own = statuses[-1].state == RECORDING
        if own:
            self._until('the queue to empty', lambda: int(statuses[-1].values['queue']) == 0)
        during = statuses[seen:]
        if own:
            answer = self._call(f'{recorder}/success').message
        else:
            answer = statuses[-1].values['problem']
        self._until('the end', lambda: statuses[-1].state == 'idle')
        frames, commands = self._frames - first_frame, self._commands - first_command
        gaps_s = np.diff([status.stamp_ns for status in during]) / 1e9
        _report(
            'ended',
            by='source' if own else 'recorder',
            answer=answer,
            first_frame=first_frame,
            frames=frames,
            frame_hz=frames / sent_s,
            first_command=first_command,
            commands=commands,
            command_hz=commands / sent_s,
            status_gap_s=max(gaps_s.tolist(), default=None),
            most_queued=max(int(status.values['queue']) for status in during),
            status=statuses[-1].values,
        )

    def _start(self, recorder: str) -> None:
        """Start an episode as soon as the recorder receives images and commands."""
        statuses = self._statuses[recorder]

        def receives() -> bool:
            values = statuses[-1].values if statuses else {}
            return bool(values.get('command_type')) and float(values['camera_hz']) > 0

        self._until(f'{recorder} to receive', receives)
        _report('receives', recorder=recorder)
        self._closing.wait(self._params.settle_s)
        answer = self._call(f'{recorder}/start')
        # The request may have been sent twice.
        if not answer.success and statuses[-1].state != RECORDING:
            raise UserError('the recorder refused to start', got=answer.message)

    def _call(self, service: str) -> Trigger.Response:
        client = self.create_client(Trigger, service)
        future, called_s = None, 0.0

        def answered() -> bool:
            nonlocal future, called_s
            if future is not None and future.done():
                return True
            # An answer is lost if the server has not found this client yet.
            if client.service_is_ready() and time.monotonic() - called_s > RETRY_S:
                future, called_s = client.call_async(Trigger.Request()), time.monotonic()
            return False

        self._until(f'an answer from {service}', answered)
        assert future is not None
        return future.result()

    def _until(self, what: str, predicate: Callable[[], object]) -> None:
        if not self._wait(predicate, self._params.timeout_s):
            raise UserError(
                f'timeout waiting for {what}', got=f'nothing in {self._params.timeout_s} s'
            )

    def _wait(self, predicate: Callable[[], object], seconds: float) -> bool:
        """Wait until a predicate is true, evaluated at every status; return whether it is."""
        deadline = time.monotonic() + seconds
        while not predicate():
            left = deadline - time.monotonic()
            if left <= 0 or self._closing.is_set():
                return False
            with self._changed:
                self._changed.wait(min(left, POLL_S))
        return True


def _message(image: np.ndarray) -> tuple[Image, np.ndarray]:
    """Return a bgr8 message and its pixels, which share the message's memory."""
    height, width, _ = image.shape
    message = Image(height=height, width=width, encoding='bgr8', step=width * 3)
    message.header.frame_id = 'bench'
    message.data.frombytes(np.ascontiguousarray(image).data)
    return message, np.frombuffer(message.data, np.uint8).reshape(height, width, 3)


def _report(event: str, **values) -> None:
    print(json.dumps({'event': event, **values}), flush=True)


def main(args: list[str] | None = None) -> int:
    """Run the source."""
    return run('bench_source', BenchSource, args=args)

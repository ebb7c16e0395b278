"""
A camera and a source of commands to measure a recorder by; it also starts and ends its takes.

    python -m mobile_vla_ros.nodes.bench_source --ros-args -p rate_hz:=30.0 -p seconds:=10.0

One line of JSON on standard output for each of: `started`, `silent` (nothing more is sent) and
`ended`. Every picture has its number in its pixels (`sim.test_card`), every command in
`angular.x`, so that what is missing in a file can be counted.
"""

import json
import threading
import time
from collections.abc import Callable

import numpy as np
from diagnostic_msgs.msg import DiagnosticArray
from geometry_msgs.msg import Twist
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from sensor_msgs.msg import Image
from std_srvs.srv import Trigger

from mobile_vla_ros.bench import synthetic_camera as test_card
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.messages import time_ns
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end

# A sway over the scene lasts this many pictures.
PICTURES = 30
RECORDING = 'recording'
LOOK_AGAIN_S, ASK_AGAIN_S = 0.3, 10.0
# How far commands may differ from a straight line, so that no take counts as idle.
SWAY_MPS, SWAY_S = 0.3, 4.0


class BenchSource(Node):
    """Sends in two threads that keep a camera's pace; a third leads through the takes."""

    def __init__(self):
        super().__init__('bench_source')
        rate_hz = declare(self, 'rate_hz', 30.0, 'pictures a second', limits=(0.5, 240.0))
        command_rate_hz = declare(
            self, 'command_rate_hz', 50.0, 'commands a second', limits=(0.5, 500.0)
        )
        width = declare(self, 'width', 1280, 'of a picture, pixels', limits=(64, 7680))
        height = declare(self, 'height', 720, 'of a picture, pixels', limits=(64, 4320))
        self._seconds = declare(
            self, 'seconds', 10.0, 'length of a take; 0: no take is ended', limits=(0.0, 86400.0)
        )
        self._takes = declare(
            self, 'takes', 1, 'how many takes are started, when none is ended', limits=(1, 100_000)
        )
        self._recorder = declare(
            self, 'recorder', 'recorder', "the recorder's name; {} in it is the number of the take"
        )
        self._settle_s = declare(
            self, 'settle_s', 1.0, 'seconds of pictures before a take', limits=(0.0, 60.0)
        )
        self._patience_s = declare(
            self, 'patience_s', 60.0, 'seconds to wait for an answer', limits=(1.0, 600.0)
        )
        # bgr8, as OpenCV's camera drivers send it; each message is filled anew in place.
        self._messages = [
            _message(picture[:, :, ::-1])
            for picture in test_card.pictures(width, height, PICTURES)
        ]
        self._images = self.create_publisher(Image, 'camera/image_raw', qos_profile_sensor_data)
        self._twists = self.create_publisher(Twist, 'cmd_vel', 10)
        self._frames = self._commands = 0
        self._heard = threading.Condition()
        self._statuses: dict[str, list] = {}
        self._silent, self._closing = threading.Event(), threading.Event()
        self.create_subscription(DiagnosticArray, '/diagnostics', self._on_diagnostics, 10)
        for work in (
            lambda: self._pace(rate_hz, self._send_frame),
            lambda: self._pace(command_rate_hz, self._send_command),
            lambda: work_to_end(self, 'bench_source', self._lead, self._closing),
        ):
            threading.Thread(target=work, daemon=True).start()

    def on_exit(self):
        """Let no thread speak after the context is gone."""
        self._silent.set()
        self._closing.set()

    # --- what is sent ---

    def _pace(self, rate_hz: float, send: Callable[[], None]):
        """Call ``send`` at a rate; like a camera, never send later what was not sent in time."""
        period_s = 1.0 / rate_hz
        due = time.monotonic()
        while not self._silent.wait(max(due - time.monotonic(), 0.0)):
            send()
            due = max(due, time.monotonic() - period_s) + period_s

    def _send_frame(self):
        message, pixels = self._messages[self._frames % len(self._messages)]
        test_card.draw_number(pixels, self._frames)
        message.header.stamp = self.get_clock().now().to_msg()
        self._frames += 1  # counted before it is sent: who hears it may already ask for it
        self._images.publish(message)

    def _send_command(self):
        message = Twist()
        angle = 2 * np.pi * time.monotonic() / SWAY_S
        message.linear.x, message.linear.y = SWAY_MPS, SWAY_MPS * float(np.sin(angle))
        message.angular.x = float(self._commands)
        self._commands += 1
        self._twists.publish(message)

    # --- the takes ---

    def _on_diagnostics(self, array: DiagnosticArray):
        with self._heard:
            for status in array.status:
                self._statuses.setdefault(status.name, []).append(
                    (
                        time_ns(array.header.stamp),
                        status.message,
                        {pair.key: pair.value for pair in status.values},
                    )
                )
            self._heard.notify_all()

    def _lead(self):
        for number in range(self._takes):
            self._take(self._recorder.format(number))
        if self._seconds:
            self.exit_status = 0

    def _take(self, recorder: str):
        heard = self._statuses.setdefault(recorder, [])
        self._start(recorder)
        first, seen = (self._frames, self._commands), len(heard)
        started_s = time.monotonic()
        _say('started', recorder=recorder)
        if not self._seconds:
            return
        # The recorder may end it too: a disk that is full, for one.
        self._wait(
            lambda: any(state != RECORDING for _, state, _ in heard[seen + 1 :]), self._seconds
        )
        self._silent.set()
        sent_s = time.monotonic() - started_s
        _say('silent')
        time.sleep(1.0)  # two statuses: the frames that were on their way have arrived
        own = heard[-1][1] == RECORDING
        if own:
            self._until('the queue to empty', lambda: _empty(heard[-1]))
        told = heard[seen:]
        answer = self._call(f'{recorder}/success').message if own else heard[-1][2]['problem']
        self._until('the end', lambda: heard[-1][1] == 'idle')
        frames, commands = self._frames - first[0], self._commands - first[1]
        _say(
            'ended',
            by='source' if own else 'recorder',
            answer=answer,
            first_frame=first[0],
            frames=frames,
            frame_hz=frames / sent_s,
            first_command=first[1],
            commands=commands,
            command_hz=commands / sent_s,
            status_gap_s=max((np.diff([at for at, *_ in told]) / 1e9).tolist(), default=None),
            most_queued=max(int(values['queue']) for *_, values in told),
            status=heard[-1][2],
        )

    def _start(self, recorder: str):
        """Start a take as soon as the recorder hears camera and commands."""
        heard = self._statuses[recorder]
        self._until(
            f'{recorder} to listen',
            lambda: (
                heard and heard[-1][2]['command_type'] and float(heard[-1][2]['camera_hz']) > 0
            ),
        )
        self._closing.wait(self._settle_s)
        answer = self._call(f'{recorder}/start')
        if not answer.success and heard[-1][1] != RECORDING:  # it may have been asked twice
            raise UserError('the recorder refuses to start', got=answer.message)

    def _call(self, service: str) -> Trigger.Response:
        client = self.create_client(Trigger, service)
        future, asked_s = None, 0.0

        def answered():
            nonlocal future, asked_s
            if future is not None and future.done():
                return True
            # An answer is lost when the other side has not yet found who asks.
            if client.service_is_ready() and time.monotonic() - asked_s > ASK_AGAIN_S:
                future, asked_s = client.call_async(Trigger.Request()), time.monotonic()
            return False

        self._until(f'an answer of {service}', answered)
        return future.result()

    def _until(self, what: str, predicate: Callable[[], object]):
        if not self._wait(predicate, self._patience_s):
            raise UserError(f'waited in vain for {what}', got=f'nothing in {self._patience_s} s')

    def _wait(self, predicate: Callable[[], object], seconds: float) -> bool:
        """Wait until the predicate holds; return whether it does. Looks at every status."""
        deadline = time.monotonic() + seconds
        while not predicate():
            left = deadline - time.monotonic()
            if left <= 0 or self._closing.is_set():
                return False
            with self._heard:
                self._heard.wait(min(left, LOOK_AGAIN_S))
        return True


def _empty(status: tuple) -> bool:
    return int(status[2]['queue']) == 0


def _message(picture: np.ndarray) -> tuple[Image, np.ndarray]:
    """Return a bgr8 message and its pixels, which are the message's own memory."""
    height, width, _ = picture.shape
    message = Image(height=height, width=width, encoding='bgr8', step=width * 3)
    message.header.frame_id = 'bench'
    message.data.frombytes(np.ascontiguousarray(picture).data)
    return message, np.frombuffer(message.data, np.uint8).reshape(height, width, 3)


def _say(event: str, **values):
    print(json.dumps({'event': event, **values}), flush=True)


def main(args: list[str] | None = None) -> int:
    """Run the source."""
    return run('bench_source', BenchSource, args=args)

"""
Shows a recorded take to the live inference node, frame by frame, and says what it proposes.

    python -m mobile_vla_ros.nodes.replay_node --ros-args -p episode:=FILE -p policy_rate_hz:=10.0

Makes the time (`/clock`) of the take's own receipts; each frame that should give a plan is waited
for. One line of JSON such a frame on standard output: frame, stamp_ns, and twist (m/s and rad/s)
or withheld (why nothing was proposed). Sends no command anywhere.
"""

import json
import threading
import time

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import qos_profile_sensor_data
from rclpy.time import Time
from rosgraph_msgs.msg import Clock

from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.timing.timeline import ArrivalTimes, arrival_times
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.image_messages import to_compressed
from mobile_vla_ros.nodes.shared.messages import LATCHED, time_ns, twist_array
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end
from mobile_vla_ros.nodes.shared.topics import camera
from mobile_vla_ros.runtime.frame_buffer import step_outcomes
from mobile_vla_ros.types import NANOSECONDS

CLOCK_STEP_NS = 50_000_000
LEAD_NS = 100_000_000  # of the clock before the first frame
FAULTS_HEARD = 2  # at a frame's own time, before it is given up


class ReplayNode(Node):
    """Its work is done in a thread; the executor's thread stores what is heard."""

    def __init__(self):
        super().__init__('replay')
        self.exit_status = None
        path = declare(self, 'episode', '', 'file of the take')
        rate_hz = declare(self, 'policy_rate_hz', 10.0, "the policy's rate", limits=(0.1, 1000.0))
        window = declare(self, 'window', 4, "frames of the policy's window", limits=(1, 64))
        self._speed = declare(
            self, 'speed', 4.0, "the take's time against real time, at most", limits=(0.1, 8.0)
        )
        self._start_s = declare(
            self,
            'start_s',
            120.0,
            'seconds that the inference node may take to load its policy',
            limits=(1.0, 3600.0),
        )
        self._step_s = declare(
            self,
            'step_s',
            2.0,
            'seconds that a proposal may take while inference does not say that all is well',
            limits=(0.1, 3600.0),
        )
        self._first_s = declare(
            self, 'first_s', 60.0, 'seconds that any proposal may take', limits=(0.1, 3600.0)
        )
        self._episode = Episode.open(path)
        self._times: ArrivalTimes = arrival_times(self._episode)
        self._looks = step_outcomes(self._times.stamp_ns, rate_hz, window)
        self._news = threading.Condition()
        self._proposed: dict[int, list[float]] = {}
        self._health: DiagnosticStatus | None = None
        self._now_ns = self._said_ns = self._faults = 0
        topic, kind = camera(self, 'compressed')
        self._images = self.create_publisher(kind, topic, qos_profile_sensor_data)
        self._clock = self.create_publisher(Clock, '/clock', 10)
        self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, 100)
        self.create_subscription(DiagnosticArray, 'policy/health', self._on_health, LATCHED)
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=work_to_end, args=(self, 'replay_node', self._work, self._closing), daemon=True
        )
        self._thread.start()

    def on_exit(self):
        """Let the thread end before the context goes."""
        self._closing.set()
        with self._news:
            self._news.notify_all()
        self._thread.join()
        self._episode.close()

    def _on_proposal(self, message: TwistStamped):
        with self._news:
            # The first of a stamp was said at the time of its frame.
            self._proposed.setdefault(
                time_ns(message.header.stamp), twist_array(message.twist).tolist()
            )
            self._news.notify_all()

    def _on_health(self, message: DiagnosticArray):
        with self._news:
            self._health = message.status[0]
            self._said_ns = time_ns(message.header.stamp)
            if self._said_ns >= self._now_ns and self._health.level == DiagnosticStatus.ERROR:
                self._faults += 1
            self._news.notify_all()

    def _work(self):
        now_ns = self._times.now_ns
        self._meet(int(now_ns[0]) - LEAD_NS)
        for index in range(len(self._episode)):
            self._advance(int(now_ns[index]))
            try:
                encoded = self._episode.encoded(index)
            except UserError:  # as a camera that lost it
                continue
            stamp_ns = int(self._times.stamp_ns[index])
            self._images.publish(
                to_compressed(
                    encoded, stamp=Time(nanoseconds=stamp_ns).to_msg(), frame_id='camera'
                )
            )
            if self._looks[index]:
                print(
                    json.dumps({'frame': index, 'stamp_ns': stamp_ns, **self._answer(stamp_ns)}),
                    flush=True,
                )
            if self._closing.is_set():
                return
        self.exit_status = 0

    def _meet(self, begin_ns: int):
        """Let time stand at the beginning until inference listens, speaks and has this time."""
        self._now_ns = begin_ns
        deadline = time.monotonic() + self._start_s
        while not (
            self._images.get_subscription_count()
            and self._health is not None
            and self.count_publishers('policy/cmd_vel')
            and self._said_ns >= begin_ns
        ):
            self._tell_time()
            if time.monotonic() > deadline:
                raise UserError(
                    'the inference node does not listen',
                    got=f'nothing for {self._start_s:g} s',
                    expected=f'{self._images.topic_name} heard, and policy/health',
                    remedy='look at its log',
                )
            if self._closing.wait(0.05):
                return

    def _advance(self, now_ns: int):
        """Let time pass until a frame's receipt, in small steps and not too fast."""
        while self._now_ns < now_ns and not self._closing.is_set():
            step_ns = min(CLOCK_STEP_NS, now_ns - self._now_ns)
            # Faster, and the node would take it for a clock that jumps.
            self._closing.wait(step_ns / NANOSECONDS / self._speed)
            self._now_ns += step_ns
            self._tell_time()

    def _tell_time(self):
        self._clock.publish(Clock(clock=Time(nanoseconds=self._now_ns).to_msg()))

    def _answer(self, stamp_ns: int) -> dict:
        """Wait for the first proposal that comes of a frame, or for why there is none."""
        began = time.monotonic()
        with self._news:
            self._faults = 0
            while not self._closing.is_set():
                if stamp_ns in self._proposed:
                    return {'twist': self._proposed[stamp_ns]}
                waited_s = time.monotonic() - began
                health = self._health
                well = health.level == DiagnosticStatus.OK
                if self._faults >= FAULTS_HEARD or (not well and waited_s > self._step_s):
                    return {'withheld': health.message}
                if waited_s > self._first_s:
                    return {'withheld': f'it said nothing for {self._first_s:g} s'}
                self._news.wait(0.05)
        return {'withheld': 'stopped'}


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run('replay_node', ReplayNode, args=args)

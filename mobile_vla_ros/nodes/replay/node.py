"""
Replay a recorded episode to the live inference node, frame by frame, and print its proposals.

    python -m mobile_vla_ros.nodes.replay_node --ros-args -p episode:=FILE -p policy_rate_hz:=10.0

Publishes `/clock` from the episode's times of receipt and waits for each frame that should yield
a plan. Prints one line of JSON for each of them: frame, stamp_ns, and twist (m/s and rad/s) or
withheld (why nothing was proposed). Publishes no command.
"""

import json
import threading
import time
from dataclasses import dataclass

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
POLL_S = 0.05
MAX_FAULTS = 2  # reported at a frame's time before it is skipped


@dataclass(frozen=True)
class ReplayParams:
    """All values as given at start; ``declare_params`` describes each."""

    episode: str
    camera: str
    policy_rate_hz: float
    window: int
    speed: float
    start_s: float
    step_s: float
    first_s: float


def declare_params(node: Node) -> ReplayParams:
    """
    Declare every parameter and return the values.

    :raises UserError: for a value of the wrong type or out of range.
    """
    return ReplayParams(
        episode=declare(node, 'episode', '', 'file of the episode'),
        camera=declare(node, 'camera', '', 'camera whose images are played; empty: the main one'),
        policy_rate_hz=declare(
            node, 'policy_rate_hz', 10.0, "the policy's rate", limits=(0.1, 1000.0)
        ),
        window=declare(node, 'window', 4, "frames of the policy's window", limits=(1, 64)),
        speed=declare(
            node,
            'speed',
            4.0,
            "maximum speed of the episode's time against real time",
            limits=(0.1, 8.0),
        ),
        start_s=declare(
            node,
            'start_s',
            120.0,
            'timeout for the inference node to load its policy, seconds',
            limits=(1.0, 3600.0),
        ),
        step_s=declare(
            node,
            'step_s',
            2.0,
            'timeout of a proposal while inference reports a hold or a fault, seconds',
            limits=(0.1, 3600.0),
        ),
        first_s=declare(
            node, 'first_s', 60.0, 'timeout of any proposal, seconds', limits=(0.1, 3600.0)
        ),
    )


class Answers:
    """The messages of inference; the executor's thread stores them, the replay thread waits."""

    def __init__(self) -> None:
        self.health: DiagnosticStatus | None = None
        self.health_ns = 0
        self._changed = threading.Condition()
        self._proposed: dict[int, list[float]] = {}
        self._replayed_ns = self._faults = 0

    def store_proposal(self, message: TwistStamped) -> None:
        """Store the first proposal of a stamp: it was made at the time of its frame."""
        with self._changed:
            self._proposed.setdefault(
                time_ns(message.header.stamp), twist_array(message.twist).tolist()
            )
            self._changed.notify_all()

    def store_health(self, message: DiagnosticArray) -> None:
        """Store the newest health, and count faults since the current frame."""
        with self._changed:
            self.health = message.status[0]
            self.health_ns = time_ns(message.header.stamp)
            if self.health_ns >= self._replayed_ns and self.health.level == DiagnosticStatus.ERROR:
                self._faults += 1
            self._changed.notify_all()

    def at(self, now_ns: int) -> None:
        """Set the replayed time: faults from before it do not count."""
        self._replayed_ns = now_ns

    def wait_for(self, stamp_ns: int, params: ReplayParams, closing: threading.Event) -> dict:
        """Return the first proposal from a frame, or why there is none, for the JSON line."""
        began = time.monotonic()
        with self._changed:
            self._faults = 0
            while not closing.is_set():
                if stamp_ns in self._proposed:
                    return {'twist': self._proposed[stamp_ns]}
                waited_s = time.monotonic() - began
                health = self.health
                if health is not None and (
                    self._faults >= MAX_FAULTS
                    or (health.level != DiagnosticStatus.OK and waited_s > params.step_s)
                ):
                    return {'withheld': health.message}
                if waited_s > params.first_s:
                    return {'withheld': f'no proposal within {params.first_s:g} s'}
                self._changed.wait(POLL_S)
        return {'withheld': 'stopped'}

    def wake(self) -> None:
        """Wake the waiting thread at shutdown."""
        with self._changed:
            self._changed.notify_all()


class ReplayNode(Node):
    """Replays in a thread; the executor's thread stores received messages."""

    def __init__(self) -> None:
        super().__init__('replay')
        self.exit_status: int | None = None
        self._params = declare_params(self)
        self._episode = Episode.open(self._params.episode, camera=self._params.camera)
        self._times: ArrivalTimes = arrival_times(self._episode)
        self._answers = Answers()
        self._now_ns = 0
        topic, kind = camera(self, 'compressed')
        self._images = self.create_publisher(kind, topic, qos_profile_sensor_data)
        self._clocks = self.create_publisher(Clock, '/clock', 10)
        self.create_subscription(TwistStamped, 'policy/cmd_vel', self._answers.store_proposal, 100)
        self.create_subscription(
            DiagnosticArray, 'policy/health', self._answers.store_health, LATCHED
        )
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=work_to_end, args=(self, 'replay_node', self._work, self._closing), daemon=True
        )
        self._thread.start()

    def on_exit(self) -> None:
        """Join the thread before the context shuts down."""
        self._closing.set()
        self._answers.wake()
        self._thread.join()
        self._episode.close()

    def _work(self) -> None:
        params, now_ns = self._params, self._times.now_ns
        yields_plan = step_outcomes(self._times.stamp_ns, params.policy_rate_hz, params.window)
        self._wait_for_inference(int(now_ns[0]) - LEAD_NS)
        for index in range(len(self._episode)):
            self._advance(int(now_ns[index]))
            try:
                encoded = self._episode.encoded(index)
            except UserError:  # lost, as by a camera
                continue
            stamp_ns = int(self._times.stamp_ns[index])
            self._images.publish(
                to_compressed(
                    encoded, stamp=Time(nanoseconds=stamp_ns).to_msg(), frame_id='camera'
                )
            )
            if yields_plan[index]:
                answer = self._answers.wait_for(stamp_ns, params, self._closing)
                print(json.dumps({'frame': index, 'stamp_ns': stamp_ns, **answer}), flush=True)
            if self._closing.is_set():
                return
        self.exit_status = 0

    def _wait_for_inference(self, begin_ns: int) -> None:
        """Hold the time until inference subscribes, publishes and has received this time."""
        self._set_time(begin_ns)
        deadline = time.monotonic() + self._params.start_s
        while not (
            self._images.get_subscription_count()
            and self._answers.health is not None
            and self.count_publishers('policy/cmd_vel')
            and self._answers.health_ns >= begin_ns
        ):
            self._publish_time()
            if time.monotonic() > deadline:
                raise UserError(
                    'the inference node does not respond',
                    got=f'nothing for {self._params.start_s:g} s',
                    expected=f'a subscription to {self._images.topic_name}, and policy/health',
                    remedy='see its log',
                )
            if self._closing.wait(POLL_S):
                return

    def _advance(self, now_ns: int) -> None:
        """Let time pass until a frame's receipt, in small steps and not too fast."""
        while self._now_ns < now_ns and not self._closing.is_set():
            step_ns = min(CLOCK_STEP_NS, now_ns - self._now_ns)
            # Any faster, and the node would report a clock jump.
            self._closing.wait(step_ns / NANOSECONDS / self._params.speed)
            self._set_time(self._now_ns + step_ns)
            self._publish_time()

    def _set_time(self, now_ns: int) -> None:
        self._now_ns = now_ns
        self._answers.at(now_ns)

    def _publish_time(self) -> None:
        self._clocks.publish(Clock(clock=Time(nanoseconds=self._now_ns).to_msg()))


def main(args: list[str] | None = None) -> int:
    """Run the node as a process."""
    return run('replay_node', ReplayNode, args=args)

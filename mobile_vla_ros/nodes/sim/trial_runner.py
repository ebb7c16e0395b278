"""
Drives trials in the arena through live nodes: demonstrates them, or watches a policy.

    python -m mobile_vla_ros.nodes.arena_runner --ros-args -p trials:=3 -p expert:=true

One line of JSON a trial on standard output: trial, outcome, elapsed_s, instruction, path (x and y
in metres, yaw in radians), and for a recorded trial the recorder's answer as episode.
"""

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.messages import time_ns, twist_array, twist_message
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run, work_to_end
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import RUNNING, SUCCESS
from mobile_vla_ros.sim.corrector import Corrector
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.sim.scene import KINDS
from mobile_vla_ros.types import NANOSECONDS

PATH_PERIOD_NS = 100_000_000
WAIT_S = 0.1
# A turn, for no scene begins with one.
NUDGE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.2])


class ArenaRunner(Node):
    """
    Runs its trials in a thread, while the executor's thread stores what is heard.

    The parameter ``expert`` makes it drive on ``teleop/cmd_vel`` and have the recorder record;
    without it, it resets the arena and waits for the policy to end each trial. With ``correct``
    the policy drives and is recorded, and the expert takes over where it goes wrong.
    """

    def __init__(self):
        super().__init__('arena_runner')
        self._suite = declare(self, 'suite', 'train', f'one of {", ".join(suites.SUITES)}')
        self._first = declare(
            self,
            'first_trial',
            0,
            'scene of the first trial',
            limits=(0, suites.SEEDS_PER_SUITE - 1),
        )
        self._trials = declare(self, 'trials', 1, 'how many trials', limits=(1, 100_000))
        self._expert = declare(self, 'expert', False, 'drive as the expert, and record')
        self._correct = declare(
            self,
            'correct',
            False,
            'record the policy, and take over as the expert where it goes wrong',
        )
        self._kind = declare(
            self, 'kind', '', 'only scenes of this task: ' + ', '.join(KINDS) + '; empty: all'
        )
        self._record = declare(self, 'record', True, "whether the expert's trials are recorded")
        self._wobble = declare(
            self, 'wobble', 0.0, "size of the expert's own errors, m/s", limits=(0.0, 0.3)
        )
        self._hold_s = declare(
            self,
            'hold_s',
            0.8,
            'how long the expert stays at the target before a take ends, seconds',
            limits=(0.0, 10.0),
        )
        self._patience_s = declare(
            self,
            'patience_s',
            20.0,
            'seconds without a word from another node before giving up',
            limits=(1.0, 600.0),
        )
        self._policy_patience_s = declare(
            self,
            'policy_patience_s',
            120.0,
            'seconds that the policy may take to make its first proposal',
            limits=(1.0, 3600.0),
        )
        suites.scene(self._suite, self._first + self._trials - 1)
        if self._kind and self._kind not in KINDS:
            raise UserError('unknown task', got=repr(self._kind), expected=', '.join(KINDS))
        if self._correct and self._expert:
            raise UserError(
                'either the expert drives or it corrects a policy', got='expert and correct'
            )

        self._news = threading.Condition()
        self._status: dict[str, str] = {}
        self._state = ''
        self._odom: Odometry | None = None
        self._driver: Callable[[Odometry], np.ndarray | None] | None = None
        self._proposal: np.ndarray | None = None
        self._path: list[list[float]] = []
        self._path_due = 0
        self._proposed = False
        self._teleop = self.create_publisher(Twist, 'teleop/cmd_vel', 10)
        self.create_subscription(DiagnosticStatus, 'sim/status', self._on_status, 10)
        self.create_subscription(Odometry, 'odom', self._on_odom, 10)
        if not self._expert:
            self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, 10)
        self._reset = self.create_client(Trigger, 'sim/reset')
        self._set = self.create_client(SetParameters, 'sim/set_parameters')
        self._recorder = {
            name: self.create_client(Trigger, f'recorder/{name}')
            for name in ('start', 'success', 'failure')
        }
        self._closing = threading.Event()
        self._thread = threading.Thread(
            target=work_to_end, args=(self, 'arena_runner', self._work, self._closing), daemon=True
        )
        self._thread.start()

    def on_exit(self):
        """Leave the base standing."""
        self._closing.set()
        self._driver = None
        if self._expert:
            self._teleop.publish(Twist())

    def _on_status(self, message: DiagnosticStatus):
        with self._news:
            self._state = message.message
            self._status = {pair.key: pair.value for pair in message.values}
            self._news.notify_all()

    def _on_odom(self, message: Odometry):
        with self._news:
            self._odom = message
            stamp_ns = time_ns(message.header.stamp)
            if self._state == RUNNING and stamp_ns >= self._path_due:
                self._path_due = stamp_ns + PATH_PERIOD_NS
                pose, _ = _motion(message)
                self._path.append([round(value, 3) for value in pose])
            driver = self._driver
            self._news.notify_all()
        twist = None if driver is None else driver(message)
        if twist is not None:
            self._teleop.publish(twist_message(twist))

    def _on_proposal(self, message: TwistStamped):
        with self._news:
            self._proposal, self._proposed = twist_array(message.twist), True
            self._news.notify_all()

    def _work(self):
        self._meet()
        if not self._expert:
            # A network takes seconds to load; no trial is to begin before it drives.
            self._wait(lambda: self._proposed, 'the policy', self._policy_patience_s)
        for trial in self._scenes():
            print(json.dumps(self._run_trial(trial)), flush=True)
        self.exit_status = 0

    def _scenes(self) -> Iterator[int]:
        """Give the scenes of the trials."""
        wanted = (
            number
            for number in range(self._first, suites.SEEDS_PER_SUITE)
            if self._kind in ('', suites.scene(self._suite, number).task.kind)
        )
        return itertools.islice(wanted, self._trials)

    def _meet(self):
        """
        Wait until the nodes of an expert's trial hear each other, to the wheels and back.

        Discovery takes seconds at times, and once a scene is loaded its time runs. So the base is
        nudged in a scene that does not count.
        """
        if self._expert:
            self._load(self._first)
        if self._correct or (self._expert and self._record):
            for client in self._recorder.values():
                self._find(client, 'the recorder')
        if not self._expert:
            return
        self._driver = lambda _odom: NUDGE
        self._wait(
            lambda: self._odom.twist.twist.angular.z > NUDGE[5] / 2,
            'the base',
            self._patience_s,
            'see that the guard is armed, and that it or the arena takes teleop/cmd_vel',
        )
        with self._news:
            self._driver = None
        self._teleop.publish(Twist())

    def _run_trial(self, trial: int) -> dict:
        records = self._correct or (self._expert and self._record)
        # A base that begins rolling would have come to rest before the recorder is ready.
        self._load(trial, paused=self._expert or self._correct)
        scene = suites.scene(self._suite, trial)
        result = {
            'trial': trial,
            'outcome': '',
            'elapsed_s': 0.0,
            'instruction': scene.instruction,
        }
        if records:
            self._ask(self._recorder['start'], 'the recorder')
        if self._expert or self._correct:
            expert = Expert(scene, trial, wobble=self._wobble)
            corrector = Corrector(scene, trial)
            began_ns = None

            def drive(odom: Odometry) -> np.ndarray | None:
                nonlocal began_ns
                now_ns = time_ns(odom.header.stamp)
                began_ns = now_ns if began_ns is None else began_ns
                if self._expert:
                    return expert.command(*_motion(odom), now_ns - began_ns)
                return corrector.command(*_motion(odom), self._proposal, now_ns - began_ns)

            with self._news:
                self._path, self._path_due = [], 0
            self._configure(_parameter('paused', False))
            self._driver = drive
        self._wait(lambda: self._state != RUNNING, 'the arena')
        with self._news:
            result['outcome'] = self._state
            result['elapsed_s'] = float(self._status['elapsed_s'])
            result['path'], self._path = self._path, []
        if self._expert or self._correct:
            self._stand()
        if self._correct:
            result['takeovers'] = corrector.takeovers
        if records:
            verdict = 'success' if result['outcome'] == SUCCESS else 'failure'
            result['episode'] = self._ask(self._recorder[verdict], 'the recorder')
        return result

    def _configure(self, *parameters: Parameter):
        request = SetParameters.Request(parameters=list(parameters))
        for result in self._call(self._set, request, 'the arena').results:
            if not result.successful:
                raise UserError('the arena refuses the trial', got=result.reason)

    def _load(self, trial: int, *, paused: bool = False):
        """Reset the arena to a scene and wait until what is heard comes from it."""
        self._configure(
            _parameter('suite', self._suite),
            _parameter('trial', trial),
            _parameter('paused', paused),
        )
        load = str(json.loads(self._ask(self._reset, 'the arena'))['load'])
        self._wait(lambda: self._status.get('load') == load, 'the arena')
        with self._news:
            self._odom = self._proposal = None
            self._path, self._path_due = [], 0
        self._wait(lambda: self._odom is not None, 'the odometry')

    def _stand(self):
        """Hold still for a while, so that a take shows that one stops at the target."""
        until_ns = self._stamp_ns() + round(self._hold_s * NANOSECONDS)
        if self._state == SUCCESS:
            self._wait(lambda: self._stamp_ns() >= until_ns, 'the odometry')
        with self._news:
            self._driver = None
        if self._expert:
            self._teleop.publish(Twist())

    def _stamp_ns(self) -> int:
        return time_ns(self._odom.header.stamp)

    def _wait(
        self,
        predicate: Callable[[], bool],
        who: str,
        most_s: float = math.inf,
        remedy: str = 'look at what its node says',
    ):
        """Wait until a predicate over what was heard is true, as long as anything is heard."""
        began_s = heard_s = time.monotonic()
        last = self._odom
        with self._news:
            while not predicate():
                if self._closing.is_set():
                    raise RuntimeError('the node is being shut down')
                self._news.wait(WAIT_S)
                if self._odom is not last:
                    last, heard_s = self._odom, time.monotonic()
                if time.monotonic() - heard_s > self._patience_s:
                    raise UserError(
                        f'{who} is silent',
                        got=f'nothing for {self._patience_s} s',
                        remedy='start sim_node in the same ROS domain and namespace',
                    )
                if time.monotonic() - began_s > most_s:
                    raise UserError(f'{who} does nothing', got=f'{most_s} s of it', remedy=remedy)

    def _ask(self, client, who: str) -> str:
        """Call a Trigger service and return its message."""
        response = self._call(client, Trigger.Request(), who)
        if not response.success:
            raise UserError(f'{who} refuses {client.srv_name}', got=response.message)
        return response.message

    def _find(self, client, who: str):
        if not client.wait_for_service(self._patience_s):
            raise UserError(
                f'{who} does not answer',
                got=f'no service {client.srv_name}',
                remedy='start its node in the same ROS domain and namespace',
            )

    def _call(self, client, request, who: str):
        self._find(client, who)
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(self._patience_s):
            raise UserError(
                f'{who} does not answer {client.srv_name}', got=f'nothing for {self._patience_s} s'
            )
        return future.result()


def _parameter(name: str, value: str | int | bool) -> Parameter:
    kinds = {
        str: (ParameterType.PARAMETER_STRING, 'string_value'),
        int: (ParameterType.PARAMETER_INTEGER, 'integer_value'),
        bool: (ParameterType.PARAMETER_BOOL, 'bool_value'),
    }
    kind, field = kinds[type(value)]
    return Parameter(name=name, value=ParameterValue(type=kind, **{field: value}))


def _motion(odom: Odometry) -> tuple[tuple, tuple]:
    """Return pose (x, y, yaw) and velocity (vx, vy, wz) of an Odometry message."""
    place, turn = odom.pose.pose.position, odom.pose.pose.orientation
    twist = odom.twist.twist
    yaw = 2 * math.atan2(turn.z, turn.w)
    return (place.x, place.y, yaw), (twist.linear.x, twist.linear.y, twist.angular.z)


def main(args: list[str] | None = None) -> int:
    """Run the trials."""
    return run('arena_runner', ArenaRunner, args=args)

"""
Drives trials in the arena through live nodes: demonstrates them, or watches a policy.

    python -m mobile_vla_ros.nodes.arena_runner --ros-args -p trials:=3 -p expert:=true

Prints one line of JSON per trial: trial, outcome, elapsed_s, instruction, path (x and y in metres,
yaw in radians), and for a recorded trial the recorder's answer as episode.
"""

import itertools
import json
import math
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist, TwistStamped
from nav_msgs.msg import Odometry
from rcl_interfaces.msg import Parameter, ParameterType, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.guard_status import usable, values_of
from mobile_vla_ros.nodes.shared.messages import time_ns, twist_array, twist_message
from mobile_vla_ros.nodes.shared.run import run, work_to_end
from mobile_vla_ros.nodes.sim.params import runner_params
from mobile_vla_ros.sim import suites
from mobile_vla_ros.sim.arena import RUNNING, SUCCESS
from mobile_vla_ros.sim.corrector import Corrector
from mobile_vla_ros.sim.expert import Expert
from mobile_vla_ros.types import NANOSECONDS

PATH_PERIOD_NS = 100_000_000
POLL_S = 0.1
# A turn, since no scene begins with one.
NUDGE = np.array([0.0, 0.0, 0.0, 0.0, 0.0, 0.2])

Driver = Callable[[Odometry], np.ndarray | None]
Triple = tuple[float, float, float]


@dataclass
class Received:
    """
    The newest messages since a scene was loaded.

    :ivar state: of the trial.
    :ivar status: values of the arena's status.
    :ivar proposal: (6,) of the policy, m/s and rad/s.
    :ivar path: pose [x, y, yaw] every ``PATH_PERIOD_NS`` of the running trial.
    """

    state: str = ''
    status: dict[str, str] = field(default_factory=dict)
    odom: Odometry | None = None
    proposal: np.ndarray | None = None
    path: list[list[float]] = field(default_factory=list)
    path_due_ns: int = 0

    @property
    def stamp_ns(self) -> int:
        """Of the newest odometry; 0 without one."""
        return 0 if self.odom is None else time_ns(self.odom.header.stamp)


class ArenaRunner(Node):
    """
    Runs its trials in a thread, while the executor's thread stores messages.

    With the parameter ``expert`` it drives on ``teleop/cmd_vel`` and has the recorder record;
    without it, it resets the arena and waits for the policy to end each trial. With ``correct``
    the policy drives and is recorded, and the expert takes over when it goes wrong.
    """

    def __init__(self) -> None:
        super().__init__('arena_runner')
        self.exit_status: int | None = None
        self._params = runner_params(self)
        self._news = threading.Condition()
        self._received = Received()
        self._driver: Driver | None = None
        self._teleop = self.create_publisher(Twist, 'teleop/cmd_vel', 10)
        self.create_subscription(DiagnosticStatus, 'sim/status', self._on_status, 10)
        self.create_subscription(Odometry, 'odom', self._on_odom, 10)
        self._recorder_instruction = ''
        if self._params.records:
            self.create_subscription(
                DiagnosticStatus, 'recorder/status', self._on_recorder_status, 10
            )
        if not self._params.expert:
            self.create_subscription(TwistStamped, 'policy/cmd_vel', self._on_proposal, 10)
        self._reset = self.create_client(Trigger, 'sim/reset')
        self._set_parameters = self.create_client(SetParameters, 'sim/set_parameters')
        self._recorder = {
            name: self.create_client(Trigger, f'recorder/{name}')
            for name in ('start', 'success', 'failure')
        }
        self._closing = threading.Event()
        threading.Thread(
            target=work_to_end, args=(self, 'arena_runner', self._work, self._closing), daemon=True
        ).start()

    def on_exit(self) -> None:
        """Stop the base."""
        self._closing.set()
        self._driver = None
        if self._params.expert:
            self._teleop.publish(Twist())

    def _on_status(self, message: DiagnosticStatus) -> None:
        values = usable(self, 'a message on sim/status', lambda: values_of(message))
        if values is None:
            return
        with self._news:
            self._received.state = message.message
            self._received.status = values
            self._news.notify_all()

    def _on_recorder_status(self, message: DiagnosticStatus) -> None:
        values = usable(self, 'a message on recorder/status', lambda: values_of(message))
        if values is None:
            return
        with self._news:
            self._recorder_instruction = values.get('instruction', '')
            self._news.notify_all()

    def _on_odom(self, message: Odometry) -> None:
        with self._news:
            received = self._received
            received.odom = message
            if received.state == RUNNING and received.stamp_ns >= received.path_due_ns:
                received.path_due_ns = received.stamp_ns + PATH_PERIOD_NS
                pose, _ = _motion(message)
                received.path.append([round(value, 3) for value in pose])
            driver = self._driver
            self._news.notify_all()
        twist = None if driver is None else driver(message)
        if twist is not None:
            self._teleop.publish(twist_message(twist))

    def _on_proposal(self, message: TwistStamped) -> None:
        with self._news:
            self._received.proposal = twist_array(message.twist)
            self._news.notify_all()

    def _work(self) -> None:
        self._connect()
        if not self._params.expert:
            # A network takes seconds to load; no trial may begin before it drives.
            self._wait(
                lambda: self._received.proposal is not None,
                'the policy',
                self._params.policy_timeout_s,
            )
        for trial in self._scenes():
            print(json.dumps(self._run_trial(trial)), flush=True)
        self.exit_status = 0

    def _scenes(self) -> Iterator[int]:
        """Return the scenes of the trials."""
        params = self._params
        wanted = (
            number
            for number in range(params.first_trial, suites.SEEDS_PER_SUITE)
            if params.kind in ('', suites.scene(params.suite, number).task.kind)
        )
        return itertools.islice(wanted, params.trials)

    def _connect(self) -> None:
        """
        Wait until the nodes of an expert's trial are connected, to the wheels and back.

        Discovery may take seconds, and the time of a loaded scene runs. So nudge the base in a
        scene that does not count.
        """
        params = self._params
        if params.expert:
            self._load(params.first_trial)
        if params.records:
            for client in self._recorder.values():
                self._find(client, 'the recorder')
        if not params.expert:
            return
        self._driver = lambda _odom: NUDGE
        self._wait(
            lambda: (
                self._received.odom is not None
                and self._received.odom.twist.twist.angular.z > NUDGE[5] / 2
            ),
            'the base',
            params.timeout_s,
            'check that the guard is armed, and that it or the arena subscribes to teleop/cmd_vel',
        )
        with self._news:
            self._driver = None
        self._teleop.publish(Twist())

    def _run_trial(self, trial: int) -> dict:
        params = self._params
        # A base that begins rolling would have come to rest before the recorder is ready.
        self._load(trial, paused=params.drives)
        scene = suites.scene(params.suite, trial)
        expert = Expert(scene, trial, wobble=params.wobble)
        corrector = Corrector(scene, trial)
        if params.records:
            self._start_recorder(scene.instruction)
        if params.drives:
            began_ns: int | None = None

            def drive(odom: Odometry) -> np.ndarray | None:
                nonlocal began_ns
                now_ns = time_ns(odom.header.stamp)
                began_ns = now_ns if began_ns is None else began_ns
                pose, velocity = _motion(odom)
                if params.expert:
                    return expert.command(pose, velocity, now_ns - began_ns)
                proposal = self._received.proposal
                return corrector.command(pose, velocity, proposal, now_ns - began_ns)

            with self._news:
                self._received.path, self._received.path_due_ns = [], 0
            self._configure(_parameter('paused', False))
            self._driver = drive
        self._wait(lambda: self._received.state != RUNNING, 'the arena')
        with self._news:
            received = self._received
            result = {
                'trial': trial,
                'outcome': received.state,
                'elapsed_s': float(received.status['elapsed_s']),
                'instruction': scene.instruction,
                'path': received.path,
            }
            received.path = []
        if params.drives:
            self._stand()
        if params.correct:
            result['takeovers'] = corrector.takeovers
        if params.records:
            outcome = 'success' if result['outcome'] == SUCCESS else 'failure'
            result['episode'] = self._ask(self._recorder[outcome], 'the recorder')
        return result

    def _start_recorder(self, instruction: str) -> None:
        """Start an episode once the recorder has received its instruction from the arena."""
        self._wait(
            lambda: self._recorder_instruction == instruction,
            'the recorder',
            self._params.timeout_s,
            f'it has to receive "{instruction}" on the topic instruction: check its namespace',
        )
        self._ask(self._recorder['start'], 'the recorder')

    def _configure(self, *parameters: Parameter) -> None:
        request = SetParameters.Request(parameters=list(parameters))
        for result in self._call(self._set_parameters, request, 'the arena').results:
            if not result.successful:
                raise UserError('the arena refuses the trial', got=result.reason)

    def _load(self, trial: int, *, paused: bool = False) -> None:
        """Reset the arena to a scene and wait for messages from it."""
        self._configure(
            _parameter('suite', self._params.suite),
            _parameter('trial', trial),
            _parameter('paused', paused),
        )
        load = str(json.loads(self._ask(self._reset, 'the arena'))['load'])
        self._wait(lambda: self._received.status.get('load') == load, 'the arena')
        with self._news:
            self._received = Received(self._received.state, self._received.status)
        self._wait(lambda: self._received.odom is not None, 'the odometry')

    def _stand(self) -> None:
        """Stand for a while, so that an episode shows that one stops at the target."""
        until_ns = self._received.stamp_ns + round(self._params.hold_s * NANOSECONDS)
        if self._received.state == SUCCESS:
            self._wait(lambda: self._received.stamp_ns >= until_ns, 'the odometry')
        with self._news:
            self._driver = None
        if self._params.expert:
            self._teleop.publish(Twist())

    def _wait(
        self,
        predicate: Callable[[], bool],
        name: str,
        timeout_s: float = math.inf,
        remedy: str = "see its node's log",
    ) -> None:
        """
        Wait until a predicate over the messages is true.

        :raises UserError: at the timeout, or when no odometry arrives.
        """
        began_s = received_s = time.monotonic()
        last = self._received.odom
        with self._news:
            while not predicate():
                if self._closing.is_set():
                    raise RuntimeError('the node is being shut down')
                self._news.wait(POLL_S)
                if self._received.odom is not last:
                    last, received_s = self._received.odom, time.monotonic()
                if time.monotonic() - received_s > self._params.timeout_s:
                    raise UserError(
                        f'{name} is silent',
                        got=f'nothing for {self._params.timeout_s} s',
                        remedy='start sim_node in the same ROS domain and namespace',
                    )
                if time.monotonic() - began_s > timeout_s:
                    raise UserError(
                        f'{name} does nothing', got=f'timeout after {timeout_s} s', remedy=remedy
                    )

    def _ask(self, client, name: str) -> str:
        """Call a Trigger service and return its message."""
        response = self._call(client, Trigger.Request(), name)
        if not response.success:
            raise UserError(f'{name} refuses {client.srv_name}', got=response.message)
        return response.message

    def _find(self, client, name: str) -> None:
        if not client.wait_for_service(self._params.timeout_s):
            raise UserError(
                f'{name} does not answer',
                got=f'no service {client.srv_name}',
                remedy='start its node in the same ROS domain and namespace',
            )

    def _call(self, client, request, name: str):
        self._find(client, name)
        future = client.call_async(request)
        done = threading.Event()
        future.add_done_callback(lambda _: done.set())
        if not done.wait(self._params.timeout_s):
            raise UserError(
                f'{name} does not answer {client.srv_name}',
                got=f'nothing for {self._params.timeout_s} s',
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


def _motion(odom: Odometry) -> tuple[Triple, Triple]:
    """Return pose (x, y, yaw) and velocity (vx, vy, wz) of an Odometry message."""
    position, turn = odom.pose.pose.position, odom.pose.pose.orientation
    twist = odom.twist.twist
    yaw = 2 * math.atan2(turn.z, turn.w)
    return (position.x, position.y, yaw), (twist.linear.x, twist.linear.y, twist.angular.z)


def main(args: list[str] | None = None) -> int:
    """Run the trials."""
    return run('arena_runner', ArenaRunner, args=args)

"""What the drill can do to a drive: nodes, signals, the relay of proposals, a person's hands."""

import contextlib
import math
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path

import psutil
from geometry_msgs.msg import Twist, TwistStamped
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from rosgraph_msgs.msg import Clock
from std_msgs.msg import Bool, String
from std_srvs.srv import Trigger

from mobile_vla_ros.bringup.processes import Processes
from mobile_vla_ros.drill import catalog as drill
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.drill import camera as drill_camera
from mobile_vla_ros.nodes.drill.watch import Watch
from mobile_vla_ros.nodes.shared.messages import LATCHED
from mobile_vla_ros.safety.status import State
from mobile_vla_ros.types import NANOSECONDS

# They hold nothing that is worth waiting for, and the drill itself must end in time.
PATIENCE = ((signal.SIGINT, 2.0), (signal.SIGTERM, 1.0), (signal.SIGKILL, 2.0))
PACE_S, TELEOP_PERIOD_S = 0.01, 0.05
POLL_S, ASK_AGAIN_S = 0.02, 1.0
SLOW_NS = 800_000_000
LOWEST_NICE = 19
BUSY = (
    'import os, time\nend = time.monotonic() + 20\n'
    'while time.monotonic() < end and os.getppid() == {parent}: pass'
)

# What the relay makes of a proposal: its speed ahead in m/s.
DRIVE = drill.SPEED_MPS


class Rig:
    """
    The live nodes of a drive, and every way to break it.

    :param node: the drill's own, spun by somebody else.
    :param log: folder of the nodes' logs.
    :param policy: folder of the bundle.
    :param params_file: for guard, inference and arena; empty for none.
    """

    def __init__(self, node: Node, watch: Watch, log: Path, policy: str, params_file: str):
        self.node, self.watch = node, watch
        self.closing = threading.Event()
        self.processes = Processes(log, patience=PATIENCE, again=True)
        self._given = policy, params_file
        self._specs: dict = {}
        self._alive: set[str] = set()
        self._busy: list[subprocess.Popen] = []
        self._speed_mps, self._slow = DRIVE, False
        self._waiting: deque[tuple[int, TwistStamped]] = deque()
        self._teleop: Twist | None = None
        self.teleop_ns = self.clock_ns = 0
        self._clock_offset_ns: int | None = None
        self._out = {
            name: node.create_publisher(kind, topic, qos)
            for name, kind, topic, qos in (
                ('proposal', TwistStamped, 'policy/cmd_vel', 10),
                ('camera', String, 'drill/camera', LATCHED),
                ('instruction', String, 'instruction', LATCHED),
                ('teleop', Twist, 'teleop/cmd_vel', 10),
                ('estop', Bool, 'estop', 10),
                ('clock', Clock, '/clock', 10),
            )
        }
        node.create_subscription(TwistStamped, drill.PROPOSALS, self._on_proposal, 10)
        self._clients = {
            name: node.create_client(Trigger, name)
            for name in ('guard/arm', 'guard/disarm', 'sim/reset')
        }
        self._set = node.create_client(SetParameters, 'sim/set_parameters')
        self._lock = threading.Lock()
        self._pacer = threading.Thread(target=self._pace, daemon=True)
        self._pacer.start()

    # --- nodes ---

    def start(self, *, clock: bool):
        """Start the nodes, anew when they run already."""
        self.stop()
        self._clock_offset_ns = 0 if clock else None
        specs = drill.nodes(*self._given, clock=clock)
        self._specs = {spec.name: spec for spec in specs}
        self.processes.start(specs)
        self._alive = set(self._specs)

    def stop(self):
        """End everything that was started."""
        self.idle()
        for name in self._alive:
            self.signal(name, signal.SIGCONT)
        self._alive = set()
        self.processes.stop()

    def close(self):
        """End everything and the threads; once."""
        self.closing.set()
        self._pacer.join()
        self.stop()

    def signal(self, name: str, number: int) -> int:
        """Signal a node; return the moment."""
        process = self.processes[name].process
        now_ns = time.monotonic_ns()
        if process.poll() is None:
            process.send_signal(number)
        return now_ns

    def expect_the_end(self, name: str):
        """Take it that this node ends."""
        self._alive.discard(name)

    def alive(self, *names: str) -> bool:
        """Whether none of these nodes has ended, or is to."""
        return self._alive.issuperset(names)

    def ended(self, name: str) -> int | None:
        """Return the exit status of a node, None while it runs."""
        return self.processes[name].process.poll()

    def pids(self, *names: str) -> dict[str, int]:
        """Return the process ids of nodes that run."""
        return {name: self.processes[name].process.pid for name in names}

    def revive(self):
        """Start again what has ended."""
        for name, spec in self._specs.items():
            if name not in self._alive:
                self.processes.stop(name)
                self.processes.start(spec)
                self._alive.add(name)

    def starve(self, name: str):
        """Leave a node only what is left over by busy loops on every core: nothing."""
        self.schedule(name, os.SCHED_IDLE, LOWEST_NICE)
        code = BUSY.format(parent=os.getpid())
        # Sessions of their own: where Linux shares the CPU between sessions, ours keeps its part.
        self._busy = [
            subprocess.Popen(
                [sys.executable, '-c', code], stdin=subprocess.DEVNULL, start_new_session=True
            )
            for _ in range(os.cpu_count() or 1)
        ]

    def schedule(self, name: str, policy: int, nice: int = 0):
        """
        Set the scheduling policy of every thread of a node, and the niceness of its session.

        Where Linux groups processes by session (autogroup), the policy of a thread counts among
        those of its own session alone.

        :raises PermissionError: where a process may not go back to the ordinary policy.
        """
        pid = self.processes[name].process.pid
        # psutil does not set it; a kernel without autogroup has no such file.
        with contextlib.suppress(OSError):
            Path(f'/proc/{pid}/autogroup').write_text(str(nice))
        for thread in psutil.Process(pid).threads():
            with contextlib.suppress(ProcessLookupError):
                os.sched_setscheduler(thread.id, policy, os.sched_param(0))

    def idle(self):
        """End the busy loops."""
        for process in self._busy:
            process.kill()
            process.wait()
        self._busy = []

    # --- what is sent ---

    def camera(self, mode: str = drill_camera.PASS):
        """Have the camera's relay do something else."""
        self._out['camera'].publish(String(data=mode))

    def propose(self, speed_mps: float = DRIVE, *, slow: bool = False):
        """Have inference's proposals say this speed, and come 0.8 s late."""
        with self._lock:
            self._speed_mps, self._slow = speed_mps, slow
            self._waiting.clear()

    def teleop(self, twist: Twist | None) -> int:
        """Begin or end a person's driving; return the moment."""
        with self._lock:
            self._teleop = twist
            if twist is not None:
                self._out['teleop'].publish(twist)
                self.teleop_ns = time.monotonic_ns()
            return self.teleop_ns

    def estop(self, pressed: bool) -> int:
        """Press the e-stop or let it go; return the moment."""
        now_ns = time.monotonic_ns()
        self._out['estop'].publish(Bool(data=pressed))
        return now_ns

    def tell(self, instruction: str) -> int:
        """Give another instruction; return the moment."""
        now_ns = time.monotonic_ns()
        self._out['instruction'].publish(String(data=instruction))
        return now_ns

    def step_clock(self, seconds: int) -> int:
        """Set the clock that the nodes follow; return the moment of its first message."""
        with self._lock:
            self._clock_offset_ns = seconds * NANOSECONDS
            now_ns = time.monotonic_ns()
            self._tick()
        return now_ns

    def _tick(self):
        now_ns = time.time_ns() + self._clock_offset_ns
        message = Clock()
        message.clock.sec, message.clock.nanosec = divmod(now_ns, NANOSECONDS)
        self._out['clock'].publish(message)

    def _on_proposal(self, message: TwistStamped):
        message.twist = Twist()
        with self._lock:
            message.twist.linear.x = self._speed_mps
            if self._slow:
                self._waiting.append((time.monotonic_ns() + SLOW_NS, message))
            else:
                self._out['proposal'].publish(message)

    def _pace(self):
        while not self.closing.wait(PACE_S):
            with self._lock:
                if self._clock_offset_ns is not None:
                    self._tick()
                now_ns = time.monotonic_ns()
                while self._waiting and self._waiting[0][0] <= now_ns:
                    self._out['proposal'].publish(self._waiting.popleft()[1])
                if (
                    self._teleop is not None
                    and now_ns - self.teleop_ns >= TELEOP_PERIOD_S * NANOSECONDS
                ):
                    self._out['teleop'].publish(self._teleop)
                    self.teleop_ns = now_ns

    # --- a person's part ---

    def reset(self):
        """Put the base back to the start of its scene, at rest."""
        self.ask('guard/disarm')
        parameters = [Parameter('suite', value=drill.SUITE), Parameter('trial', value=drill.TRIAL)]
        self._call(
            self._set,
            SetParameters.Request(parameters=[one.to_parameter_msg() for one in parameters]),
            'sim',
        )
        self.ask('sim/reset')

    def arm(self, patience_s: float):
        """
        Arm the guard as a person does; asked again while it says no.

        :raises UserError: with what it says, when it still does after ``patience_s``.
        """
        deadline = time.monotonic() + patience_s
        while not (answer := self.ask('guard/arm')).success:
            if time.monotonic() > deadline:
                raise UserError(f'the guard cannot be armed: {answer.message}')
            self.pause(0.2)

    def try_to_arm(self, patience_s: float) -> tuple[str, ...]:
        """
        Arm the guard once; return what keeps the base from being driven.

        :param patience_s: how long a guard that was armed may take to find a fault, and one that
            refused to report why.
        :returns: what refused it (``GuardStatus.refused``), or the stop reason of its fault;
            empty when it did neither.
        """
        since_ns = time.monotonic_ns()
        armed = self.ask('guard/arm').success

        def reasons():
            for at, status in list(self.watch.status):
                if at > since_ns and not armed and status.refused:
                    return status.refused
                if at > since_ns and armed and status.state == State.FAULT:
                    return (status.stop_reason.value,)
            return ()

        self.wait(reasons, patience_s)
        return reasons()

    def ask(self, service: str) -> Trigger.Response:
        """Call a service and return its answer."""
        return self._call(self._clients[service], Trigger.Request(), service.split('/')[0])

    def _call(self, client, request, who: str):
        future, asked_s = None, -math.inf

        def answered():
            nonlocal future, asked_s
            # An answer is lost when the one that was asked has just died, or has not met us yet.
            if time.monotonic() - asked_s > ASK_AGAIN_S and client.service_is_ready():
                future, asked_s = client.call_async(request), time.monotonic()
            return future is not None and future.done()

        self.until(answered, 30.0, f'{who} did not come back: {client.srv_name} is not answered')
        return future.result()

    # --- waiting ---

    def until(self, predicate: Callable[[], object], seconds: float, otherwise: str):
        """
        Wait until a predicate is true, looking after the nodes meanwhile.

        :raises UserError: with ``otherwise`` when it is not in time, or when a node ends.
        """
        if not self.wait(predicate, seconds):
            raise UserError(f'{otherwise} ({seconds:g} s)')

    def wait(self, predicate: Callable[[], object], seconds: float) -> bool:
        """Wait until a predicate is true; return whether it is. Raises as ``until`` does."""
        deadline = time.monotonic() + seconds
        while not predicate():
            if self.closing.is_set():
                raise RuntimeError('the drill is being ended')
            self._look_after(self._alive)
            if time.monotonic() > deadline:
                return False
            with self.watch.news:
                self.watch.news.wait(POLL_S)
        return True

    def pause(self, seconds: float):
        """Let time pass, looking after the nodes."""
        self.wait(lambda: False, seconds)

    def _look_after(self, names: Iterable[str]):
        for name in names:
            status = self.ended(name)
            if status is not None:
                running = self.processes[name]
                raise UserError(
                    f'{name} ended by itself with status {status}; the last lines of '
                    f'{running.log}:\n{running.tail()}'
                )

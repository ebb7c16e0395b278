"""The rig of the drill: the live nodes, their inputs, a person's services, and waiting."""

import math
import threading
import time
from collections.abc import Callable
from pathlib import Path

from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter
from std_srvs.srv import Trigger

from mobile_vla_ros.drill import catalog
from mobile_vla_ros.drill.live_nodes import LiveNodes
from mobile_vla_ros.drill.measure import is_zero
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.drill.inputs import Inputs
from mobile_vla_ros.nodes.drill.watch import Watch
from mobile_vla_ros.safety.status import State

POLL_S, ASK_AGAIN_S, ANSWER_S = 0.02, 1.0, 30.0
# The timeout of a drive that must go on.
GOES_ON_S = 3.0


class Rig:
    """
    A live drive, and every way to break it.

    :ivar nodes: its processes.
    :ivar inputs: all that the drill publishes.
    :param node: the drill's own, spun by its caller.
    :param log: folder of the nodes' logs.
    :param policy: folder of the bundle.
    :param params_file: for guard, inference and arena; empty for none.
    """

    def __init__(self, node: Node, watch: Watch, log: Path, policy: str, params_file: str) -> None:
        self.watch = watch
        self.closing = threading.Event()
        self.nodes = LiveNodes(log, policy, params_file)
        self.inputs = Inputs(node)
        self._clients = {
            name: node.create_client(Trigger, name)
            for name in ('guard/arm', 'guard/disarm', 'guard/resume', 'sim/reset')
        }
        self._set_parameters = node.create_client(SetParameters, 'sim/set_parameters')

    def start(self, *, clock: bool) -> None:
        """Start the nodes, again if they run already; ``clock``: they follow /clock."""
        self.nodes.stop()
        self.inputs.set_clock(0 if clock else None)
        self.nodes.start(clock=clock)

    def close(self) -> None:
        """End everything and the threads; once."""
        self.closing.set()
        self.inputs.close()
        self.nodes.stop()

    # --- a person's part ---

    def reset(self) -> None:
        """Put the base back to the start of its scene, at rest."""
        self.ask('guard/disarm')
        parameters = [
            Parameter('suite', value=catalog.SUITE),
            Parameter('trial', value=catalog.TRIAL),
        ]
        self._call(
            self._set_parameters,
            SetParameters.Request(parameters=[one.to_parameter_msg() for one in parameters]),
            'sim',
        )
        self.ask('sim/reset')

    def arm(self, timeout_s: float) -> None:
        """
        Arm the guard as a person does; ask again while it refuses.

        :raises UserError: with its answer, if it still refuses after ``timeout_s``.
        """
        deadline = time.monotonic() + timeout_s
        while not (answer := self.ask('guard/arm')).success:
            if time.monotonic() > deadline:
                raise UserError(f'the guard cannot be armed: {answer.message}')
            self.pause(0.2)

    def try_to_arm(self, timeout_s: float) -> tuple[str, ...]:
        """
        Arm the guard once; return the reasons that keep it from driving.

        :param timeout_s: how long an armed guard may take to find a fault, and one that refused
            to report why.
        :returns: the checks that refused it (``GuardStatus.refused``), or the stop reason of its
            fault; empty without either.
        """
        since_ns = time.monotonic_ns()
        armed = self.ask('guard/arm').success

        def reasons() -> tuple[str, ...]:
            for at_ns, status in list(self.watch.received.status):
                if at_ns > since_ns and not armed and status.refused:
                    return status.refused
                if at_ns > since_ns and armed and status.state == State.FAULT:
                    return (status.stop_reason.value,)
            return ()

        self.wait(reasons, timeout_s)
        return reasons()

    def ask(self, service: str) -> Trigger.Response:
        """Call a service and return its answer."""
        return self._call(self._clients[service], Trigger.Request(), service.split('/')[0])

    def _call(self, client, request, name: str):
        future, asked_s = None, -math.inf

        def answered() -> bool:
            nonlocal future, asked_s
            # An answer is lost if the server has just died, or has not found this client yet.
            if time.monotonic() - asked_s > ASK_AGAIN_S and client.service_is_ready():
                future, asked_s = client.call_async(request), time.monotonic()
            return future is not None and future.done()

        self.until(
            answered, ANSWER_S, f'{name} did not come back: {client.srv_name} is not answered'
        )
        assert future is not None
        return future.result()

    # --- waiting ---

    def until(self, predicate: Callable[[], object], timeout_s: float, otherwise: str) -> None:
        """
        Wait until a predicate is true; check the nodes meanwhile.

        :raises UserError: with ``otherwise`` at the timeout; for a node that ended.
        """
        if not self.wait(predicate, timeout_s):
            raise UserError(f'{otherwise} ({timeout_s:g} s)')

    def wait(self, predicate: Callable[[], object], timeout_s: float) -> bool:
        """Wait until a predicate is true; return whether it is. Checks the nodes as ``until``."""
        deadline = time.monotonic() + timeout_s
        while not predicate():
            if self.closing.is_set():
                raise RuntimeError('the drill is being ended')
            self.nodes.check()
            if time.monotonic() > deadline:
                return False
            with self.watch.news:
                self.watch.news.wait(POLL_S)
        return True

    def wait_for_motion(self) -> None:
        """Wait, up to a timeout, for a command that moves the base."""
        commands = self.watch.received.commands
        self.wait(lambda: commands and not is_zero(commands[-1][1]), GOES_ON_S)

    def pause(self, seconds: float) -> None:
        """Wait; check the nodes meanwhile."""
        self.wait(lambda: False, seconds)

"""
The console: drive with the keyboard, and start and end takes, in one terminal.

Nothing that can block stands between the keys and the wheels: keys are read in a thread of their
own, commands are published by another, and services, status and screen belong to the executor.
"""

import sys
import threading
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.nodes.common import declare, run, twist_message
from mobile_vla_ros.nodes.keyboard import HELP, TAKES, Console, Terminal
from mobile_vla_ros.nodes.topics import LATCHED
from mobile_vla_ros.types import NANOSECONDS

PERIOD_S = 0.05
SCREEN_PERIOD_S = 0.1
READ_S = 0.2
COMMAND_DEPTH = 10
BEST_EFFORT = QoSProfile(depth=10, reliability=ReliabilityPolicy.BEST_EFFORT)
STALE_S = 2.0


class TeleopNode(Node):
    """ROS around ``keyboard.Console`` and ``keyboard.Terminal``."""

    def __init__(self):
        super().__init__('teleop')
        self._console = Console(
            declare(self, 'max_linear_mps', 0.5, 'speed at full throttle, m/s',
                    limits=(0.01, 10.0)),
            declare(self, 'max_angular_radps', 1.0, 'turn at full throttle, rad/s',
                    limits=(0.01, 10.0)),
            declare(self, 'throttle', 0.5, 'share of full speed at the start; F and G change it',
                    limits=(0.1, 1.0)))
        self._asked: deque[tuple[str, str]] = deque()
        self._heard: dict[str, tuple[float, str, dict]] = {}
        self._commands = self.create_publisher(Twist, 'teleop/cmd_vel', COMMAND_DEPTH)
        self._instruction = self.create_publisher(String, 'instruction', LATCHED)
        self._requests = {
            **{('recorder', name): self.create_client(Trigger, f'recorder/{name}')
               for name in TAKES.values()},
            **{('guard', name): self.create_client(Trigger, f'guard/{name}')
               for name in ('arm', 'disarm')}}
        for name in ('recorder', 'guard'):
            self.create_subscription(
                DiagnosticStatus, f'{name}/status',
                lambda message, name=name: self._on_status(name, message), BEST_EFFORT)
        self._terminal = Terminal()
        self._terminal.say(HELP)
        self.create_timer(SCREEN_PERIOD_S, self._attend,
                          clock=Clock(clock_type=ClockType.STEADY_TIME))
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._threads = [threading.Thread(target=work, daemon=True)
                         for work in (self._read_keys, self._drive)]
        for thread in self._threads:
            thread.start()

    def on_exit(self):
        """Stop the robot, and leave the terminal as it was."""
        if hasattr(self, '_threads'):
            self._closing.set()
            self._changed.set()
            for thread in self._threads:
                thread.join(1.0)
            self._commands.publish(Twist())
            self._terminal.restore()

    def _read_keys(self):
        while not self._closing.is_set():
            typed = self._terminal.read(READ_S)
            if typed is None:
                self.exit_status = 0
                return
            if typed:
                self._asked.extend(self._console.keys(typed, time.monotonic_ns()))
                self._changed.set()

    def _drive(self):
        """Publish at 20 Hz while a key is held, at once when one changes, and zero on time."""
        last, due_s = None, 0.0
        while not self._closing.is_set():
            now_ns = time.monotonic_ns()
            twist = self._console.twist(now_ns)
            changed = twist is not None and (last is None or not np.array_equal(twist, last))
            if twist is not None and (changed or now_ns / NANOSECONDS >= due_s):
                self._commands.publish(twist_message(twist))
                due_s = now_ns / NANOSECONDS + PERIOD_S
            last = twist
            ends_ns = self._console.due_ns(now_ns)
            wait_s = due_s - now_ns / NANOSECONDS if twist is not None else None
            if ends_ns is not None:
                wait_s = min(wait_s, ends_ns / NANOSECONDS)
            self._changed.wait(wait_s)
            self._changed.clear()

    def _on_status(self, name: str, message: DiagnosticStatus):
        values = {pair.key: pair.value for pair in message.values}
        self._heard[name] = (time.monotonic(), message.message, values)

    def _attend(self):
        """Do what the keys asked for, without waiting for any answer, and show the state."""
        while self._asked:
            kind, what = self._asked.popleft()
            if kind == 'instruction':
                self._instruction.publish(String(data=what))
                self._terminal.say(f'instruction: {what}')
            elif (kind, what) == ('guard', 'toggle'):
                armed = self._latest('guard')[1].get('armed') == 'true'
                self._call('guard', 'disarm' if armed else 'arm')
            else:
                self._call(kind, what)
        self._terminal.status(self._line())

    def _call(self, node: str, service: str):
        client = self._requests[node, service]
        if not client.service_is_ready():
            self._terminal.say(f'{node} does not answer: is {node}_node running?')
            return

        def answered(future):
            error = future.exception()
            self._terminal.say(f'{node}: {error or future.result().message}')
        client.call_async(Trigger.Request()).add_done_callback(answered)

    def _latest(self, name: str) -> tuple[str, dict]:
        """Return state and values of a node, empty when it has not been heard of lately."""
        heard_s, state, values = self._heard.get(name, (0.0, '', {}))
        return (state, values) if time.monotonic() - heard_s < STALE_S else ('', {})

    def _line(self) -> str:
        if self._console.typed is not None:
            return f'instruction (Enter: take it, Esc: leave it): {self._console.typed}'
        state, values = self._latest('recorder')
        parts = [f'throttle {self._console.throttle:.0%}']
        guard, guard_values = self._latest('guard')
        parts.append(f'guard {guard} {guard_values.get("reason", "")}'.rstrip() if guard
                     else 'no guard')
        if not state:
            parts.append('no recorder')
        elif state == 'recording':
            parts.append(f'REC {values["seconds"]} s, {values["frames"]} frames, '
                         f'{values["camera_hz"]} Hz, queue {values["queue"]}, '
                         f'{values["drops"]} dropped')
        else:
            parts.append(f'{state}, camera {values["camera_hz"]} Hz')
        if values.get('instruction'):
            parts.append(f'"{values["instruction"]}"')
        if values.get('problem'):
            parts.append(values['problem'])
        elif values.get('last_verdict'):
            parts.append(f'last take {values["last_verdict"]}')
        return ' | '.join(parts)


def main(args: list[str] | None = None) -> int:
    """Run the console."""
    return run('teleop_node', TeleopNode, args=args)


if __name__ == '__main__':
    sys.exit(main())

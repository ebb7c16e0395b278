"""
The console: drive with keyboard or joystick, and start and end takes, in one terminal.

Nothing that can block stands between the hands and the wheels: keys are read in a thread of their
own, commands are published by another, which ends a motion by itself when no more is heard of it;
services, status, joystick and screen belong to the executor.
"""

import threading
import time
from collections import deque

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.guard_status import values_of
from mobile_vla_ros.nodes.shared.messages import BEST_EFFORT, LATCHED, flush, twist_message
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.teleop import status_lines as console_status
from mobile_vla_ros.nodes.teleop.joystick import (
    NONE,
    XBOX_AXES,
    XBOX_BUTTONS,
    XBOX_ENABLE,
    Joystick,
)
from mobile_vla_ros.nodes.teleop.joystick import Layout as JoystickLayout
from mobile_vla_ros.nodes.teleop.keyboard import HELP, TAKES, Console
from mobile_vla_ros.nodes.teleop.status_lines import Heard
from mobile_vla_ros.nodes.teleop.terminal import Terminal
from mobile_vla_ros.types import NANOSECONDS

PERIOD_S = 0.05
SCREEN_PERIOD_S = 0.1
READ_S = 0.2
COMMAND_DEPTH = 10
MOST_BUTTONS = 64
DOES = {
    'start': 'starts a take',
    'success': 'ends it: success',
    'failure': 'ends it: failure',
    'discard': 'discards it',
    'stop': 'ends it',
}


class TeleopNode(Node):
    """ROS around ``keyboard.Console``, ``joystick.Joystick`` and ``terminal.Terminal``."""

    def __init__(self):
        super().__init__('teleop')
        self._joystick = Joystick(self._layout())
        self._console = Console(
            declare(
                self, 'max_linear_mps', 0.5, 'speed at full throttle, m/s', limits=(0.01, 10.0)
            ),
            declare(
                self, 'max_angular_radps', 1.0, 'turn at full throttle, rad/s', limits=(0.01, 10.0)
            ),
            declare(
                self,
                'throttle',
                0.5,
                'share of full speed at the start; F and G change it',
                limits=(0.1, 1.0),
            ),
            taken=self._joystick.block,
        )
        terminal_required = declare(
            self,
            'terminal_required',
            True,
            'end with a sentence where there is no terminal; false: go on with a joystick alone',
        )
        self._asked: deque[tuple[str, str]] = deque()
        self._heard: dict[str, Heard] = {}
        self._recovered = self._stick_problem = ''
        self._commands = self.create_publisher(Twist, 'teleop/cmd_vel', COMMAND_DEPTH)
        self._instruction = self.create_publisher(String, 'instruction', LATCHED)
        self._requests = {
            **{
                ('recorder', name): self.create_client(Trigger, f'recorder/{name}')
                for name in TAKES.values()
            },
            **{
                ('guard', name): self.create_client(Trigger, f'guard/{name}')
                for name in ('arm', 'disarm')
            },
        }
        for name in ('recorder', 'guard'):
            self.create_subscription(
                DiagnosticStatus,
                f'{name}/status',
                lambda message, name=name: self._on_status(name, message),
                BEST_EFFORT,
            )
        self.create_subscription(Joy, 'joy', self._on_joy, BEST_EFFORT)
        self._terminal = self._open_terminal(terminal_required)
        self._say(HELP if self._terminal else 'no terminal: the joystick alone drives')
        self.create_timer(
            SCREEN_PERIOD_S, self._attend, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._closing = threading.Event()
        self._changed = threading.Event()
        self._threads = [
            threading.Thread(target=work, daemon=True)
            for work in ([self._read_keys] if self._terminal else []) + [self._drive]
        ]
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
            flush(self._commands)
            if self._terminal:
                self._terminal.restore()

    def _layout(self) -> JoystickLayout:
        buttons = {
            name: declare(
                self,
                f'joy_{name}_button',
                index,
                f'joystick button, from 0, that {DOES[name]}; -1: none',
                limits=(NONE, MOST_BUTTONS),
            )
            for name, index in XBOX_BUTTONS.items()
        }
        return JoystickLayout(
            axes=list(
                declare(
                    self,
                    'joy_axes',
                    list(XBOX_AXES),
                    'joystick axes, from 0, of [forward, left, turn]; -1: none',
                )
            ),
            scale=list(
                declare(
                    self,
                    'joy_scale',
                    [1.0, 1.0, 1.0],
                    'share of full speed at full deflection, [forward, left, turn]; '
                    'negative: the other way',
                )
            ),
            deadzone=declare(
                self,
                'joy_deadzone',
                0.1,
                'deflection up to which an axis counts as at rest',
                limits=(0.0, 0.9),
            ),
            enable_button=declare(
                self,
                'joy_enable_button',
                XBOX_ENABLE,
                'joystick button, from 0, that is held to drive',
                limits=(0, MOST_BUTTONS),
            ),
            buttons=buttons,
        )

    def _open_terminal(self, required: bool) -> Terminal | None:
        try:
            return Terminal()
        except UserError:
            if required:
                raise
            return None

    # --- hands ---

    def _read_keys(self):
        while not self._closing.is_set():
            typed = self._terminal.read(READ_S)
            if typed is None:
                self.exit_status = 0
                return
            if typed:
                self._asked.extend(self._console.keys(typed, time.monotonic_ns()))
                self._changed.set()

    def _on_joy(self, message: Joy):
        before = self._joystick.moving
        self._asked.extend(
            self._joystick.heard(message.axes, message.buttons, time.monotonic_ns())
        )
        if self._joystick.moving != before:
            self._changed.set()

    def _twist(self, now_ns: int) -> np.ndarray | None:
        """Return what is wished for now: the keys', else the joystick's, else None."""
        twist = self._console.twist(now_ns)
        if twist is None:
            direction = self._joystick.direction(now_ns)
            twist = None if direction is None else direction * self._console.full
        return twist

    def _drive(self):
        """Publish at 20 Hz while a hand drives, at once when a key changes, and zero on time."""
        last, due_s = None, 0.0
        while not self._closing.is_set():
            now_ns = time.monotonic_ns()
            twist = self._twist(now_ns)
            changed = twist is not None and (last is None or not np.array_equal(twist, last))
            if twist is not None and (changed or now_ns / NANOSECONDS >= due_s):
                self._commands.publish(twist_message(twist))
                due_s = now_ns / NANOSECONDS + PERIOD_S
            last = twist
            waits_s = [due_s - now_ns / NANOSECONDS] if twist is not None else []
            waits_s += [
                due_ns / NANOSECONDS
                for due_ns in (self._console.due_ns(now_ns), self._joystick.due_ns(now_ns))
                if due_ns is not None
            ]
            self._changed.wait(min(waits_s, default=None))
            self._changed.clear()

    # --- what is asked for and what is shown ---

    def _on_status(self, name: str, message: DiagnosticStatus):
        values = values_of(message)
        self._heard[name] = Heard(time.monotonic(), message.message, values)
        recovered = values.get('recovered', '')
        if name == 'recorder' and recovered != self._recovered:
            self._recovered = recovered
            if recovered:
                self._say(f'recorder: {recovered}')

    def _attend(self):
        """Do what the hands asked for, without waiting for any answer, and show the state."""
        while self._asked:
            kind, what = self._asked.popleft()
            if kind == 'instruction':
                self._instruction.publish(String(data=what))
                self._say(f'instruction: {what}')
            elif (kind, what) == ('guard', 'toggle'):
                guard = console_status.guard_report(self._heard.get('guard'), time.monotonic())
                # In doubt the robot is to stand.
                disarmed = guard is not None and not guard.armed
                self._call('guard', 'arm' if disarmed else 'disarm')
            else:
                self._call(kind, what)
        if self._joystick.problem != self._stick_problem:
            self._stick_problem = self._joystick.problem
            self._say(self._stick_problem)
        if self._terminal:
            self._terminal.status(self._rows())

    def _call(self, node: str, service: str):
        client = self._requests[node, service]
        if not client.service_is_ready():
            self._say(f'{node} does not answer: is {node}_node running?')
            return

        def answered(future):
            error = future.exception()
            self._say(f'{node}: {error or future.result().message}')

        client.call_async(Trigger.Request()).add_done_callback(answered)

    def _say(self, text: str):
        if self._terminal:
            self._terminal.say(text)
        elif text:
            self.get_logger().info(text)

    def _rows(self) -> list[console_status.Row]:
        recorder, guard = self._heard.get('recorder'), self._heard.get('guard')
        takes = console_status.takes_of(recorder)
        typed = self._console.typed
        if typed is not None:
            return console_status.typing_rows(typed, self._console.choices, takes)
        self._console.choices = console_status.choices_of(takes)
        return console_status.rows(
            time.monotonic(),
            recorder,
            guard,
            self._console.throttle,
            self._joystick.state(time.monotonic_ns()),
        )


def main(args: list[str] | None = None) -> int:
    """Run the console."""
    return run('teleop_node', TeleopNode, args=args)

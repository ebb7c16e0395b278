"""
The console: drive with keyboard or joystick, and start and end episodes, in one terminal.

Nothing that can block stands between the hands and the wheels: one thread reads keys, another
publishes commands and ends a motion by itself when input stops; services, status, joystick and
screen belong to the executor.
"""

import threading
from collections import deque
from collections.abc import Sequence
from functools import partial

import numpy as np
from diagnostic_msgs.msg import DiagnosticStatus
from geometry_msgs.msg import Twist
from rclpy.clock import Clock, ClockType
from rclpy.node import Node
from sensor_msgs.msg import Joy
from std_msgs.msg import String
from std_srvs.srv import Trigger

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.nodes.shared.clocks import steady_ns
from mobile_vla_ros.nodes.shared.guard_status import usable, values_of
from mobile_vla_ros.nodes.shared.messages import BEST_EFFORT, LATCHED, flush, twist_message
from mobile_vla_ros.nodes.shared.params import declare
from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.teleop import status_lines
from mobile_vla_ros.nodes.teleop.joystick import (
    NONE,
    XBOX_AXES,
    XBOX_BUTTONS,
    XBOX_ENABLE,
    Joystick,
)
from mobile_vla_ros.nodes.teleop.joystick import Layout as JoystickLayout
from mobile_vla_ros.nodes.teleop.keyboard import HELP, RECORDER_KEYS, Console
from mobile_vla_ros.nodes.teleop.status_lines import NodeReport
from mobile_vla_ros.nodes.teleop.terminal import Row, Terminal, shortened
from mobile_vla_ros.safety.status import counts
from mobile_vla_ros.types import NANOSECONDS

PERIOD_S = 0.05
SCREEN_PERIOD_S = 0.1
READ_S = 0.2
LOG_PERIOD_NS = NANOSECONDS  # of what a recorder recovered
COMMAND_DEPTH = 10
MAX_BUTTONS = 64
BUTTON_MEANINGS = {
    'start': 'starts an episode',
    'success': 'ends it: success',
    'failure': 'ends it: failure',
    'discard': 'discards it',
    'stop': 'ends it',
    'resume': 'hands back to the policy after a takeover',
}


class Hands:
    """
    Keyboard and joystick together: the wished motion, and requests to other nodes.

    Safe to use from several threads. A key that moves or stops the robot blocks the joystick.

    :ivar requests: ``(kind, text)`` of both, oldest first (``Console.keys``).
    :ivar changed: set when the motion may have changed.
    """

    def __init__(self, console: Console, joystick: Joystick) -> None:
        self.console = console
        self.joystick = joystick
        self.requests: deque[tuple[str, str]] = deque()
        self.changed = threading.Event()

    def keys(self, text: str) -> None:
        """Process typed text."""
        self.requests.extend(self.console.keys(text, steady_ns()))
        self.changed.set()

    def joy(self, axes: Sequence[float], buttons: Sequence[int]) -> None:
        """Process a message of the joystick."""
        before = self.joystick.moving
        self.requests.extend(self.joystick.receive(axes, buttons, steady_ns()))
        if self.joystick.moving != before:
            self.changed.set()

    def end_motion(self) -> None:
        """Publish nothing more for a motion that has ended."""
        self.console.end_motion()
        self.joystick.end_trail()

    def twist(self, now_ns: int) -> np.ndarray | None:
        """Return the wished (6,) motion, the keys' before the joystick's; None without one."""
        twist = self.console.twist(now_ns)
        if twist is None:
            direction = self.joystick.direction(now_ns)
            twist = None if direction is None else direction * self.console.full
        return twist

    def due_s(self, now_ns: int) -> list[float]:
        """Return in how many seconds the present motions end without another input."""
        due_ns = (self.console.due_ns(now_ns), self.joystick.due_ns(now_ns))
        return [one / NANOSECONDS for one in due_ns if one is not None]


class TeleopNode(Node):
    """ROS around ``keyboard.Console``, ``joystick.Joystick`` and ``terminal.Terminal``."""

    def __init__(self) -> None:
        super().__init__('teleop')
        self.exit_status: int | None = None
        joystick = Joystick(self._layout())
        console = Console(
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
                'initial fraction of full speed; F and G change it',
                limits=(0.1, 1.0),
            ),
            on_drive=joystick.block,
        )
        self._hands = Hands(console, joystick)
        terminal_required = declare(
            self,
            'terminal_required',
            True,
            'without a terminal, end with a sentence; false: go on with a joystick alone',
        )
        self._reports: dict[str, NodeReport] = {}
        self._recovered, self._recovered_ns = '', -LOG_PERIOD_NS
        self._joystick_problem = ''
        self._commands = self.create_publisher(Twist, 'teleop/cmd_vel', COMMAND_DEPTH)
        self._instruction = self.create_publisher(String, 'instruction', LATCHED)
        recorder_calls = [f'recorder/{name}' for name in RECORDER_KEYS.values()]
        self._calls = {
            name: self.create_client(Trigger, name)
            for name in (*recorder_calls, 'guard/arm', 'guard/disarm', 'guard/resume')
        }
        for name in ('recorder', 'guard'):
            self.create_subscription(
                DiagnosticStatus,
                f'{name}/status',
                partial(self._on_status, name),
                BEST_EFFORT,
            )
        self.create_subscription(Joy, 'joy', self._on_joy, BEST_EFFORT)
        self._terminal = self._open_terminal(terminal_required)
        self._log(HELP if self._terminal else 'no terminal: the joystick alone drives')
        self.create_timer(
            SCREEN_PERIOD_S, self._attend, clock=Clock(clock_type=ClockType.STEADY_TIME)
        )
        self._closing = threading.Event()
        self._threads = [threading.Thread(target=self._drive, daemon=True)]
        if self._terminal:
            self._threads.append(
                threading.Thread(target=self._read_keys, args=(self._terminal,), daemon=True)
            )
        for thread in self._threads:
            thread.start()

    def on_exit(self) -> None:
        """Stop the robot, and restore the terminal."""
        self._closing.set()
        self._hands.changed.set()
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
                f'joystick button, from 0, that {BUTTON_MEANINGS[name]}; -1: none',
                limits=(NONE, MAX_BUTTONS),
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
                    'fraction of full speed at full deflection, [forward, left, turn]; '
                    'negative: reversed',
                )
            ),
            deadzone=declare(
                self,
                'joy_deadzone',
                0.1,
                'deflection up to which an axis is at rest',
                limits=(0.0, 0.9),
            ),
            enable_button=declare(
                self,
                'joy_enable_button',
                XBOX_ENABLE,
                'joystick button, from 0, to hold while driving',
                limits=(0, MAX_BUTTONS),
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

    def _read_keys(self, terminal: Terminal) -> None:
        while not self._closing.is_set():
            typed = terminal.read(READ_S)
            if typed is None:
                self.exit_status = 0
                return
            if typed:
                self._hands.keys(typed)

    def _drive(self) -> None:
        """Publish at 20 Hz during a motion, at once when it changes, and zero on time."""
        last, due_s = None, 0.0
        while not self._closing.is_set():
            now_ns = steady_ns()
            now_s = now_ns / NANOSECONDS
            twist = self._hands.twist(now_ns)
            changed = twist is not None and (last is None or not np.array_equal(twist, last))
            if twist is not None and (changed or now_s >= due_s):
                self._commands.publish(twist_message(twist))
                due_s = now_s + PERIOD_S
            last = twist
            waits_s = self._hands.due_s(now_ns)
            if twist is not None:
                waits_s.append(due_s - now_s)
            self._hands.changed.wait(min(waits_s, default=None))
            self._hands.changed.clear()

    def _on_joy(self, message: Joy) -> None:
        self._hands.joy(message.axes, message.buttons)

    # --- requests and screen ---

    def _on_status(self, name: str, message: DiagnosticStatus) -> None:
        values = usable(self, f'a message on {name}/status', lambda: values_of(message))
        if values is None:
            return
        usable(self, f'takes on {name}/status', lambda: counts(values.get('takes', '')))
        now_ns = steady_ns()
        self._reports[name] = NodeReport(now_ns / NANOSECONDS, message.message, values)
        recovered = values.get('recovered', '')
        changed = name == 'recorder' and recovered != self._recovered
        if changed and now_ns - self._recovered_ns >= LOG_PERIOD_NS:
            self._recovered, self._recovered_ns = recovered, now_ns
            if recovered:
                self._log(f'recorder: {recovered}')

    def _attend(self) -> None:
        """Send the hands' requests, without waiting for any answer, and show the state."""
        while self._hands.requests:
            kind, text = self._hands.requests.popleft()
            if kind == 'instruction':
                self._instruction.publish(String(data=text))
                self._log(f'instruction: {text}')
            elif (kind, text) == ('guard', 'toggle'):
                guard = status_lines.guard_report(
                    self._reports.get('guard'), steady_ns() / NANOSECONDS
                )
                # In doubt the robot must stop.
                disarmed = guard is not None and not guard.armed
                self._call('guard/arm' if disarmed else 'guard/disarm')
            else:
                if (kind, text) == ('guard', 'resume'):
                    self._let_go()
                self._call(f'{kind}/{text}')
        if self._hands.joystick.problem != self._joystick_problem:
            self._joystick_problem = self._hands.joystick.problem
            self._log(self._joystick_problem)
        if self._terminal:
            self._terminal.status(self._rows())

    def _let_go(self) -> None:
        """End a motion with one zero: the trail of others would take over again."""
        if self._hands.twist(steady_ns()) is not None:
            self._hands.end_motion()
            self._commands.publish(Twist())

    def _call(self, service: str) -> None:
        client, node = self._calls[service], service.partition('/')[0]
        if not client.service_is_ready():
            self._log(f'{node} does not answer: is {node}_node running?')
            return

        def answered(future) -> None:
            error = future.exception()
            self._log(f'{node}: {error or future.result().message}')

        client.call_async(Trigger.Request()).add_done_callback(answered)

    def _log(self, text: str) -> None:
        text = shortened(text)  # a long one would block the executor while it is written
        if self._terminal:
            self._terminal.log(text)
        elif text:
            self.get_logger().info(text)

    def _rows(self) -> list[Row]:
        console, recorder = self._hands.console, self._reports.get('recorder')
        episodes = status_lines.episodes_of(recorder)
        typed = console.typed
        if typed is not None:
            return status_lines.typing_rows(typed, console.choices, episodes)
        console.choices = status_lines.choices_of(episodes)
        return status_lines.rows(
            steady_ns() / NANOSECONDS,
            recorder,
            self._reports.get('guard'),
            console.throttle,
            self._hands.joystick.state(steady_ns()),
        )


def main(args: list[str] | None = None) -> int:
    """Run the console."""
    return run('teleop_node', TeleopNode, args=args)

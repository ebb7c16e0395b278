"""A joystick that a test operates."""

import time

from geometry_msgs.msg import Twist
from sensor_msgs.msg import Joy

from ros_helpers import TIMEOUT_S, wait_until

ENABLE, START, A, B, X, Y = 4, 7, 0, 1, 2, 3


def axes(forward=0.0, left=0.0, turn=0.0) -> list[float]:
    """Return the axes of an Xbox pad with its triggers at rest."""
    return [left, forward, 1.0, turn, 0.0, 1.0, 0.0, 0.0]


def down(*indices: int) -> list[int]:
    """Return the buttons of an Xbox pad with these pressed."""
    return [int(index in indices) for index in range(11)]


class Pad:
    """A publisher of joy, like joy_node: at 20 Hz, and at once on a change."""

    def __init__(self, client):
        self.client = client
        self.publisher = client.publisher('joy', Joy)
        self.commands = client.subscribe('teleop/cmd_vel', Twist)
        wait_until(self.publisher.get_subscription_count, what='the console')

    def send(self, forward=0.0, *buttons: int) -> float:
        """Publish once; return when."""
        self.publisher.publish(Joy(axes=axes(forward), buttons=down(*buttons)))
        return time.monotonic()

    @property
    def moving(self) -> bool:
        """Whether the newest command moves."""
        return bool(self.commands.last) and self.commands.last.linear.x != 0

    def drive(self) -> float:
        """Release, press and drive for ten commands; return the time of the last message."""
        seen, sent = len(self.commands), []
        deadline = time.monotonic() + TIMEOUT_S
        while not (len(self.commands) > seen + 10 and self.moving):
            assert time.monotonic() < deadline, 'the base does not drive'
            # Release now and then: the console may not be connected yet, or may have missed some.
            if len(sent) % 20 == 0 and not self.moving:
                self.send()
            sent.append(self.send(1.0, ENABLE))
            time.sleep(0.05)  # the period of joy_node
        return sent[-1]

    def stopped_at(self) -> float:
        """Wait for zero commands; return when the first one was received."""
        wait_until(lambda: not self.moving, what='zero')
        last = max(i for i, m in enumerate(self.commands.messages) if m.linear.x)
        return self.commands.times[last + 1]

"""
Print when commands were sent and received, to measure a guard.

    python -m mobile_vla_ros.nodes.bench_ear

Prints a first line, `listening`, then one line of JSON per command: `number` (its publisher's
count, from 1), `sent_ns` and `received_ns` (system clock; received in the middleware's thread).
"""

import json
from collections.abc import Callable

from geometry_msgs.msg import Twist
from rclpy.node import Node

from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.startup import request_realtime_priority

DEPTH = 100


class BenchBase(Node):
    """Subscribe to commands with the guard's real-time priority, so as not to measure itself."""

    def __init__(self) -> None:
        request_realtime_priority()
        super().__init__('bench_ear')
        on_command: Callable[..., None] = self._on_command  # typed with one argument
        self.create_subscription(Twist, 'cmd_vel', on_command, DEPTH)
        _report({'event': 'listening'})

    def _on_command(self, _message: Twist, info: dict) -> None:
        _report(
            {
                'event': 'command',
                'number': info['publication_sequence_number'],
                'sent_ns': info['source_timestamp'],
                'received_ns': info['received_timestamp'],
            }
        )


def _report(values: dict) -> None:
    print(json.dumps(values), flush=True)


def main(args: list[str] | None = None) -> int:
    """Run the base."""
    return run('bench_ear', BenchBase, args=args)

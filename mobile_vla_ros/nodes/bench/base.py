"""
A base that only writes down when commands were sent and when they came, to measure a guard by.

    python -m mobile_vla_ros.nodes.bench_ear

One line of JSON on standard output a command: `number` (of its publisher's, from 1), `sent_ns`
and `received_ns`, both by the system's clock, the second in the middleware's thread. The first
line is `listening`.
"""

import json

from geometry_msgs.msg import Twist
from rclpy.node import Node

from mobile_vla_ros.nodes.shared.run import run
from mobile_vla_ros.nodes.shared.startup import request_realtime_priority

DEPTH = 100


class BenchEar(Node):
    """Listens as punctually as the guard speaks, so that it measures the guard and not itself."""

    def __init__(self):
        request_realtime_priority()
        super().__init__('bench_ear')
        self.create_subscription(Twist, 'cmd_vel', self._on_command, DEPTH)
        _say({'event': 'listening'})

    def _on_command(self, _message: Twist, info: dict):
        _say(
            {
                'event': 'command',
                'number': info['publication_sequence_number'],
                'sent_ns': info['source_timestamp'],
                'received_ns': info['received_timestamp'],
            }
        )


def _say(values: dict):
    print(json.dumps(values), flush=True)


def main(args: list[str] | None = None) -> int:
    """Run the listener."""
    return run('bench_ear', BenchEar, args=args)

"""What a policy proposes on `policy/cmd_vel`, for the take in progress."""

from collections.abc import Callable

import numpy as np
from geometry_msgs.msg import TwistStamped
from rclpy.node import Node
from rclpy.qos import QoSProfile, ReliabilityPolicy

from mobile_vla_ros.nodes.shared.messages import receipt_ns, time_ns, twist_array

# Hears whoever publishes, with or without receipts, as the guard does.
HEARS_ALL = QoSProfile(depth=100, reliability=ReliabilityPolicy.BEST_EFFORT)


class Proposals:
    """
    Hears a policy, where there is one.

    :param told: called with a proposal's twist ((6,) m/s and rad/s), the stamp of its image and
        the time of its receipt, nanoseconds.
    """

    def __init__(self, node: Node, told: Callable[[np.ndarray, int, int], None]):
        self._node, self._told = node, told
        self._topic = node.create_subscription(
            TwistStamped, 'policy/cmd_vel', self._on_proposal, HEARS_ALL
        ).topic_name

    @property
    def there(self) -> bool:
        """Whether somebody proposes: a take of this moment has a place for it then."""
        return self._node.count_publishers(self._topic) > 0

    def _on_proposal(self, message: TwistStamped, info: dict):
        self._told(
            twist_array(message.twist), time_ns(message.header.stamp), receipt_ns(self._node, info)
        )

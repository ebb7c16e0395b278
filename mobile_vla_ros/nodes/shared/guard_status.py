"""The reports of ``safety.status`` as messages, and a subscription to the guard's."""

import math
from collections.abc import Callable, Sequence
from typing import TypeVar

import numpy as np
from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from rclpy.node import Node
from rclpy.serialization import deserialize_message

from mobile_vla_ros.errors import first_line
from mobile_vla_ros.nodes.shared.messages import (
    BEST_EFFORT,
    status_array,
    status_message,
    with_info,
)
from mobile_vla_ros.safety.status import (
    STATUS_MAX_AGE_S,
    GuardStatus,
    Health,
    Level,
    PolicyStatus,
    State,
    Unusable,
    bounded,
)
from mobile_vla_ros.types import NANOSECONDS, SOURCES, Check

T = TypeVar('T')
CHECK = 'check/'
# Of a message on policy/health, where ours has 4 kB: to decode a megabyte takes half a second.
MAX_REPORT_BYTES = 64 * 1024
UNKNOWN = 'unknown'
LEVELS = {
    Level.OK: DiagnosticStatus.OK,
    Level.HOLD: DiagnosticStatus.WARN,
    Level.FAULT: DiagnosticStatus.ERROR,
}
# Commands below these do not visibly move the camera: m/s over ground, rad/s.
MIN_SPEED_MPS, MIN_TURN_RPS = 0.1, 0.1
LOG_PERIOD_S = 1.0


def guard_status(message: DiagnosticStatus) -> GuardStatus | None:
    """Parse a message on ``guard/status`` (``values_of``); None if it is not a guard's report."""
    return GuardStatus.parse(message.message, values_of(message))


def values_of(message: DiagnosticStatus) -> dict[str, str]:
    """Return a status's values by key; raise Unusable when it is too large."""
    return bounded(message.message, ((pair.key, pair.value) for pair in message.values))


def usable(
    node: Node, what: str, read: Callable[[], T | None], otherwise: T | None = None
) -> T | None:
    """Return what a status holds; ``otherwise``, with a line in the log, when it is not read."""
    try:
        return read()
    except Unusable as error:
        node.get_logger().warning(
            f'{what} cannot be used: {error}', throttle_duration_sec=LOG_PERIOD_S
        )
        return otherwise


def policy_message(
    health: Health, axes: Sequence[str] | None, checks: Sequence[Check], stamp: Time
) -> DiagnosticArray:
    """
    Return a message for ``policy/health``: the policy's status, then one status per check.

    :param axes: driven by the policy, None before one is loaded.
    :param checks: the preflight checks of its node.
    """
    status = PolicyStatus(health, None if axes is None else tuple(axes))
    return status_array(
        stamp,
        status_message('policy', health.sentence, status.values(), LEVELS[health.level]),
        *(
            status_message(
                f'{CHECK}{check.name}',
                check.sentence,
                {},
                DiagnosticStatus.OK if check.ok else DiagnosticStatus.ERROR,
            )
            for check in checks
        ),
    )


def policy_report(data: bytes) -> tuple[PolicyStatus, list[Check]] | None:
    """
    Parse a message on ``policy/health``; None if it has no status.

    :param data: as received.
    :raises Unusable: when it is too large, which costs no decoding, or cannot be decoded.
    """
    if len(data) > MAX_REPORT_BYTES:
        raise Unusable(f'it has {len(data)} bytes, more than {MAX_REPORT_BYTES}')
    try:
        message = deserialize_message(data, DiagnosticArray)
    except Exception as error:  # each middleware raises its own
        raise Unusable(f'it cannot be decoded ({first_line(error)})') from None
    if not message.status:
        return None
    first = message.status[0]
    level = int.from_bytes(first.level, 'little')
    checks = [
        Check(one.name.removeprefix(CHECK), one.level == DiagnosticStatus.OK, one.message)
        for one in message.status[1:]
        if one.name.startswith(CHECK)
    ]
    return PolicyStatus.parse(level, first.message, values_of(first)), checks


class GuardStatusListener:
    """
    Keeps the newest report on ``guard/status``.

    A message without the key `armed` counts as silence.

    :param now_ns: reads the caller's clock, nanoseconds; all times are on this clock.
    :param on_status: called with each report and the time at which it was sent (nanoseconds, on
        the guard's machine; 0 where the middleware does not provide it).
    """

    def __init__(
        self,
        node: Node,
        now_ns: Callable[[], int],
        on_status: Callable[[GuardStatus, int], None] | None = None,
    ):
        self._node, self._now_ns, self._on_status = node, now_ns, on_status
        self._newest: GuardStatus | None = None
        self._received_ns = 0
        self._moving_since_ns: int | None = None
        self.subscription = node.create_subscription(
            DiagnosticStatus, 'guard/status', with_info(self._on_message), BEST_EFFORT
        )

    @property
    def status(self) -> GuardStatus | None:
        """The newest report; None if it is too old or there is none."""
        fresh = 0 <= self._now_ns() - self._received_ns < STATUS_MAX_AGE_S * NANOSECONDS
        return self._newest if fresh else None

    @property
    def source(self) -> str:
        """Who drives: one of ``SOURCES``; ``unknown`` without a report."""
        status = self.status
        return UNKNOWN if status is None else known_source(status)

    @property
    def armed(self) -> bool:
        """Whether the guard reports that it is armed."""
        status = self.status
        return status is not None and status.armed

    @property
    def twist(self) -> np.ndarray:
        """(6,) m/s and rad/s commanded by the guard; zeros without a report."""
        status = self.status
        return np.zeros(6) if status is None else status.twist

    @property
    def moving_s(self) -> float:
        """Seconds for which the base has been commanded to move; 0.0 without a report."""
        if self.status is None or self._moving_since_ns is None:
            return 0.0
        return max(0, self._now_ns() - self._moving_since_ns) / NANOSECONDS

    @property
    def stopped(self) -> bool:
        """Whether the guard reports that the base is at rest and stays so."""
        status = self.status
        return status is not None and status.state != State.DRIVING and not status.twist.any()

    def _on_message(self, message: DiagnosticStatus, info: dict) -> None:
        status = usable(self._node, 'a message on guard/status', lambda: guard_status(message))
        if status is None:
            return
        now_ns = self._now_ns()
        moves = status.moves and (
            math.hypot(status.twist[0], status.twist[1]) >= MIN_SPEED_MPS
            or abs(status.twist[5]) >= MIN_TURN_RPS
        )
        if not moves:
            self._moving_since_ns = None
        elif (
            self._moving_since_ns is None or self.status is None or self._moving_since_ns > now_ns
        ):
            self._moving_since_ns = now_ns
        self._newest, self._received_ns = status, now_ns
        if self._on_status is not None:
            self._on_status(status, info['source_timestamp'])


def known_source(status: GuardStatus) -> str:
    """Return who drives as an episode stores it: a key of ``SOURCES``."""
    return status.source if status.source in SOURCES else UNKNOWN

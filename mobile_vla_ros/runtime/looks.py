"""Which frames of a camera a policy looks at, known before it has looked at any."""

from collections.abc import Iterable
from dataclasses import dataclass

from mobile_vla_ros.runtime.frame_buffer import FrameBuffer


@dataclass(frozen=True)
class _Stamp:
    stamp_ns: int


def looks(stamps_ns: Iterable[int], rate_hz: float, window: int) -> list[bool | None]:
    """
    Say what comes of each frame, in the order of their arrival, by the rule that drives.

    :returns: True: a plan; False: it was due and its window had a gap; None: it was not due.
    """
    buffer = FrameBuffer(rate_hz, window)
    found: list[bool | None] = []
    for stamp_ns in stamps_ns:
        buffer.add(_Stamp(int(stamp_ns)))
        found.append(buffer.take() is not None if buffer.due else None)
    return found

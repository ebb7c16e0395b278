"""The frames of a take in the order and at the times at which they came."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from mobile_vla_ros.episode.quality.camera_clock import check
from mobile_vla_ros.episode.timing.timeline import frame_times

if TYPE_CHECKING:
    from mobile_vla_ros.episode.storage.reader import Episode


@dataclass(frozen=True)
class Came:
    """
    When each frame was taken, and when it could be known.

    :param stamp_ns: (N,) int64; the receipts where the camera's clock cannot be trusted, as
        `timeline.frame_times` decides.
    :param now_ns: (N,) int64, not decreasing and nowhere before the stamp.
    :param note: what was mended of the times, in words; empty: nothing.
    """

    stamp_ns: np.ndarray
    now_ns: np.ndarray
    note: str = ''


def came(episode: 'Episode') -> Came:
    """Return the times at which a take's frames came."""
    stamp_ns, clock = frame_times(episode.frame_stamp_ns, episode.frame_received_ns)
    now_ns = np.maximum.accumulate(np.maximum(episode.frame_received_ns, stamp_ns))
    note = ''
    if clock != 'stamp':
        wrong = check(episode.frame_stamp_ns, episode.frame_received_ns).sentence
        note = f'{wrong}: the frames are timed by their receipt'
    return Came(stamp_ns, now_ns, note)

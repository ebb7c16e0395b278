"""The verdict on an episode that is on disk."""

from typing import TYPE_CHECKING

from mobile_vla_ros.episode.quality import verdict
from mobile_vla_ros.episode.quality.image_tally import Tally
from mobile_vla_ros.episode.storage.schema import dropped_frames

if TYPE_CHECKING:
    from mobile_vla_ros.episode.storage.reader import Episode


def judge(episode: 'Episode') -> dict:
    """
    Measure an episode anew; every image is read, few are decoded.

    :returns: verdict, reasons and measures (``quality.verdict.judge``).
    :raises UserError: when the file is broken at an image.
    """
    tally = Tally()
    for index, received_ns in enumerate(episode.frame_received_ns.tolist()):
        tally.add(episode.encoded(index), received_ns)
    known = episode.health or {}
    return verdict.judge(
        frame_stamp_ns=episode.frame_stamp_ns,
        frame_received_ns=episode.frame_received_ns,
        frozen=tally.frozen,
        command_received_ns=episode.commands.received_ns,
        twist=episode.commands.twist,
        drops=sum(dropped_frames(one.text) for one in episode.events if one.name == 'drop'),
        looks=tally.looks,
        expected_rate_hz=known.get('expected_rate_hz'),
        timed=known.get('timed', True),
    )

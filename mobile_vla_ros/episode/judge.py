"""The verdict on an episode on disk."""

from mobile_vla_ros.episode.quality import verdict
from mobile_vla_ros.episode.quality.image_quality import ImageTally
from mobile_vla_ros.episode.storage.reader import Episode
from mobile_vla_ros.episode.storage.schema import dropped_frames


def judge(episode: Episode) -> verdict.Health:
    """
    Measure an episode again; reads every image, decodes about one a second.

    :returns: verdict, reasons and measures, as ``quality.verdict.judge`` does.
    :raises UserError: when the file is broken at an image.
    """
    tally = ImageTally()
    for index, received_ns in enumerate(episode.frame_received_ns.tolist()):
        tally.add(episode.encoded(index), received_ns)
    known: verdict.Health = episode.health or {}
    return verdict.judge(
        frame_stamp_ns=episode.frame_stamp_ns,
        frame_received_ns=episode.frame_received_ns,
        frozen=tally.frozen,
        command_received_ns=episode.commands.received_ns,
        twist=episode.commands.twist,
        drops=sum(dropped_frames(one.text) for one in episode.events if one.name == 'drop'),
        broken=tally.broken,
        samples=tally.samples,
        expected_rate_hz=known.get('expected_rate_hz'),
        timed=known.get('timed', True),
    )

"""Room in Fast DDS's shared memory for the nodes that send camera images."""

from collections.abc import Mapping

from mobile_vla_ros.bringup.share import share_folder

PROFILE = 'fastdds.xml'
# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted and newer) the second.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
# Whoever has chosen transports has chosen: a profile of ours would undo it.
CHOSEN = (*VARIABLES, 'FASTDDS_BUILTIN_TRANSPORTS')


def image_sender_env(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return what to add to the environment of a node that sends raw camera images.

    A process fills its whole segment of shared memory when it starts, and only the sender's
    counts: the nodes that merely receive do without.

    :param environ: the environment that the node gets otherwise; a choice of the user's stands.
    """
    path = share_folder() / 'config' / PROFILE
    if any(environ.get(name) for name in CHOSEN) or not path.is_file():
        return {}
    return dict.fromkeys(VARIABLES, str(path))

"""What Fast DDS is told: room in shared memory for images, and none of it for the guard."""

from collections.abc import Mapping

from mobile_vla_ros.bringup.share import share_folder

PROFILE = 'fastdds.xml'
GUARD_PROFILE = 'fastdds_guard.xml'
# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted and newer) the second.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
BUILTIN = 'FASTDDS_BUILTIN_TRANSPORTS'
# Whoever has chosen transports has chosen: a profile of ours would undo it.
CHOSEN = (*VARIABLES, BUILTIN)
RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'


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


def guard_env(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return what to add to the environment of a guard, to be done before it has a context.

    Fast DDS's shared memory is guarded by locks between processes: one that gets no CPU while it
    holds such a lock keeps everybody waiting, for up to half a second as the drill has shown. So
    the guard speaks through sockets alone.

    :param environ: the environment that it gets otherwise; a choice of the user's stands.
    """
    config = share_folder() / 'config'
    path = config / GUARD_PROFILE
    ours = str(config / PROFILE)  # of a terminal that starts the camera as well
    if any(environ.get(name) not in (None, '', ours) for name in CHOSEN):
        return {}
    if environ.get(RANGE) != 'LOCALHOST' and environ.get('ROS_LOCALHOST_ONLY') != '1':
        return {BUILTIN: 'UDPv4', **dict.fromkeys(VARIABLES, '')}
    if not path.is_file():
        return {}
    # Told LOCALHOST, rmw_fastrtps would add the shared memory again; the profile says the same.
    return {
        RANGE: 'SYSTEM_DEFAULT',
        'ROS_LOCALHOST_ONLY': '0',
        **dict.fromkeys(VARIABLES, str(path)),
    }

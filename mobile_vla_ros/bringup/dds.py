"""Fast DDS settings: shared memory for image publishers, UDP only for the guard."""

from collections.abc import Mapping

from mobile_vla_ros.bringup.share import share_folder

PROFILE = 'fastdds.xml'
GUARD_PROFILE = 'fastdds_guard.xml'
# Fast DDS 2 (Jazzy) reads the first, Fast DDS 3 (Kilted and newer) the second.
VARIABLES = ('FASTRTPS_DEFAULT_PROFILES_FILE', 'FASTDDS_DEFAULT_PROFILES_FILE')
BUILTIN = 'FASTDDS_BUILTIN_TRANSPORTS'
# A user who sets one of these has chosen transports; our profile must not override it.
CHOSEN = (*VARIABLES, BUILTIN)
RANGE = 'ROS_AUTOMATIC_DISCOVERY_RANGE'


def image_sender_env(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment variables for a node that publishes raw camera images.

    A process allocates its whole segment of shared memory at start, and only the publisher's
    size matters, so subscribers keep the small default.

    :param environ: the node's environment; a choice in it stands.
    """
    path = share_folder() / 'config' / PROFILE
    if any(environ.get(name) for name in CHOSEN) or not path.is_file():
        return {}
    return dict.fromkeys(VARIABLES, str(path))


def guard_env(environ: Mapping[str, str]) -> dict[str, str]:
    """
    Return the environment variables for a guard; set them before it creates a context.

    Fast DDS protects its shared memory by locks between processes: a process that is not
    scheduled while it holds one blocks all others, for up to half a second in the drill. So the
    guard uses sockets alone.

    :param environ: the guard's environment; a choice in it stands.
    """
    config = share_folder() / 'config'
    path = config / GUARD_PROFILE
    camera_profile = str(config / PROFILE)  # exported if the camera runs in the same terminal
    if any(environ.get(name) not in (None, '', camera_profile) for name in CHOSEN):
        return {}
    if environ.get(RANGE) != 'LOCALHOST' and environ.get('ROS_LOCALHOST_ONLY') != '1':
        return {BUILTIN: 'UDPv4', **dict.fromkeys(VARIABLES, '')}
    if not path.is_file():
        return {}
    # With LOCALHOST, rmw_fastrtps would add shared memory again; the profile restricts the range.
    return {
        RANGE: 'SYSTEM_DEFAULT',
        'ROS_LOCALHOST_ONLY': '0',
        **dict.fromkeys(VARIABLES, str(path)),
    }

"""Finds the package's launch and configuration files."""

import os
from pathlib import Path

import mobile_vla_ros
from mobile_vla_ros.errors import UserError, did_you_mean

PACKAGE = 'mobile_vla_ros'


def share_folder() -> Path:
    """
    Return the folder that holds ``config/`` and ``launch/``.

    In a source tree (also one that pip or colcon links to) that is the repository; in an
    installation, ``share/mobile_vla_ros`` under the prefix whose ``lib`` holds the package.

    :raises UserError: when the package is installed without its data files.
    """
    package = Path(mobile_vla_ros.__file__).resolve().parent
    if (package.parent / 'package.xml').is_file():
        return package.parent
    for prefix in package.parents:
        folder = prefix / 'share' / PACKAGE
        if (folder / 'package.xml').is_file():
            return folder
    raise UserError(
        f'the configuration files of {PACKAGE} are missing',
        expected=f'share/{PACKAGE} under a folder above {package}',
        remedy='install the package again, with colcon build or pip',
    )


def config_file(name: str) -> Path:
    """
    Return a file of ``config/`` by its name.

    :raises UserError: when there is no such file.
    """
    folder = share_folder() / 'config'
    path = folder / name
    if not path.is_file():
        known = sorted(p.name for p in folder.glob('*.yaml'))
        raise UserError(
            'no such configuration file',
            got=repr(name),
            expected=', '.join(known),
            remedy=did_you_mean(name, known),
        )
    return path


def executable_of(package: str, name: str) -> Path:
    """
    Return an executable of another ROS package.

    :raises UserError: when that package is not installed.
    """
    try:
        from ament_index_python.packages import get_package_prefix

        path = Path(get_package_prefix(package)) / 'lib' / package / name
    except (ImportError, LookupError, OSError):
        path = None
    if path is None or not os.access(path, os.X_OK):
        raise UserError(
            f'the ROS package {package!r} is not installed',
            got=path or 'no such package',
            expected=f'its executable {name}',
            remedy=f'sudo apt install ros-$ROS_DISTRO-{package.replace("_", "-")}, and source '
            'ROS in this terminal',
        )
    return path


def default_params(name: str) -> tuple[str, ...]:
    """Return the path of a parameter file, () if there is none of that name."""
    path = share_folder() / 'config' / name
    return (str(path),) if path.is_file() else ()

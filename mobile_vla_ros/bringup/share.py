"""Where the package's launch and configuration files lie."""

from pathlib import Path

import mobile_vla_ros
from mobile_vla_ros.errors import UserError, did_you_mean

PACKAGE = 'mobile_vla_ros'


def share_folder() -> Path:
    """
    Return the folder that holds ``config/`` and ``launch/``.

    In a source tree (also pip's and colcon's links to one) that is the repository; installed, it
    is ``share/mobile_vla_ros`` under the prefix whose ``lib`` holds the package.

    :raises UserError: when the package was installed without its data files.
    """
    package = Path(mobile_vla_ros.__file__).resolve().parent
    if (package.parent / 'package.xml').is_file():
        return package.parent
    for prefix in package.parents:
        folder = prefix / 'share' / PACKAGE
        if (folder / 'package.xml').is_file():
            return folder
    raise UserError(f'the configuration files of {PACKAGE} are missing',
                    expected=f'share/{PACKAGE} under a folder above {package}',
                    remedy='install the package again, with colcon build or pip')


def config_file(name: str) -> Path:
    """
    Return a file of ``config/`` by its name.

    :raises UserError: when there is none of that name.
    """
    folder = share_folder() / 'config'
    path = folder / name
    if not path.is_file():
        known = sorted(p.name for p in folder.glob('*.yaml'))
        raise UserError('no such configuration file', got=repr(name), expected=', '.join(known),
                        remedy=did_you_mean(name, known))
    return path


def default_params(name: str) -> tuple[str, ...]:
    """Return the parameter file of that name, for a node that has one."""
    path = share_folder() / 'config' / name
    return (str(path),) if path.is_file() else ()

"""The drill's report: a page, and the same as JSON."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import datetime, timezone
from importlib import metadata
from pathlib import Path
from typing import Any

import psutil

from mobile_vla_ros.drill.catalog import SPEED_MPS
from mobile_vla_ros.drill.table import HEAD, cells, foot
from mobile_vla_ros.files import replaced
from mobile_vla_ros.report.pages.page import render, write
from mobile_vla_ros.safety.config import GuardConfig

PACKAGES = ('mobile_vla_ros', 'rclpy', 'torch', 'transformers', 'numpy', 'mujoco')


def machine() -> dict[str, str]:
    """Return what this machine is: system, processor, cores, memory and load."""
    return {
        'system': platform.platform(),
        'processor': platform.processor() or platform.machine(),
        'cores': str(os.cpu_count()),
        'memory': f'{psutil.virtual_memory().total / 1e9:.1f} GB',
        'load': ' '.join(f'{one:.1f}' for one in os.getloadavg()),
        'real-time limit': str(psutil.Process().rlimit(psutil.RLIMIT_RTPRIO)[0]),
    }


def versions() -> dict[str, str]:
    """Return the versions of Python, ROS 2 and the packages that drive."""
    found = {'python': platform.python_version()}
    for name in PACKAGES:
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            found[name] = 'not installed by pip'
    found['ROS_DISTRO'] = os.environ.get('ROS_DISTRO', '')
    found['RMW_IMPLEMENTATION'] = os.environ.get('RMW_IMPLEMENTATION', 'default')
    return found


def limits() -> dict[str, Any]:
    """Return the limits that the promises are for: the defaults, and the speed of the drill."""
    config = GuardConfig()
    return {
        'speed of the drive, m/s': SPEED_MPS,
        'observation_max_age_s': config.observation_max_age_s,
        'proposal_timeout_s': config.proposal_timeout_s,
        'teleop_timeout_s': config.teleop_timeout_s,
        'max_gap_s': config.max_gap_s,
        'reaction, s': config.reaction_s,
        'base_deceleration_mps2': config.limits.base_deceleration_mps2,
    }


def write_report(path: Path, rows: Sequence[dict], *, policy: str, params_file: str) -> list[Path]:
    """
    Write a report of the drill, as a page and as JSON beside it.

    :param path: of the page; the other has the suffix ``.json``.
    :param rows: of the drill (``drill.row.Row``).
    :returns: both paths.
    """
    kept = sum(row['kept'] is True for row in rows)
    content: dict[str, Any] = {
        'created_utc': datetime.now(timezone.utc).isoformat(timespec='seconds'),
        'policy': policy,
        'params_file': params_file,
        'kept': kept,
        'faults': len(rows),
        'machine': machine(),
        'versions': versions(),
        'limits': limits(),
        'rows': list(rows),
    }
    page = render(
        'drill.html',
        title=f'Drill: {kept} of {len(rows)} promises kept',
        subtitle=f'{content["created_utc"]}, {policy}, {params_file or "default parameters"}',
        head=HEAD,
        rows=[cells(row) for row in rows],
        broken=[number for number, row in enumerate(rows) if row['kept'] is not True],
        notes=foot(rows).splitlines(),
        about={**content['machine'], **content['versions'], **content['limits']},
    )
    beside = path.with_suffix('.json')
    with replaced(beside) as file:
        json.dump(content, file, indent=1)
    return [write(path, page), beside]

"""A DDS domain that no other process of this package uses on this machine."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError

# Higher domains share ports with the system's ephemeral ones.
MAX_DOMAIN = 100
_turn = count()


@contextmanager
def held_domain() -> Iterator[int]:
    """
    Hold a domain id from 1 to 100, by a lock file that all processes of this package respect.

    :raises UserError: when all are in use.
    """
    first = os.getpid() + next(_turn)
    for step in range(MAX_DOMAIN):
        domain = 1 + (first + step) % MAX_DOMAIN
        try:
            lock = open(Path(tempfile.gettempdir()) / f'ros_domain_{domain}.lock', 'w')  # noqa: SIM115
        except PermissionError:  # another user's
            continue
        with lock:
            try:
                file_lock.claim(lock)
            except BlockingIOError:
                continue
            yield domain
            return
    raise UserError(
        'no DDS domain is free',
        got=f'all {MAX_DOMAIN} in use',
        remedy='end demos and tests that still run',
    )


@cache
def own_domain() -> int:
    """Return the domain of this process, held until it ends."""
    return _HELD.__enter__()


_HELD = held_domain()


def isolated() -> dict[str, str]:
    """
    Return an environment that keeps nodes apart from every other graph.

    A domain of their own, and no traffic beyond this machine: a robot nearby must not receive it.
    """
    return {
        'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
        'ROS_DOMAIN_ID': str(own_domain()),
        'OMP_NUM_THREADS': '1',
    }

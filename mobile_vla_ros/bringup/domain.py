"""A DDS domain that nobody else on this machine uses at the moment."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError

# Higher ones share their ports with connections that the system hands out.
DOMAINS = 100
_turn = count()


@contextmanager
def held_domain() -> Iterator[int]:
    """
    Hold a domain id from 1 to 100 by a lock that every run of ours respects.

    :raises UserError: when all of them are taken.
    """
    first = os.getpid() + next(_turn)
    for step in range(DOMAINS):
        domain = 1 + (first + step) % DOMAINS
        try:
            lock = open(Path(tempfile.gettempdir()) / f'ros_domain_{domain}.lock', 'w')  # noqa: SIM115
        except PermissionError:  # somebody else's
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
        got=f'{DOMAINS} that are in use',
        remedy='end demos and tests that still run',
    )


@cache
def own_domain() -> int:
    """Return the domain of this process, held until it ends."""
    return _HELD.__enter__()


_HELD = held_domain()

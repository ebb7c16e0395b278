"""A DDS domain that no other process of this package uses on this machine."""

import os
import stat
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
    Hold a domain id from 1 to 100, by a lock file that all processes of this user respect.

    :raises UserError: when all are in use.
    """
    first, folder = os.getpid() + next(_turn), _lock_folder()
    for step in range(MAX_DOMAIN):
        domain = 1 + (first + step) % MAX_DOMAIN
        path = folder / f'domain_{domain}.lock'
        try:
            lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise UserError(
                f'{path} cannot be locked',
                got=error.strerror,
                expected='a file of your own, and no link',
                remedy='remove it',
            ) from error
        try:
            if not _claimed(lock, path):
                continue
            try:
                yield domain
            finally:
                path.unlink(missing_ok=True)
            return
        finally:
            os.close(lock)
    raise UserError(
        'no DDS domain is free',
        got=f'all {MAX_DOMAIN} in use',
        remedy='end demos and tests that still run',
    )


def _claimed(lock: int, path: Path) -> bool:
    """Lock an open file; return False if another process has it, or has removed it meanwhile."""
    try:
        file_lock.claim(lock)
        return os.path.samestat(os.fstat(lock), path.stat(follow_symlinks=False))
    except (BlockingIOError, FileNotFoundError):
        return False


def _lock_folder() -> Path:
    """
    Return a folder that belongs to this user alone.

    :raises UserError: when somebody else made it.
    """
    runtime = os.environ.get('XDG_RUNTIME_DIR')
    if runtime and os.access(runtime, os.W_OK):
        folder = Path(runtime) / 'mobile_vla_ros'
    else:
        folder = Path(tempfile.gettempdir()) / f'mobile_vla_ros_{os.getuid()}'
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        raise UserError(
            f'{folder} belongs to somebody else',
            expected='a folder of your own for lock files',
            remedy='remove it, or set XDG_RUNTIME_DIR',
        )
    return folder


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

"""Concurrent runs do not receive each other's messages."""

import os
import shutil
import subprocess
import sys

import pytest

from mobile_vla_ros.bringup.domain import MAX_DOMAIN, held_domain, isolated
from mobile_vla_ros.errors import UserError


def test_a_domain_has_one_holder_at_a_time():
    """Two in this process differ, and a released one is available again."""
    with held_domain() as first, held_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, MAX_DOMAIN + 1))
    held = []
    with held_domain() as third:
        held.append(third)
    assert held


def test_lock_files_belong_to_the_user_and_are_removed(tmp_path, monkeypatch):
    """In XDG_RUNTIME_DIR, for nobody else to read, and gone when the domain is free again."""
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    with held_domain():
        (folder,) = tmp_path.iterdir()
        (lock,) = folder.iterdir()
        assert folder.stat().st_mode & 0o777 == 0o700
        assert lock.stat().st_mode & 0o777 == 0o600
    assert list(folder.iterdir()) == []


def test_a_lock_file_that_is_a_link_is_not_followed(tmp_path, monkeypatch):
    """Neither a link in the folder, nor a folder that somebody else made, is written through."""
    monkeypatch.setenv('XDG_RUNTIME_DIR', str(tmp_path))
    with held_domain():
        (folder,) = tmp_path.iterdir()
    (tmp_path / 'victim').write_text('precious')
    for domain in range(1, MAX_DOMAIN + 1):
        (folder / f'domain_{domain}.lock').symlink_to(tmp_path / 'victim')
    with pytest.raises(UserError, match='link'), held_domain():
        pass
    assert (tmp_path / 'victim').read_text() == 'precious'
    shutil.rmtree(folder)
    folder.symlink_to(tmp_path)
    with pytest.raises(UserError, match='somebody else'), held_domain():
        pass


def test_concurrent_processes_use_different_domains():
    """A process that starts nodes keeps one domain, which is not the one held here."""
    assert isolated()['ROS_DOMAIN_ID'] == isolated()['ROS_DOMAIN_ID']
    with held_domain() as held:
        # This test holds the id that the other process would try first.
        code = (
            'import os; from mobile_vla_ros.bringup import domain; '
            f'os.getpid = lambda: {held - 1}; print(domain.own_domain())'
        )
        other = subprocess.run(
            [sys.executable, '-c', code],
            capture_output=True,
            text=True,
            check=True,
            env=os.environ,
        )
        assert int(other.stdout) != held

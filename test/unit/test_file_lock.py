"""Locks of files and folders: one holder, released when it ends."""

import os
import subprocess
import sys

import pytest

from mobile_vla_ros import file_lock

HOLDER = (
    'import os, sys\nfrom mobile_vla_ros import file_lock\n'
    'file_lock.claim(os.open(sys.argv[1], os.O_RDONLY))\nprint("held", flush=True)\ninput()'
)


@pytest.mark.parametrize('kind', ['file', 'folder'])
def test_one_process_holds_a_lock_until_it_ends(tmp_path, kind):
    """Also when it is killed: the kernel releases the lock with the last handle."""
    path = tmp_path / 'held'
    path.mkdir() if kind == 'folder' else path.touch()
    handle = os.open(path, os.O_RDONLY)
    holder = subprocess.Popen(
        [sys.executable, '-c', HOLDER, path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    try:
        assert holder.stdout.readline() == b'held\n'
        with pytest.raises(BlockingIOError):
            file_lock.claim(handle)
        holder.kill()
        holder.wait()
        file_lock.claim(handle)
    finally:
        holder.kill()
        holder.communicate()
        os.close(handle)

"""Concurrent runs do not receive each other's messages."""

import os
import subprocess
import sys

from mobile_vla_ros.bringup.domain import MAX_DOMAIN, held_domain, isolated


def test_a_domain_has_one_holder_at_a_time():
    """Two in this process differ, and a released one is available again."""
    with held_domain() as first, held_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, MAX_DOMAIN + 1))
    held = []
    with held_domain() as third:
        held.append(third)
    assert held


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

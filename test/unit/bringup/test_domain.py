"""Concurrent runs do not receive each other's messages."""

import os
import subprocess
import sys

from mobile_vla_ros.bringup.domain import MAX_DOMAIN, held_domain, isolated


def test_a_domain_is_held_by_one_at_a_time():
    """Two in this process differ, and what was let go can be had again."""
    with held_domain() as first, held_domain() as second:
        assert first != second
        assert {first, second} <= set(range(1, MAX_DOMAIN + 1))
    taken = []
    with held_domain() as third:
        taken.append(third)
    assert taken


def test_demo_and_tests_pass_each_other_by():
    """A process that starts nodes keeps one domain, and never the one that is held here."""
    assert isolated()['ROS_DOMAIN_ID'] == isolated()['ROS_DOMAIN_ID']
    with held_domain() as held:
        # The id that the other process would try first is held.
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

"""The executables of the installed package."""

import pytest

from colcon_workspace import sourced


@pytest.mark.parametrize('executable', ['guard_node', 'mobile_vla'])
def test_an_installed_executable_runs(installed, executable, ros_domain):
    """The node refuses a bad parameter; the command line prints --help."""
    path = f'{installed}/mobile_vla_ros/lib/mobile_vla_ros/{executable}'
    if executable == 'mobile_vla':
        done = sourced(installed, f'{path} --help')
        assert done.returncode == 0, done.stderr
        assert 'usage: mobile_vla' in done.stdout
    else:
        done = sourced(installed, f'{path} --ros-args -p rate_hz:=1000.0')
        assert done.returncode == 2, done.stderr
        assert 'rate_hz' in done.stderr

"""The time that the command line needs for help."""

import time

import pytest

from command_line import SUBCOMMANDS, mobile_vla


@pytest.mark.quiet_machine
@pytest.mark.parametrize('arguments', [(), *[(name,) for name in SUBCOMMANDS]])
def test_help_answers_at_once_and_has_an_example(arguments):
    """`--help` must not wait for torch (2.6 s) or transformers (7 s): best of three under 1 s."""
    seconds = []
    for _ in range(3):
        started = time.monotonic()
        done = mobile_vla(*arguments, '--help')
        seconds.append(time.monotonic() - started)
        assert done.returncode == 0
        if seconds[-1] < 1:
            break
    assert min(seconds) < 1
    assert 'example: mobile_vla' in done.stdout

"""`mobile_vla` as a user runs it: as a process, or in this one."""

import json
import os
import subprocess
import sys

from mobile_vla_ros.cli.main import main

SUBCOMMANDS = (
    *('demo', 'train', 'evaluate', 'simulate', 'quantise'),
    *('replay', 'episodes', 'drill', 'bench'),
)


def mobile_vla(*arguments, timeout_s: float = 120, **environment: str):
    """Run the command as a process; return what `subprocess.run` returns."""
    return subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout_s,
        check=False,
        env={**os.environ, **environment},
    )


def run_main(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command in this process; return exit status, output and errors."""
    try:
        status = main([*map(str, arguments)])
    except SystemExit as bad_use:  # raised by argparse
        status = bad_use.code
    return status, *capsys.readouterr()


def assert_refused_without_gl(*arguments, out):
    """Check that a command without GL names the missing packages and writes nothing."""
    done = mobile_vla(*arguments, '--out', out, MUJOCO_GL='disabled')
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'libosmesa6' in done.stderr
    assert not out.exists()


def bench_figures(*arguments, timeout_s: float, **environment: str) -> dict[tuple[str, str], dict]:
    """Run `mobile_vla bench` and check its exit status; return (part, name) → figure."""
    done = mobile_vla('bench', *arguments, '--json', timeout_s=timeout_s, **environment)
    assert done.returncode in (0, 1), done.stderr
    result = json.loads(done.stdout)
    assert result['kept'] == all(one['kept'] is not False for one in result['figures'])
    assert done.returncode == (0 if result['kept'] else 1)
    return {(one['part'], one['name']): one for one in result['figures']}

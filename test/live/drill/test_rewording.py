"""Guard and inference reword every sentence that they publish: nothing else changes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REWORDED = Path(__file__).resolve().parents[2] / 'helpers' / 'reworded'
ROOT = REWORDED.parent.parent
# One fault of each judge, and of each process that has a sentence for it.
FAULTS = ('camera_frozen', 'camera_late', 'proposal_nan', 'instruction', 'teleop_lets_go', 'estop')


@pytest.mark.quiet_machine
def test_the_drill_keeps_every_promise_with_other_sentences(tmp_path):
    """It goes by the reasons of the enum; a row quotes the reworded sentence."""
    before = os.environ.get('PYTHONPATH', '')
    done = subprocess.run(
        [
            *(sys.executable, '-m', 'mobile_vla_ros.cli.main', 'drill'),
            *(*FAULTS, '--json', '--out', str(tmp_path / 'log')),
        ],
        cwd=ROOT,
        env={**os.environ, 'PYTHONPATH': f'{REWORDED}{os.pathsep}{before}'.rstrip(os.pathsep)},
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads(done.stdout)
    assert [row['fault'] for row in rows] == list(FAULTS)
    assert all(row['kept'] for row in rows)
    assert all(row['guard'].endswith('>') for row in rows), [row['guard'] for row in rows]

"""scripts/gpu_check.py: every part on a CPU with a small network."""

import json
import subprocess
import sys
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[3] / 'scripts'
# What a bare machine with a GPU lacks. A second command, whose part is stopped at once.
PROGRAM = """
import sys
for name in ('rclpy', 'mujoco', 'rosbags', 'ament_index_python', 'launch', 'tensorboard'):
    sys.modules[name] = None
import gpu_check
common = ['--small', '--device', 'cpu', '--out', sys.argv[1], '--work', sys.argv[2]]
first = gpu_check.main(common)
second = gpu_check.main([*common, '--parts', 'golden', '--limit', '0.01'])
print('statuses', first, second)
"""


def test_every_part_passes_on_a_cpu_and_one_that_is_stopped_costs_only_itself(tmp_path):
    """Without ROS, MuJoCo and TensorBoard; parts that need CUDA say so."""
    done = subprocess.run(
        [sys.executable, '-c', PROGRAM, str(tmp_path / 'out'), str(tmp_path / 'work')],
        cwd=SCRIPTS,
        capture_output=True,
        text=True,
        timeout=280,
    )
    assert 'statuses 0 1' in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]
    parts = json.loads((tmp_path / 'out' / 'gpu_cpu.json').read_text())['parts']
    assert {name: one['status'] for name, one in parts.items()} == {
        **dict.fromkeys(('environment', 'architecture', 'training', 'agree', 'step'), 'ok'),
        **dict.fromkeys(('rate', 'resume', 'seed'), 'ok'),
        **dict.fromkeys(('memory', 'oom'), 'skipped: no CUDA'),
        'golden': 'failed',
    }
    assert parts['golden']['broken'] == ['stopped after 0.01 s']
    assert parts['resume']['figures']['largest relative difference'] == 0
    assert '| **seed** | ok |' in (tmp_path / 'out' / 'gpu_cpu.md').read_text()

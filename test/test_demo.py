"""The demo in small: every process, every file, the table and the page."""

import json
import os
import subprocess
import sys

import pytest

from mobile_vla_ros.episode.reader import Episode, find_episodes
from mobile_vla_ros.model.bundle import read_spec


@pytest.mark.timeout(600)
def test_the_demo_goes_all_the_way(tmp_path):
    """
    Records through the recorder node, trains, drives through inference and guard, reports.

    Two takes teach nothing, so the status may be 1: it ran and the answer is no.
    """
    out = tmp_path / 'out'
    done = subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'demo', '--out', str(out), '--takes',
         '2', '--trials', '1', '--epochs', '1'],
        capture_output=True, text=True, timeout=580, check=False, env=dict(os.environ))
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    paths = find_episodes(out / 'takes')
    assert len(paths) == 2
    for path in paths:
        with Episode.open(path) as episode:
            assert (episode.complete, episode.outcome) == (True, 'success')
            assert episode.health['verdict'] == 'good'
            assert set(episode.commands.source) <= {0, 1}
            assert len(episode.commands) > len(episode)
    assert read_spec(out / 'training' / 'best').metrics['policy']['linear_x']['mae'] > 0
    for text in ('in held-out layouts', 'policy, no image', 'repeat the last command',
                 'report.html'):
        assert text in done.stdout
    page = (out / 'report.html').read_text()
    assert page.count('<svg') >= 3
    assert 'data:image/jpeg;base64' in page
    trials = [json.loads(line) for line in
              (out / 'log' / 'policy' / 'arena_runner.log').read_text().splitlines()
              if line.startswith('{')]
    assert [trial['trial'] for trial in trials] == [0]
    # The policy drove: the base moved.
    assert trials[0]['path'][0] != trials[0]['path'][-1]

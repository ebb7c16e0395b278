"""A small demo: all processes, files, tables and the page."""

import json
import subprocess
import sys

import pytest

from forked import run_forked
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.episode.storage.reader import Episode, find_episodes
from mobile_vla_ros.model.policy_spec import read_spec
from mobile_vla_ros.rollout import demo as rollout_demo


def run_demo(*arguments: str) -> subprocess.CompletedProcess:
    """Run the demo as a user does."""
    return subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'demo', *arguments],
        capture_output=True,
        text=True,
        timeout=880,
        check=False,
    )


@pytest.fixture(params=['forked', pytest.param('started', marks=pytest.mark.exhaustive)])
def demo(request, monkeypatch, capfd):
    """
    Return what runs the demo, as a process or in this one.

    In this one, its eight trainings and drives are forked: to import torch for each takes minutes.
    """
    if request.param == 'started':
        return run_demo

    def mobile_vla(*words, threads, capture):
        return run_forked(
            '-m',
            'mobile_vla_ros.cli.main',
            *words,
            timeout_s=880,
            OMP_NUM_THREADS=str(threads),
        )

    def run(*arguments):
        status = main(['demo', *arguments])
        return subprocess.CompletedProcess(arguments, status, *capfd.readouterr())

    monkeypatch.setattr(rollout_demo, '_mobile_vla', mobile_vla)
    monkeypatch.setattr(rollout_demo, 'WORKERS', 1)
    return run


@pytest.mark.timeout(900)
def test_the_demo_runs_to_its_end(tmp_path, demo):
    """
    It records with the recorder node, trains, drives in process and live, and reports.

    Two episodes teach nothing, so the status may be 1: it ran, but the policy is not better.
    """
    out = tmp_path / 'out'
    small = {'takes': 3, 'trials': 1, 'live': 1, 'epochs': 1}
    words = [word for name, value in small.items() for word in (f'--{name}', str(value))]
    done = demo('--out', str(out), *words)
    assert done.returncode in (0, 1), done.stdout + done.stderr
    assert 'Traceback' not in done.stdout + done.stderr
    paths = find_episodes(out / 'takes')
    assert len(paths) == 3
    for path in paths:
        with Episode.open(path) as episode:
            assert (episode.complete, episode.outcome) == (True, 'success')
            # A camera that is late on a busy machine makes it poor.
            assert episode.health['verdict'] in ('good', 'poor')
            assert set(episode.commands.source) <= {0, 1}
            assert len(episode.commands) > len(episode)
    for name, blank in (('policy', ''), ('no_image', 'image'), ('no_instruction', 'instruction')):
        spec = read_spec(out / 'training' / name / 'best')
        assert spec.blank == blank
        assert spec.metrics['policy']['linear_x']['mae'] > 0
        assert len(spec.data['mean_action']) == 2
    for text in (
        'no image',
        'no instruction',
        'zero action',
        'mean action',
        'unseen_pairs',
        'repeat the last command',
        'live, through the nodes',
        'report.html',
    ):
        assert text in done.stdout
    page = (out / 'report.html').read_text()
    assert page.count('<svg') >= 3
    assert 'data:image/jpeg;base64' in page
    assert (out / 'driven' / 'policy' / 'report.html').is_file()
    trials = [
        json.loads(line)
        for line in (out / 'log' / 'live' / 'arena_runner.log').read_text().splitlines()
        if line.startswith('{')
    ]
    assert [trial['trial'] for trial in trials] == [0]
    # The policy drove: the base moved.
    assert trials[0]['path'][0] != trials[0]['path'][-1]

"""`mobile_vla simulate`: suites, controls, resumed runs, and the page."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from browser import dump_dom, needs_chromium
from changed_policies import changed_policy
from command_line import assert_refused_without_gl, run_main
from mobile_vla_ros.cli.main import main
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.builtin import POLICIES
from mobile_vla_ros.rollout.compare import Driver
from mobile_vla_ros.rollout.jobs import Jobs
from mobile_vla_ros.rollout.simulation import named
from mobile_vla_ros.rollout.trial_log import FORMAT, TrialLog
from mobile_vla_ros.sim import suites


def simulate(capsys, *arguments) -> dict:
    """Run the command with --json; return what it prints."""
    status, out, err = run_main(capsys, 'simulate', *arguments, '--json')
    assert status == 0, err
    return json.loads(out)


def test_without_a_policy_the_expert_drives(capsys):
    """One suite: the documented keys at the top level, and two drives as one trial."""
    result = simulate(capsys, '--suite', 'swap', '--trials', 2, '--seed', 5)
    assert (result['suite'], result['suites_version']) == ('swap', suites.VERSION)
    assert (result['trials'], result['success_rate'], result['collision_rate']) == (2, 1.0, 0.0)
    assert result['success_interval'][0] < 1
    assert [(one['trial'], one['scene']) for one in result['outcomes']] == [
        (5, 10),
        (5, 11),
        (6, 12),
        (6, 13),
    ]
    assert result['time_s']['ratio'] == pytest.approx(1.0)


def test_without_a_page_nothing_that_draws_is_imported():
    """Only --out writes a page: without it there is no matplotlib and no jinja2."""
    code = (
        'import sys\nfrom mobile_vla_ros.cli.main import main\n'
        "status = main(['simulate', '--suite', 'seen', '--trials', '1', '--control', 'zero'])\n"
        'heavy = {"jinja2", "matplotlib", "torch"} & set(sys.modules)\n'
        'sys.exit(", ".join(heavy) or status)'
    )
    done = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert '0% success' in done.stdout


def test_suite_all_has_every_suite_for_measuring(capsys):
    """And none of those for recording."""
    result = simulate(capsys, '--suite', 'all', '--trials', 1)
    assert set(result) == {'suites_version', 'suites'}
    assert set(result['suites']) == {
        'seen',
        'unseen_layouts',
        'unseen_pairs',
        'unseen_wording',
        'swap',
        'disturbed',
    }
    assert all(one['success_rate'] == 1 for one in result['suites'].values())


def test_a_policy_drives_and_so_do_its_controls(small_run, capsys):
    """Each control removes one input, so each drives differently."""
    ways = {}
    for control in ('', 'image', 'instruction', 'mean_action', 'zero'):
        result = simulate(
            capsys,
            '--policy',
            small_run / 'best',
            '--trials',
            1,
            *(('--control', control) if control else ()),
        )
        one = result['outcomes'][0]
        ways[control] = (one['outcome'], one['elapsed_s'], one['length_m'])
    assert ways['zero'][0] == 'timeout'
    assert ways['zero'][2] == 0
    assert len(set(ways.values())) == len(ways)


def test_a_policy_that_does_not_fit_is_refused(small_run, tmp_path, capsys):
    """Axes that the arena lacks; a control that the bundle lacks."""
    flying = changed_policy(
        small_run / 'best', tmp_path / 'flying', actions={'axes': ['linear_x', 'linear_z']}
    )
    status, _, err = run_main(capsys, 'simulate', '--policy', flying)
    assert status == 2
    assert 'linear_z' in err
    old = changed_policy(small_run / 'best', tmp_path / 'old', data={'mean_action': None})
    status, _, err = run_main(capsys, 'simulate', '--policy', old, '--control', 'mean_action')
    assert status == 2
    assert 'mean action' in err


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--suite', 'unseen_layout'], "'unseen_layouts'"),
        (['--trials', 0], 'nothing to drive'),
        (['--jobs', 0], 'nobody drives'),
        (['--jobs', 2, '--ros'], 'one trial at a time'),
        (['--seed', -1], 'no such trial'),
        (['--seed', 9_999_990], 'no such trial'),
        (['--policy', '/no/such/policy'], '/no/such/policy'),
        (['--control', 'image'], 'no --policy'),
        (['--control', 'mean_action'], 'no --policy'),
        (['--trials', 1, '--out', '/dev/null/x'], '--out'),
    ],
)
def test_bad_use_ends_with_a_sentence_and_status_2(arguments, text, capsys):
    """The sentence names the problem."""
    status, out, err = run_main(capsys, 'simulate', *arguments)
    assert (status, out) == (2, '')
    assert text in err


def test_an_unknown_control_names_the_known_ones(capsys):
    """In argparse's own sentence."""
    status, _, err = run_main(capsys, 'simulate', '--control', 'sound')
    assert status == 2
    assert 'mean_action' in err


def test_a_machine_without_gl_is_refused_before_writing(tmp_path):
    """The message names the packages to install; no folder is created."""
    assert_refused_without_gl('simulate', '--trials', 1, out=tmp_path / 'out')


def test_a_stopped_run_resumes(tmp_path, capsys):
    """A torn last line is dropped, whole lines are kept unchanged, and the rest is driven."""
    arguments = ('--suite', 'swap', '--control', 'zero', '--out', tmp_path / 'out')
    simulate(capsys, *arguments, '--trials', 2)
    log = tmp_path / 'out' / 'swap.jsonl'
    two = log.read_bytes()
    assert two.count(b'\n') == 3
    assert json.loads(two.splitlines()[0])['suites_version'] == suites.VERSION
    with log.open('ab') as file:
        file.write(two.splitlines()[2][:200])
    result = simulate(capsys, *arguments, '--trials', 3)
    assert result['trials'] == 3
    whole = log.read_bytes()
    assert whole.startswith(two)
    assert [json.loads(line)['trial'] for line in whole.splitlines()[1:]] == [0, 1, 2]
    fresh = simulate(capsys, '--suite', 'swap', '--control', 'zero', '--trials', 3)
    assert result == fresh, 'a resumed run equals an uninterrupted one'
    # A finished run prints the same result without driving.
    assert simulate(capsys, *arguments, '--trials', 3) == fresh
    assert log.read_bytes() == whole


@pytest.fixture(scope='module')
def one_trial(tmp_path_factory):
    """The folder of a run of one trial, to copy."""
    out = tmp_path_factory.mktemp('one_trial')
    arguments = ('--suite', 'seen', '--control', 'zero', '--trials', '1', '--out', str(out))
    assert main(['simulate', *arguments]) == 0
    return out


def test_a_torn_header_is_written_again(tmp_path, capsys):
    """After a kill during the first write."""
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'seen.jsonl').write_text('{"format":"mobile_vla_tr')
    simulate(capsys, '--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', out)
    assert len((out / 'seen.jsonl').read_text().splitlines()) == 2


@pytest.mark.parametrize(
    ('content', 'arguments', 'text'),
    [
        (None, ('--seed', 1), 'seed 0'),
        (None, ('--control', 'image'), 'no --policy'),
        (None, (), 'control zero'),
        ('my notes', ('--control', 'zero'), 'not a log of trials'),
        ('{"a": 1}\n', ('--control', 'zero'), 'not a log of trials'),
        ('damaged', ('--control', 'zero'), 'line 2'),
    ],
)
def test_other_trials_are_never_overwritten(content, arguments, text, one_trial, tmp_path, capsys):
    """Another seed, control or policy in the same folder, or an unrelated file."""
    out = shutil.copytree(one_trial, tmp_path / 'out')
    log = out / 'seen.jsonl'
    if content == 'damaged':
        log.write_bytes(log.read_bytes().replace(b'"outcome"', b'"income"'))
    elif content:
        log.write_text(content)
    before = log.read_bytes()
    status, _, err = run_main(
        capsys, 'simulate', '--suite', 'seen', '--trials', 2, '--out', out, *arguments
    )
    assert status == 2
    assert text in err
    assert log.read_bytes() == before


def test_a_run_belongs_to_the_content_of_its_policy(small_run, tmp_path, capsys):
    """A copy at another path resumes the run; other content is refused."""
    arguments = ('--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', tmp_path / 'out')
    simulate(capsys, *arguments, '--policy', small_run / 'best')
    simulate(
        capsys, *arguments, '--policy', shutil.copytree(small_run / 'best', tmp_path / 'copy')
    )
    other = changed_policy(small_run / 'best', tmp_path / 'other', data={'note': 'trained again'})
    status, _, err = run_main(capsys, 'simulate', *arguments, '--policy', other)
    assert status == 2
    assert 'policy ' in err


def test_a_run_belongs_to_its_precision_and_backbone(tmp_path):
    """An older log, which names neither, goes on."""
    path = tmp_path / 'seen.jsonl'
    header = {'suite': 'seen', 'seed': 0}
    path.write_text(json.dumps({'format': FORMAT, **header}) + '\n')
    with TrialLog(path, {**header, 'precision': 'bf16', 'backbone': 'elsewhere'}) as log:
        assert log.trials == []
    path.write_text(json.dumps({**log.header, 'precision': 'fp32'}) + '\n')
    with pytest.raises(UserError, match='got precision fp32; expected precision bf16'):
        TrialLog(path, {**header, 'precision': 'bf16', 'backbone': 'elsewhere'})


def test_the_log_names_the_precision_that_auto_stands_for(small_run, tmp_path, capsys):
    """And the backbone; on another device it may be another one."""
    arguments = ('--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', tmp_path)
    simulate(capsys, *arguments, '--policy', small_run / 'best', '--device', 'cpu')
    header = json.loads((tmp_path / 'seen.jsonl').read_text().splitlines()[0])
    assert (header['precision'], header['backbone']) == ('fp32', '')


def test_a_command_stays_as_it_was_typed(tmp_path, capsys):
    """Two slashes are one in a path only."""
    _, _, err = run_main(capsys, 'simulate', '--policy', 'process:/no/such tcp://x', '--trials', 1)
    assert '(/no/such tcp://x)' in err
    assert Driver('process:/no/such tcp://x').policy == 'process:/no/such tcp://x'


def test_a_dead_idle_process_is_missed_in_a_sentence():
    """Though its input cannot be closed any more."""
    driver = {'policy': None, 'control': 'zero', 'device': 'cpu'}
    with pytest.raises(UserError, match='has ended; got SIGKILL'), Jobs(driver, 1) as jobs:
        process = jobs._workers[0].process
        process.kill()
        process.wait()
        list(jobs.drive('seen', range(1)))


ENDLESS = ('simulate', '--suite', 'seen', '--control', 'zero', '--json', '--trials', '100000')


def start_endless(out, jobs: int) -> subprocess.Popen:
    """Return a run that has finished three trials, and would take hours."""
    process = subprocess.Popen(
        [
            *(sys.executable, '-m', 'mobile_vla_ros.cli.main', *ENDLESS),
            *('--out', str(out), '--jobs', str(jobs)),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    log = out / 'seen.jsonl'
    until = time.monotonic() + 120
    while not (log.exists() and log.read_bytes().count(b'\n') >= 3):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    return process


@pytest.mark.parametrize('jobs', [1, 2])
def test_ctrl_c_keeps_finished_trials_and_reports_how_to_resume(jobs, tmp_path, capsys):
    """Status 130, a sentence, whole lines, no process left; the same command continues."""
    out = tmp_path / 'out'
    process = start_endless(out, jobs)
    workers = psutil.Process(process.pid).children()
    assert len(workers) == (jobs if jobs > 1 else 0)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=120)
    assert process.returncode == 130
    assert stdout == ''
    assert 'Traceback' not in stderr
    assert f'in {out}, and the same command continues' in stderr
    assert not any(worker.is_running() for worker in workers)
    kept = (out / 'seen.jsonl').read_bytes()
    assert kept.endswith(b'\n')
    done = kept.count(b'\n') - 1
    again = simulate(capsys, *ENDLESS[1:5], '--out', out, '--trials', done + 1, '--jobs', 1)
    assert again['trials'] == done + 1
    assert (out / 'seen.jsonl').read_bytes().startswith(kept)


@pytest.mark.parametrize('killed', ['worker', 'parent'])
def test_a_killed_process_leaves_whole_trials_and_no_process(killed, tmp_path):
    """One of those that drive is missed in a sentence; those of a killed parent end with it."""
    process = start_endless(tmp_path / 'out', 2)
    workers = psutil.Process(process.pid).children()
    (workers[1] if killed == 'worker' else process).send_signal(signal.SIGKILL)
    _, stderr = process.communicate(timeout=60)
    if killed == 'worker':
        assert process.returncode == 2
        assert 'error: a process that drove trials has ended; got SIGKILL.' in stderr
    assert 'Traceback' not in stderr
    _, alive = psutil.wait_procs(workers, 60)
    assert not alive
    _, *lines = (tmp_path / 'out' / 'seen.jsonl').read_text().splitlines()
    assert [json.loads(line)['trial'] for line in lines] == list(range(len(lines)))


STEERING = """
import numpy as np
from mobile_vla_ros import ActionSpec, Plan, spec_without_network

class Steering:
    def __init__(self):
        axes = ActionSpec(('linear_x', 'angular_z'), (1.0, 1.0))
        self.spec = spec_without_network('steering', axes, window=2)

    def infer(self, window, instruction):
        red, green, _ = window[-1].image.mean((0, 1)) / 255
        turn = red - green + len(instruction) / 1000
        return Plan(window[-1].stamp_ns, np.tile([0.8, 0, 0, 0, 0, turn], (10, 1)), 10.0)

    def reset(self):
        pass
"""


def test_figures_do_not_depend_on_the_number_of_processes(tmp_path, capsys, monkeypatch):
    """Byte for byte the same log, by what was seen; a run goes on with another number of them."""
    (tmp_path / 'steering.py').write_text(STEERING)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv('PYTHONPATH', str(tmp_path), prepend=os.pathsep)
    arguments = ('--policy', 'steering:Steering', '--suite', 'diff_disturbed')
    for out, trials, jobs in (('mixed', 1, 1), ('mixed', 3, 2), ('one', 3, 1)):
        simulate(
            *(capsys, *arguments, '--trials', trials, '--jobs', jobs, '--out', tmp_path / out)
        )
    one, mixed = (tmp_path / name / 'diff_disturbed.jsonl' for name in ('one', 'mixed'))
    assert one.read_bytes() == mixed.read_bytes()
    drives = [json.loads(line)['drives'][0] for line in one.read_text().splitlines()[1:]]
    assert len({drive['change_radps2'] for drive in drives}) == 3, 'it steers by the image'


def test_what_a_process_refuses_is_refused_before_writing(small_run, tmp_path, capsys):
    """As with one process: a sentence, and no folder."""
    out = tmp_path / 'out'
    flying = changed_policy(
        small_run / 'best', tmp_path / 'flying', actions={'axes': ['linear_x', 'linear_z']}
    )
    status, _, err = run_main(
        *(capsys, 'simulate', '--policy', flying, '--trials', 2, '--jobs', 2, '--out', out)
    )
    assert status == 2
    assert 'linear_z' in err
    assert not out.exists()


FILMS = 4


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """A page of 8 trials without motion: all but those with the instruction to stop fail."""
    out = tmp_path_factory.mktemp('page')
    arguments = ('--suite', 'unseen_layouts', '--control', 'zero', '--trials', '8', '--json')
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr('mobile_vla_ros.report.builders.trials.MAX_FILMS', FILMS)
        assert main(['simulate', *arguments, '--out', str(out)]) == 0
    return out / 'report.html'


def test_the_page_is_one_file_with_films_of_failures(page):
    """Headline, tasks, every drive from above, and the reported number of films."""
    text = page.read_text()
    log = [json.loads(line) for line in (page.parent / 'unseen_layouts.jsonl').open()][1:]
    failed = sum(trial['drives'][0]['outcome'] != 'success' for trial in log)
    assert failed > FILMS
    films = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert len(films) == FILMS
    assert f'{FILMS} of them can be played; the other {failed - FILMS} have only a map' in text
    assert text.count('<svg') == len(log)
    film = json.loads(films[0])
    assert len(film['poses']) == len(film['shown']) == len(film['times']) == 101  # 20 s at 5 Hz
    assert film['times'][-1] == 20.0
    assert len(film['images']) == 1, 'a base at rest needs one image'
    for outside in ('<link', 'src="http', 'href="', 'url(', 'import('):
        assert outside not in text
    assert not [path for path in page.parent.iterdir() if path.name.startswith('.')]


def test_a_moving_film_has_an_image_every_fifth_of_a_second(tmp_path, capsys):
    """The camera's images on the way, rendered again from the path."""
    import base64
    import io

    from PIL import Image

    from mobile_vla_ros.report.builders.trials import _film
    from mobile_vla_ros.rollout.trials import ExpertDriver, drive_scene
    from mobile_vla_ros.sim.arena import Arena

    arena = Arena(160, 160)
    drive = drive_scene(arena, 'seen', 0, ExpertDriver(arena))
    film = _film(arena, drive)
    arena.close()
    assert film.poses[0] == drive.path[0]
    assert film.poses[-1] == drive.path[-1]
    assert film.times[1] == pytest.approx(0.2)
    assert film.times[-1] == drive.elapsed_s
    assert len(film.images) > len(film.poses) / 2
    images = [Image.open(io.BytesIO(image)) for image in film.images]
    assert {image.size for image in images} == {(160, 160)}
    assert base64.b64encode(film.images[0]) != base64.b64encode(film.images[-1])


@needs_chromium
def test_the_player_shows_the_first_image_and_plays(page, tmp_path):
    """In a browser a link to a failure plays it to its end."""
    url = f'{page.as_uri()}#unseen_layouts-1'
    dom, _ = dump_dom(url, tmp_path, '--virtual-time-budget=60000')
    figures = re.findall(r'<figure class="drive film".*?</figure>', dom, re.DOTALL)
    assert len(figures) == FILMS
    for figure in figures:
        assert 'src="data:image/jpeg;base64,' in figure
        assert 'class="base" transform="translate(' in figure
    assert '>0.0 / 20.0 s</output>' in figures[0]
    assert '>20.0 / 20.0 s</output>' in figures[1]


def test_live_drives_are_summarised_the_same_way(tmp_path, capsys, monkeypatch):
    """`--ros`: the live nodes give one record per scene; a trial of swap has two."""
    given = {}

    def drive_live(**arguments):
        given.update(arguments)
        for scene in range(arguments['first'], arguments['first'] + arguments['count']):
            yield {
                'trial': scene,
                'outcome': 'success' if scene % 4 < 2 else 'collision',
                'elapsed_s': 5.0,
                'instruction': 'go',
                'path': [[0.0, 0.0], [1.0, 0.0]],
            }

    monkeypatch.setitem(
        sys.modules, 'mobile_vla_ros.rollout.live', SimpleNamespace(drive_live=drive_live)
    )
    result = simulate(
        capsys, '--ros', '--suite', 'swap', '--trials', 4, '--seed', 2, '--out', tmp_path / 'out'
    )
    assert (given['first'], given['count'], given['suite']) == (4, 8, 'swap')
    assert (result['trials'], result['success_rate'], result['collision_rate']) == (4, 0.5, 0.5)
    text = (tmp_path / 'out' / 'report.html').read_text()
    assert text.count('<svg') == 8
    assert '<script type="application/json">' not in text, 'without yaw no image'
    simulate(
        capsys, '--ros', '--suite', 'swap', '--trials', 5, '--seed', 2, '--out', tmp_path / 'out'
    )
    assert (given['first'], given['count']) == (12, 2), 'it continues after the existing trials'


def test_a_policy_without_linear_y_gets_the_scenes_of_a_differential_base(tmp_path, capsys):
    """By the names of the suites without a base, and by `all`; an expert drives what is named."""
    turning = changed_policy(
        POLICIES['builtin:demo'], tmp_path / 'policy', actions={'axes': ['linear_x', 'angular_z']}
    )
    assert named(['unseen_layouts', 'diff_swap'], turning) == ['diff_unseen_layouts', 'diff_swap']
    assert {suites.SUITES[name].base for name in named([], turning)} == {'diff'}
    assert named(['unseen_layouts'], Path('builtin:demo')) == ['unseen_layouts']
    result = simulate(capsys, '--suite', 'diff_swap', '--trials', 2)
    assert (result['suite'], result['success_rate']) == ('diff_swap', 1.0)

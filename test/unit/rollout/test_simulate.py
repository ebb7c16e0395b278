"""`mobile_vla simulate`: suites, controls, runs that go on, and the page."""

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from types import SimpleNamespace

import pytest

from mobile_vla_ros.cli.main import main
from mobile_vla_ros.sim import suites

CHROMIUM = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)


def simulate(capsys, *arguments) -> tuple[int, str, str]:
    """Run the subcommand in this process; return status, output and errors."""
    status = main(['simulate', *map(str, arguments)])
    return status, *capsys.readouterr()


def asked(capsys, *arguments) -> dict:
    """Run it with --json and return what it prints."""
    status, out, err = simulate(capsys, *arguments, '--json')
    assert status == 0, err
    return json.loads(out)


def test_the_expert_drives_where_no_policy_is_given(capsys):
    """One suite: the fixed keys on top, a trial of two drives as one."""
    result = asked(capsys, '--suite', 'swap', '--trials', 2, '--seed', 5)
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


def test_all_suites_are_those_to_measure_by(capsys):
    """`--suite all`: every yardstick, and none of those that takes come from."""
    result = asked(capsys, '--suite', 'all', '--trials', 1)
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
    """Each control takes one thing away, so each drives its own way."""
    ways = {}
    for control in ('', 'image', 'instruction', 'mean_action', 'zero'):
        result = asked(
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


def edited(folder, small_run, **changes):
    """Return a copy of the small policy with other values in its policy.json; None removes one."""
    shutil.copytree(small_run / 'best', folder)
    manifest = folder / 'policy.json'
    content = json.loads(manifest.read_text())
    for name, change in changes.items():
        content[name] = {
            key: value for key, value in {**content[name], **change}.items() if value is not None
        }
    manifest.write_text(json.dumps(content))
    return folder


def test_a_policy_that_does_not_fit_is_a_sentence(small_run, tmp_path, capsys):
    """Axes that the arena lacks; a control that the bundle cannot give."""
    flying = edited(tmp_path / 'flying', small_run, actions={'axes': ['linear_x', 'linear_z']})
    status, _, err = simulate(capsys, '--policy', flying)
    assert status == 2
    assert 'linear_z' in err
    old = edited(tmp_path / 'old', small_run, data={'mean_action': None})
    status, _, err = simulate(capsys, '--policy', old, '--control', 'mean_action')
    assert status == 2
    assert 'mean action' in err


@pytest.mark.parametrize(
    ('arguments', 'text'),
    [
        (['--suite', 'unseen_layout'], "'unseen_layouts'"),
        (['--trials', 0], 'nothing to drive'),
        (['--seed', -1], 'no such trial'),
        (['--seed', 9_999_990], 'no such trial'),
        (['--policy', '/no/such/policy'], '/no/such/policy'),
        (['--control', 'image'], 'no --policy'),
        (['--control', 'mean_action'], 'no --policy'),
        (['--trials', 1, '--out', '/dev/null/x'], '--out'),
    ],
)
def test_bad_use_is_a_sentence_and_status_2(arguments, text, capsys):
    """What, got, expected, remedy."""
    status, out, err = simulate(capsys, *arguments)
    assert (status, out) == (2, '')
    assert text in err


def test_an_unknown_control_names_the_known_ones(capsys):
    """The parser's own sentence."""
    with pytest.raises(SystemExit, match='2'):
        simulate(capsys, '--control', 'sound')
    assert 'mean_action' in capsys.readouterr().err


def test_a_machine_without_gl_says_so_before_it_writes(tmp_path):
    """The packages to install, and no folder."""
    import os

    done = subprocess.run(
        [
            sys.executable,
            '-m',
            'mobile_vla_ros.cli.main',
            'simulate',
            '--trials',
            '1',
            '--out',
            tmp_path / 'out',
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, 'MUJOCO_GL': 'disabled'},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'libosmesa6' in done.stderr
    assert not (tmp_path / 'out').exists()


def test_a_run_goes_on_where_it_was_stopped(tmp_path, capsys):
    """A torn last line is dropped, whole ones are kept as they are, and the rest is driven."""
    arguments = ('--suite', 'swap', '--control', 'zero', '--out', tmp_path / 'out')
    asked(capsys, *arguments, '--trials', 2)
    log = tmp_path / 'out' / 'swap.jsonl'
    two = log.read_bytes()
    assert two.count(b'\n') == 3
    assert json.loads(two.splitlines()[0])['suites_version'] == suites.VERSION
    with log.open('ab') as file:
        file.write(two.splitlines()[2][:200])
    result = asked(capsys, *arguments, '--trials', 3)
    assert result['trials'] == 3
    whole = log.read_bytes()
    assert whole.startswith(two)
    assert [json.loads(line)['trial'] for line in whole.splitlines()[1:]] == [0, 1, 2]
    fresh = asked(capsys, '--suite', 'swap', '--control', 'zero', '--trials', 3)
    assert result == fresh, 'in pieces or at once: the same'
    # Nothing is left to do: the same again, at once.
    assert asked(capsys, *arguments, '--trials', 3) == fresh
    assert log.read_bytes() == whole


def test_a_header_that_was_not_written_to_its_end_is_written_anew(tmp_path, capsys):
    """Killed in the first moment."""
    out = tmp_path / 'out'
    out.mkdir()
    (out / 'seen.jsonl').write_text('{"format":"mobile_vla_tr')
    asked(capsys, '--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', out)
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
def test_other_trials_are_never_written_over(content, arguments, text, tmp_path, capsys):
    """Another seed, control or policy in the same folder, or a file of somebody else's."""
    out = tmp_path / 'out'
    log = out / 'seen.jsonl'
    asked(capsys, '--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', out)
    if content == 'damaged':
        log.write_bytes(log.read_bytes().replace(b'"outcome"', b'"income"'))
    elif content:
        log.write_text(content)
    before = log.read_bytes()
    status, _, err = simulate(capsys, '--suite', 'seen', '--trials', 2, '--out', out, *arguments)
    assert status == 2
    assert text in err
    assert log.read_bytes() == before


def test_another_policy_is_another_run(small_run, tmp_path, capsys):
    """The policy is known by what is in it, not by its path."""
    arguments = ('--suite', 'seen', '--control', 'zero', '--trials', 1, '--out', tmp_path / 'out')
    asked(capsys, *arguments, '--policy', small_run / 'best')
    asked(capsys, *arguments, '--policy', shutil.copytree(small_run / 'best', tmp_path / 'copy'))
    other = edited(tmp_path / 'other', small_run, data={'note': 'trained again'})
    status, _, err = simulate(capsys, *arguments, '--policy', other)
    assert status == 2
    assert 'policy ' in err


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_go_on(tmp_path):
    """Status 130, a sentence, whole lines; the same command goes on behind them."""
    out = tmp_path / 'out'
    command = [
        sys.executable,
        '-m',
        'mobile_vla_ros.cli.main',
        'simulate',
        '--suite',
        'seen',
        '--control',
        'zero',
        '--out',
        str(out),
        '--json',
        '--trials',
    ]
    process = subprocess.Popen(
        [*command, '100000'], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    log = out / 'seen.jsonl'
    until = time.monotonic() + 60
    while not (log.exists() and log.read_bytes().count(b'\n') >= 3):
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    stdout, stderr = process.communicate(timeout=60)
    assert process.returncode == 130
    assert stdout == ''
    assert 'Traceback' not in stderr
    assert f'in {out}, and the same command continues' in stderr
    kept = log.read_bytes()
    assert kept.endswith(b'\n')
    done = kept.count(b'\n') - 1
    again = subprocess.run(
        [*command, str(done + 1)], capture_output=True, text=True, timeout=60, check=False
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)['trials'] == done + 1
    assert log.read_bytes().startswith(kept)


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    """A page of 26 trials that stand still: all but those told to stop are failures."""
    out = tmp_path_factory.mktemp('page')
    assert (
        main(
            [
                'simulate',
                '--suite',
                'unseen_layouts',
                '--control',
                'zero',
                '--trials',
                '28',
                '--out',
                str(out),
                '--json',
            ]
        )
        == 0
    )
    return out / 'report.html'


def test_the_page_is_one_file_with_films_of_failures(page):
    """Headline, tasks, every drive from above, and no more films than it says."""
    text = page.read_text()
    log = [json.loads(line) for line in (page.parent / 'unseen_layouts.jsonl').open()][1:]
    failed = sum(trial['drives'][0]['outcome'] != 'success' for trial in log)
    assert failed > 24
    films = re.findall(r'<script type="application/json">(.*?)</script>', text)
    assert len(films) == 24
    assert f'24 of them can be played; the other {failed - 24} have only a map' in text
    assert text.count('<svg') == len(log)
    film = json.loads(films[0])
    assert len(film['poses']) == len(film['shown']) == len(film['times']) == 101  # 20 s at 5 Hz
    assert film['times'][-1] == 20.0
    assert len(film['images']) == 1, 'a base that stands sees the same picture'
    for outside in ('<link', 'src="http', 'href="', 'url(', 'import('):
        assert outside not in text
    assert not [path for path in page.parent.iterdir() if path.name.startswith('.')]


def test_a_moving_film_has_a_picture_for_every_fifth_of_a_second(tmp_path, capsys):
    """What the camera saw on the way, drawn again from the path."""
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
    pictures = [Image.open(io.BytesIO(picture)) for picture in film.images]
    assert {picture.size for picture in pictures} == {(160, 160)}
    assert base64.b64encode(film.images[0]) != base64.b64encode(film.images[-1])


@pytest.mark.skipif(CHROMIUM is None, reason='needs Chromium')
def test_the_player_shows_the_first_picture_and_plays(page, tmp_path):
    """The script in a browser: a link to a failure plays it to its end."""
    done = subprocess.run(
        [
            CHROMIUM,
            '--headless',
            '--no-sandbox',
            '--disable-gpu',
            '--disable-quic',
            '--no-first-run',
            '--disable-background-networking',
            '--disable-component-update',
            '--disable-sync',
            f'--user-data-dir={tmp_path}',
            '--virtual-time-budget=60000',
            '--dump-dom',
            f'{page.as_uri()}#unseen_layouts-1',
        ],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    figures = re.findall(r'<figure class="drive film".*?</figure>', done.stdout, re.DOTALL)
    assert len(figures) == 24
    for figure in figures:
        assert 'src="data:image/jpeg;base64,' in figure
        assert 'class="base" transform="translate(' in figure
    assert '>0.0 / 20.0 s</output>' in figures[0]
    assert '>20.0 / 20.0 s</output>' in figures[1]


def test_live_drives_are_summed_up_the_same_way(tmp_path, capsys, monkeypatch):
    """`--ros`: what the live nodes say comes as one record a scene; a trial of swap has two."""
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
    result = asked(
        capsys, '--ros', '--suite', 'swap', '--trials', 4, '--seed', 2, '--out', tmp_path / 'out'
    )
    assert (given['first'], given['count'], given['suite']) == (4, 8, 'swap')
    assert (result['trials'], result['success_rate'], result['collision_rate']) == (4, 0.5, 0.5)
    text = (tmp_path / 'out' / 'report.html').read_text()
    assert text.count('<svg') == 8
    assert '<script type="application/json">' not in text, 'no yaw, no picture'
    asked(
        capsys, '--ros', '--suite', 'swap', '--trials', 5, '--seed', 2, '--out', tmp_path / 'out'
    )
    assert (given['first'], given['count']) == (12, 2), 'goes on behind what is there'

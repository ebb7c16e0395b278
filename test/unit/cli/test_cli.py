"""The command line: quick help, JSON, exit statuses, and sentences instead of tracebacks."""

import json
import os
import subprocess
import sys

import pytest

from mobile_vla_ros.cli.main import build_parser, main

HEAVY = {'torch', 'transformers', 'accelerate', 'peft', 'matplotlib', 'h5py', 'cv2', 'PIL'}
HEAVY |= {'mujoco', 'rosbags', 'rclpy', 'tensorboard', 'safetensors', 'scipy', 'pandas'}
SUBCOMMANDS = ('demo', 'train', 'evaluate', 'simulate', 'replay', 'episodes', 'drill', 'bench')


def mobile_vla(*arguments, timeout=120) -> subprocess.CompletedProcess:
    """Run the command as a process."""
    return subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


def told(capsys, *arguments) -> tuple[int, str, str]:
    """Run the command in this process, which has torch already: status, output and errors."""
    try:
        status = main([*map(str, arguments)])
    except SystemExit as bad_use:  # of argparse
        status = bad_use.code
    return status, *capsys.readouterr()


@pytest.mark.parametrize(
    'arguments',
    [
        ('--help',),
        *((name, '--help') for name in SUBCOMMANDS),
        ('episodes', 'list', '--help'),
        ('bench', 'train', '--help'),
        ('train', '--data', 'x', '--out', 'y', '--epocs', '3'),
        ('train', '--data', 'x'),
        ('train', '--epochs', 'many'),
    ],
    ids=' '.join,
)
def test_help_and_mistyped_flags_import_nothing_heavy(arguments):
    """It stays quick only as long as no module imports at its top what only a run needs."""
    code = (
        'import sys\nfrom mobile_vla_ros.cli.main import main\n'
        'try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n'
        f'print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments], capture_output=True, text=True, check=True
    )
    *said, heavy = done.stderr.split('\n')[:-1]
    assert heavy == ''
    if '--help' in arguments:
        assert said == [] and 'usage: ' in done.stdout
    if '--epocs' in arguments:
        assert "Did you mean '--epochs'?" in said[0]


def test_the_trainer_s_help_names_every_setting():
    """Every field of the configuration is a flag with a description."""
    done = mobile_vla('train', '--help')
    assert done.returncode == 0
    assert 'example: mobile_vla train' in done.stdout
    for name in ('--backbone', '--lora_scope', '--config', '--piece_frames', '--epochs'):
        assert name in done.stdout


def test_help_lists_the_subcommands():
    """The subcommands and flags that users rely on."""
    text = build_parser().format_help()
    assert all(name in text for name in SUBCOMMANDS)


def test_evaluate_prints_the_fixed_json(episode_folder, capsys):
    """The baselines alone: names that scripts outside rely on."""
    status, out, err = told(capsys, 'evaluate', '--data', episode_folder, '--json')
    assert status == 0, err
    result = json.loads(out)
    assert set(result['baselines']) == {
        'zero',
        'mean_action',
        'mean_per_step',
        'mean_per_position_and_step',
        'repeat_last',
    }
    for entry in result['baselines'].values():
        assert entry['loss_arm_act'] == pytest.approx(entry['loss'] / 3)
        assert {'mae', 'rmse', 'r2', 'unit'} <= set(entry['linear_x'])
    assert 'policy' not in result


def test_evaluate_sets_a_policy_beside_the_baselines(episode_folder, small_run, capsys):
    """The table says whether the policy listens and whether it is any good."""
    status, out, err = told(
        capsys, 'evaluate', '--data', episode_folder, '--policy', small_run / 'best'
    )
    assert status == 0, err
    for text in (
        'policy, image blanked',
        'repeat_last',
        'instruction swapped',
        'image blanked',
        'better than',
    ):
        assert text in out


def test_simulate_prints_the_fixed_json(small_run):
    """At least success_rate, collision_rate and trials."""
    done = mobile_vla(
        'simulate',
        '--policy',
        small_run / 'best',
        '--suite',
        'unseen_layouts',
        '--trials',
        1,
        '--seed',
        3,
        '--json',
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result['trials'] == 1
    assert 0 <= result['success_rate'] <= 1
    assert 0 <= result['collision_rate'] <= 1
    assert result['outcomes'][0]['trial'] == 3
    assert done.stdout.count('\n') == 1, 'nothing but JSON'


def test_train_reads_a_file_and_flags_win(episode_folder, small_backbone, tmp_path):
    """`--config` gives the values, a flag changes one, and the run says where its policy is."""
    config = tmp_path / 'config.yaml'
    config.write_text(
        f'backbone: {small_backbone}\nepochs: 3\nlora_r: 2\nhead_hidden: 8\n'
        f'head_layers: 1\ndevice: cpu\ndata: {episode_folder}\n'
    )
    done = mobile_vla('train', '--config', config, '--out', tmp_path / 'out', '--epochs', 1)
    assert done.returncode == 0, done.stderr
    assert f'policy: {tmp_path / "out" / "best"}' in done.stdout
    assert len(json.loads((tmp_path / 'out' / 'history.json').read_text())) == 1


@pytest.mark.parametrize(
    ('arguments', 'expected'),
    [
        (['evaluate', '--data', '/no/such/folder'], '/no/such/folder'),
        (['evaluate', '--data', '{takes}', '--policy', '/no/such/policy'], '/no/such/policy'),
        (['evaluate', '--data', '{empty}'], 'holds no episode'),
        (['evaluate', '--data', '{takes}', '--axes', 'linear_q'], 'linear_q'),
        (['simulate', '--policy', '{empty}'], 'policy.json'),
        (['simulate', '--suite', 'unseen_layout'], "'unseen_layouts'"),
        (['simulate', '--trials', '0'], 'nothing to drive'),
        (['simulate', '--control', 'image', '--out', '{out}'], 'no --policy'),
        (['train', '--data', '{empty}', '--out', '{out}'], 'holds no episode'),
        (
            [
                'train',
                '--data',
                '{takes}',
                '--out',
                '{out}',
                '--device',
                'cpu',
                '--backbone',
                'tiny',
            ],
            'unknown backbone',
        ),
        (
            ['train', '--data', '{takes}', '--out', '{out}', '--config', '/no.yaml'],
            'no configuration',
        ),
        (
            ['train', '--config', '{typo}', '--data', '{takes}', '--out', '{out}'],
            "Did you mean 'epochs'",
        ),
        (['demo', '--takes', '1'], 'nothing to do'),
        (['evaluate', '--dada', 'x'], 'unknown arguments|required'),
    ],
)
def test_a_user_s_mistake_is_a_sentence_and_status_2(
    arguments, expected, episode_folder, tmp_path, capsys
):
    """What, got, expected, remedy; no traceback; nothing half-written."""
    empty, out, typo = tmp_path / 'empty', tmp_path / 'out', tmp_path / 'typo.yaml'
    empty.mkdir()
    typo.write_text('epoch: 3\n')
    status, said, err = told(
        capsys,
        *[
            argument.format(takes=episode_folder, empty=empty, out=out, typo=typo)
            for argument in arguments
        ],
    )
    assert status == 2, said + err
    assert any(text in err for text in expected.split('|'))
    assert 'Traceback' not in err
    assert not out.exists()


def test_the_process_ends_with_that_status(tmp_path):
    """What `main` returns is the exit status, and its sentence the whole of standard error."""
    done = mobile_vla('evaluate', '--data', tmp_path)
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('mobile_vla: error: ') and done.stderr.count('\n') == 1


def test_no_display_is_said_before_anything_starts(tmp_path):
    """A machine without GL gets the packages to install, and no half a demo."""
    done = subprocess.run(
        [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'demo', '--out', tmp_path / 'out'],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        env={**os.environ, 'MUJOCO_GL': 'disabled'},
    )
    assert done.returncode == 2, done.stdout + done.stderr
    assert 'libosmesa6' in done.stderr
    assert not (tmp_path / 'out').exists()

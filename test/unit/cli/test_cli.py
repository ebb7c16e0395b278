"""The command line: light help, JSON, exit statuses, and sentences instead of tracebacks."""

import json
import subprocess
import sys

import pytest

from command_line import SUBCOMMANDS, assert_refused_without_gl, mobile_vla, run_main
from mobile_vla_ros.cli.main import build_parser

HEAVY = {'torch', 'transformers', 'accelerate', 'peft', 'matplotlib', 'h5py', 'cv2', 'PIL'}
HEAVY |= {'mujoco', 'rosbags', 'rclpy', 'tensorboard', 'safetensors', 'scipy', 'pandas'}


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
    """Help is quick only while no module imports at its top what only a run needs."""
    code = (
        'import sys\nfrom mobile_vla_ros.cli.main import main\n'
        'try:\n    main(sys.argv[1:])\nexcept SystemExit:\n    pass\n'
        f'print(*sorted({HEAVY} & set(sys.modules)), file=sys.stderr)'
    )
    done = subprocess.run(
        [sys.executable, '-c', code, *arguments], capture_output=True, text=True, check=True
    )
    *printed, heavy = done.stderr.split('\n')[:-1]
    assert heavy == ''
    if '--help' in arguments:
        assert printed == [] and 'usage: ' in done.stdout
    if '--epocs' in arguments:
        assert "Did you mean '--epochs'?" in printed[0]


def test_the_trainer_s_help_names_every_setting():
    """Every field of the configuration is a flag with a description."""
    done = mobile_vla('train', '--help')
    assert done.returncode == 0
    assert 'example: mobile_vla train' in done.stdout
    for name in ('--backbone', '--lora_scope', '--config', '--piece_frames', '--epochs'):
        assert name in done.stdout


def test_help_lists_the_subcommands():
    """All documented ones."""
    text = build_parser().format_help()
    assert all(name in text for name in SUBCOMMANDS)


def test_evaluate_prints_the_fixed_json(episode_folder, capsys):
    """Baselines only: the documented keys, which other scripts use."""
    status, out, err = run_main(capsys, 'evaluate', '--data', episode_folder, '--json')
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


def test_evaluate_compares_a_policy_with_the_baselines(episode_folder, small_run, capsys):
    """The table shows whether the policy uses the instruction and is better."""
    status, out, err = run_main(
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


def test_simulate_prints_the_fixed_json(small_run, capfd):
    """At least success_rate, collision_rate and trials, as documented."""
    status, out, err = run_main(
        capfd,
        *('simulate', '--policy', small_run / 'best', '--suite', 'unseen_layouts'),
        *('--trials', 1, '--seed', 3, '--json'),
    )
    assert status == 0, err
    result = json.loads(out)
    assert result['trials'] == 1
    assert 0 <= result['success_rate'] <= 1
    assert 0 <= result['collision_rate'] <= 1
    assert result['outcomes'][0]['trial'] == 3
    assert out.count('\n') == 1, 'nothing but JSON'


def test_train_reads_a_file_and_flags_win(episode_folder, small_backbone, tmp_path, capsys):
    """`--config` gives the values, a flag overrides one, and the run prints its policy's path."""
    config = tmp_path / 'config.yaml'
    config.write_text(
        f'backbone: {small_backbone}\nepochs: 3\nlora_r: 2\nhead_hidden: 8\n'
        f'head_layers: 1\ndevice: cpu\ndata: {episode_folder}\n'
    )
    status, out, err = run_main(
        capsys, 'train', '--config', config, '--out', tmp_path / 'out', '--epochs', 1
    )
    assert status == 0, err
    assert f'policy: {tmp_path / "out" / "best"}' in out
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
def test_bad_use_ends_with_a_sentence_and_status_2(
    arguments, expected, episode_folder, tmp_path, capsys
):
    """No traceback, and no partial output."""
    empty, out, typo = tmp_path / 'empty', tmp_path / 'out', tmp_path / 'typo.yaml'
    empty.mkdir()
    typo.write_text('epoch: 3\n')
    status, printed, err = run_main(
        capsys,
        *[
            argument.format(takes=episode_folder, empty=empty, out=out, typo=typo)
            for argument in arguments
        ],
    )
    assert status == 2, printed + err
    assert any(text in err for text in expected.split('|'))
    assert 'Traceback' not in err
    assert not out.exists()


def test_the_process_ends_with_that_status(tmp_path):
    """The return value of `main` is the exit status; stderr has only its sentence."""
    done = mobile_vla('episodes', 'list', tmp_path / 'nothing')
    assert done.returncode == 2 and done.stdout == ''
    assert done.stderr.startswith('mobile_vla: error: ') and done.stderr.count('\n') == 1


def test_a_machine_without_gl_is_refused_before_anything_starts(tmp_path):
    """The message names the packages to install, and no part of the demo runs."""
    assert_refused_without_gl('demo', out=tmp_path / 'out')

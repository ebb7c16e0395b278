"""A stopped or killed training run resumes and ends with the same numbers."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from forked import ForkedProcess, run_forked
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.bundle import load_bundle
from mobile_vla_ros.training import optimise, run_folder, state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import TrainingStopped, train
from mobile_vla_ros.training.run_folder import RunFolder
from small_training import small_run_flags

pytestmark = pytest.mark.usefixtures('fresh_accelerate')

TIMES = ('seconds', 'waiting_share')  # columns of an epoch's row that differ in every run
SCHEDULE = {'warmup_ratio': 0.3, 'min_lr': 1e-5}
# All random features are on, so that a generator with a wrong state would change the numbers.
RANDOM = {'mirror': True, 'light': 0.2, 'colour': 0.2, 'shift': 0.05, 'balance_instructions': True}


def flags(backbone, episode_folder, out, **more) -> list[str]:
    """Return the command line of a small run."""
    defaults = {
        'epochs': 3,
        'piece_frames': 18,
        'batch_size': 2,
        'accumulate': 2,
        'save_every_min': 0,
        **SCHEDULE,
        **RANDOM,
    }
    return small_run_flags(backbone, episode_folder, out, **{**defaults, **more})


def configs(backbone, episode_folder, out, **more):
    """Return the configurations of the same run."""
    model = {'lora_r': 2, 'head_hidden': 16, 'head_layers': 1}
    train_config = {
        'epochs': 3,
        'batch_size': 2,
        'accumulate': 2,
        'piece_frames': 18,
        'learning_rate': 1e-3,
        'save_every_min': 0.0,
        **SCHEDULE,
        **more,
    }
    return (
        ModelConfig(backbone=backbone, **model),
        DataConfig(data=str(episode_folder), **RANDOM),
        TrainConfig(out=str(out), device='cpu', **train_config),
    )


def rows(out) -> list[dict]:
    """Return the history without times."""
    history = json.loads((out / 'history.json').read_text())
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


def weights(out) -> dict[str, torch.Tensor]:
    """Return every trained parameter of the last epoch."""
    return {
        **load_file(out / 'last' / 'head.safetensors'),
        **load_file(out / 'last' / 'adapter' / 'adapter_model.safetensors'),
    }


def assert_equal(out, other):
    """Assert that every number of every epoch and every weight are bitwise equal."""
    assert rows(out) == rows(other)
    first, second = weights(out), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope='module')
def whole(small_backbone, episode_folder, tmp_path_factory):
    """The folder of an uninterrupted run."""
    AcceleratorState._reset_state(reset_partial_state=True)
    out = tmp_path_factory.mktemp('whole') / 'out'
    train(*configs(small_backbone, episode_folder, out), log=lambda _: None)
    return out


def test_a_run_is_reproducible(small_backbone, episode_folder, whole, tmp_path):
    """The same command gives the same numbers, also with another number of decoding threads."""
    train(
        *configs(small_backbone, episode_folder, tmp_path / 'out', workers=0), log=lambda _: None
    )
    assert_equal(tmp_path / 'out', whole)


def test_a_run_killed_in_an_epoch_resumes_to_the_same_numbers(
    small_backbone, episode_folder, whole, tmp_path
):
    """Two SIGKILLs at different steps; no file is torn, and the result is the same."""
    out = tmp_path / 'out'
    command = ['-m', 'mobile_vla_ros.cli.main', 'train']
    command += flags(small_backbone, episode_folder, out)
    for epoch, step in ((0, 1), (2, 1)):
        with open(os.devnull, 'wb') as nowhere:
            running = ForkedProcess(command, nowhere, nowhere, {**os.environ})
            try:
                wait_for(out, running, epoch, step)
            finally:
                running.kill()
                running.wait()
        progress, _ = state.read_state(out)
        assert (progress.epoch, progress.step) >= (epoch, step)
    done = run_forked(*command)
    assert done.returncode == 0, done.stderr
    assert 'resuming in epoch' in done.stdout
    assert_equal(out, whole)
    assert not (out / state.NAME).exists()
    assert not list(out.rglob('.*'))
    assert sorted((out / 'checkpoints').iterdir()) == sorted(
        {(out / link).resolve() for link in ('best', 'last')}
    )
    assert (out / 'report.html').is_file()


def wait_for(out, running, epoch, step):
    """Wait until a run has saved this progress."""
    end = time.monotonic() + 200
    while time.monotonic() < end and running.poll() is None:
        found = state.read_state(out)
        if found and (found[0].epoch, found[0].step) >= (epoch, step):
            return
        time.sleep(0.002)
    raise AssertionError(f'the run ended or hung ({running.poll()})')


def stop_at(line: str, number=signal.SIGINT):
    """Return a `log` that sends this process a signal at the first line with this start."""

    def log(text):
        if text.strip().startswith(line):
            os.kill(os.getpid(), number)

    return log


@pytest.mark.parametrize(('number', 'steps'), [(signal.SIGINT, 7), (signal.SIGTERM, 2)])
def test_ctrl_c_saves_and_reports_how_to_resume(
    small_backbone, episode_folder, whole, tmp_path, monkeypatch, number, steps
):
    """The step is finished and saved, and the same command ends with the same numbers."""
    settings = configs(small_backbone, episode_folder, tmp_path / 'out')
    before = signal.getsignal(number)

    def step(self, *arguments):
        step.done += 1
        if step.done == steps:
            os.kill(os.getpid(), number)
        return real_step(self, *arguments)

    step.done, real_step = 0, optimise.Optimisation.step
    with monkeypatch.context() as patched:
        patched.setattr(optimise.Optimisation, 'step', step)
        with pytest.raises(TrainingStopped, match=r'after step \d+ of \d+; the same command'):
            train(*settings, log=lambda _: None)
    assert step.done == steps
    assert signal.getsignal(number) == before
    AcceleratorState._reset_state(reset_partial_state=True)
    train(*settings, log=lambda _: None)
    assert_equal(tmp_path / 'out', whole)


def test_ctrl_c_during_a_validation_stops_after_it(
    small_backbone, episode_folder, whole, tmp_path
):
    """It stops before the next epoch; the resumed run validates again to the same numbers."""
    settings = configs(small_backbone, episode_folder, tmp_path / 'out')
    with pytest.raises(TrainingStopped, match='epoch 0 after its last step; the same command'):
        train(*settings, log=stop_at('0 '))
    assert len(rows(tmp_path / 'out')) == 1
    AcceleratorState._reset_state(reset_partial_state=True)
    train(*settings, log=lambda _: None)
    assert_equal(tmp_path / 'out', whole)


def test_a_run_with_other_settings_is_not_resumed(small_backbone, episode_folder, tmp_path):
    """Every difference is named with both values; the state is kept."""
    with pytest.raises(TrainingStopped):
        train(*configs(small_backbone, episode_folder, tmp_path / 'out'), log=stop_at('0 '))
    kept = (tmp_path / 'out' / state.NAME).read_bytes()
    with pytest.raises(UserError, match=r'batch_size was 2 and is 3; epochs was 3 and is 9'):
        train(
            *configs(small_backbone, episode_folder, tmp_path / 'out', epochs=9, batch_size=3),
            log=lambda _: None,
        )
    assert (tmp_path / 'out' / state.NAME).read_bytes() == kept


def test_a_run_older_than_a_setting_is_resumed(tmp_path):
    """A missing setting counts as its default; a different value is named and refused."""
    state_of(tmp_path, {'epochs': 3})
    folder = RunFolder(tmp_path, lambda _: None, writes=False)
    assert folder.begin({'epochs': 3, 'corrections': 0.0, 'init': ''}, 1, {}).step == 5
    with pytest.raises(
        UserError,
        match=r"got corrections was 0.0 and is 10.0; init was '' and"
        " is 'runs/first/best'",
    ):
        folder.begin({'epochs': 3, 'corrections': 10.0, 'init': 'runs/first/best'}, 1, {})


def state_of(folder, settings):
    """Write the state of a run at step 5 with these settings and no weights."""
    empty = torch.nn.Module()
    empty.register_parameter('a', torch.nn.Parameter(torch.zeros(1)))
    state.save_state(
        folder, empty, torch.optim.AdamW(empty.parameters()), state.Progress(step=5), settings
    )


def test_a_finished_run_is_not_trained_over(small_backbone, episode_folder, whole):
    """Its folder is refused."""
    with pytest.raises(UserError, match='already contains a training run'):
        train(*configs(small_backbone, episode_folder, whole), log=lambda _: None)


def test_a_run_on_other_episodes_is_not_resumed(small_backbone, episode_folder, tmp_path):
    """An added or removed episode would change the split and every number."""

    mine = shutil.copytree(episode_folder, tmp_path / 'episodes')
    with pytest.raises(TrainingStopped):
        train(*configs(small_backbone, mine, tmp_path / 'out'), log=stop_at('0 '))
    next(iter(sorted(mine.glob('*.h5')))).unlink()
    with pytest.raises(UserError, match='fingerprint was'):
        train(*configs(small_backbone, mine, tmp_path / 'out'), log=lambda _: None)


def test_a_torn_state_is_reported(small_backbone, episode_folder, tmp_path):
    """A damaged state gives an error message, not a traceback."""
    settings = configs(small_backbone, episode_folder, tmp_path / 'out')
    with pytest.raises(TrainingStopped):
        train(*settings, log=stop_at('0 '))
    path = tmp_path / 'out' / state.NAME
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match='cannot read'):
        train(*settings, log=lambda _: None)


def test_a_state_is_read_while_another_process_replaces_it(tmp_path):
    """Regression: the file was opened twice, and the second one could be its successor."""
    for name, settings in (('short', {}), ('long', {'data': 'x' * 900})):
        state_of(tmp_path, settings)
        shutil.copy(tmp_path / state.NAME, tmp_path / name)
    replacing = subprocess.Popen(
        [
            sys.executable,
            '-c',
            'import os, shutil\nwhile True:\n'
            "    for name in ('short', 'long'):\n"
            f"        shutil.copy(name, 'new'); os.replace('new', '{state.NAME}')",
        ],
        cwd=tmp_path,
    )
    try:
        end = time.monotonic() + 1.5
        while time.monotonic() < end:
            progress, _ = state.read_state(tmp_path)
            assert progress.step == 5
    finally:
        replacing.kill()
        replacing.wait()


def test_a_full_disk_does_not_end_a_training(
    small_backbone, episode_folder, whole, tmp_path, monkeypatch
):
    """It is logged and the run continues; later epochs are saved again."""
    lines, real = [], state.save_file
    calls = iter(range(1000))

    def full(*args, **kwargs):
        if next(calls) < 4:
            raise OSError(28, 'No space left on device')
        return real(*args, **kwargs)

    monkeypatch.setattr(state, 'save_file', full)
    train(*configs(small_backbone, episode_folder, tmp_path / 'out'), log=lines.append)
    failures = [line for line in lines if line.startswith('not written')]
    assert len(failures) == 4 and all('MB free' in line for line in failures)
    assert_equal(tmp_path / 'out', whole)


def test_best_is_the_best_epoch_that_could_be_saved(small_run, tmp_path, monkeypatch):
    """With a full disk at the best epoch, the next best is saved, not the first."""
    loaded = load_bundle(small_run / 'best', merge=False)
    folder = RunFolder(tmp_path, lambda _: None, writes=True)
    history = []
    for epoch, loss in enumerate((0.5, 0.1, 0.11, 0.12)):
        history.append({'epoch': epoch, 'val_loss': loss})
        spec = replace(loaded.spec, metrics={'epoch': history[-1]})
        if epoch == 1:
            with monkeypatch.context() as full, pytest.raises(OSError, match='full'):
                full.setattr(
                    run_folder, 'save_bundle', lambda *_: (_ for _ in ()).throw(OSError('full'))
                )
                folder.keep(loaded.network, spec, history)
            continue
        folder.keep(loaded.network, spec, history)
    assert (tmp_path / 'best').resolve().name == 'epoch=002-val_loss=0.11000'
    assert (tmp_path / 'last').resolve().name == 'epoch=003-val_loss=0.12000'
    assert len(list((tmp_path / 'checkpoints').iterdir())) == 2


def test_partial_files_of_a_kill_are_removed_and_others_are_kept(
    small_backbone, episode_folder, tmp_path
):
    """Only files with our names are removed: --out may contain a .git, for example."""
    half = [
        tmp_path / 'out' / 'checkpoints' / '.epoch=000-val_loss=0.1.x1',
        tmp_path / 'out' / '.history.json.x2',
        tmp_path / 'out' / '.state.safetensors.partial',
    ]
    theirs = [tmp_path / 'out' / '.git' / 'HEAD', tmp_path / 'out' / '.env']
    for path in (*theirs, half[0] / 'adapter', *half[1:]):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    train(*configs(small_backbone, episode_folder, tmp_path / 'out', epochs=1), log=lambda _: None)
    assert not [path for path in half if path.exists()]
    assert all(path.is_file() for path in theirs)


def test_a_stop_without_a_saved_state_is_reported(
    small_backbone, episode_folder, tmp_path, monkeypatch
):
    """After Ctrl-C on a full disk the run resumes from the previous state."""

    def full(*_, **__):
        full.calls += 1
        if full.calls == 2:
            os.kill(os.getpid(), signal.SIGINT)
        if full.calls > 1:
            raise OSError(28, 'No space left on device')
        return real(*_, **__)

    full.calls, real = 0, state.save_file
    monkeypatch.setattr(state, 'save_file', full)
    with pytest.raises(TrainingStopped, match='could not be saved'):
        train(*configs(small_backbone, episode_folder, tmp_path / 'out'), log=lambda _: None)
    assert state.read_state(tmp_path / 'out')[0].step == 1


def test_a_failed_report_can_be_written_again(small_backbone, episode_folder, tmp_path):
    """Without training again, and without refusing the run as finished."""
    settings, made = configs(small_backbone, episode_folder, tmp_path / 'out', epochs=1), []
    with pytest.raises(OSError, match='full'):
        train(
            *settings, log=lambda _: None, report=lambda _: (_ for _ in ()).throw(OSError('full'))
        )
    AcceleratorState._reset_state(reset_partial_state=True)
    trained = train(*settings, log=lambda _: None, report=made.append)
    assert made == [trained] and len(trained.history) == 1


def test_a_nan_loss_ends_the_run_and_names_its_episodes(
    small_backbone, episode_folder, tmp_path, monkeypatch
):
    """Epoch, step and files are named; the bundle of the previous epoch is whole."""

    best = tmp_path / 'out' / 'best' / 'policy.json'

    def broken(motion, actions, real, weight=None):
        return motion.sum() * (float('nan') if best.is_file() else 0.0)

    monkeypatch.setattr(optimise, 'motion_loss_sum', broken)
    with pytest.raises(UserError, match=r'nan in epoch \d+, step \d+.*\.h5.*learning_rate'):
        train(*configs(small_backbone, episode_folder, tmp_path / 'out'), log=lambda _: None)
    assert best.is_file()


def test_a_full_disk_is_reported_before_the_first_step(
    small_backbone, episode_folder, tmp_path, monkeypatch
):
    """The error has the bytes needed and the bytes free."""
    usage = run_folder.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(run_folder.shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(
        UserError, match=r'not enough disk space for checkpoints; got 0.0 MB free.*[\d.]+ MB'
    ):
        train(*configs(small_backbone, episode_folder, tmp_path / 'out'), log=lambda _: None)

"""A training that is stopped or killed goes on as if it had not been."""

import json
import os
import signal
import subprocess
import sys
import time

import pytest
import torch
from accelerate.state import AcceleratorState
from safetensors.torch import load_file

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.training import optimise, state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.loop import train
from mobile_vla_ros.training.stop import TrainingStopped

TIMES = ('seconds', 'waiting_share')  # of an epoch's row: these differ in every run
# Everything that is random is on, so that a generator that was set back would show.
RANDOM = {'mirror': True, 'light': 0.2, 'colour': 0.2, 'shift': 0.05,
          'balance_instructions': True}


@pytest.fixture(autouse=True)
def fresh_accelerate():
    """accelerate keeps its precision for the life of a process; a test starts without one."""
    AcceleratorState._reset_state(reset_partial_state=True)


def flags(backbone, takes, out, **more) -> list[str]:
    """Return the command line of a small run."""
    told = {'backbone': backbone, 'data': takes, 'out': out, 'device': 'cpu', 'epochs': 3,
            'lora_r': 2, 'head_hidden': 16, 'head_layers': 1, 'piece_frames': 18, 'batch_size': 2,
            'accumulate': 2, 'learning_rate': 0.001, 'save_every_min': 0, **RANDOM, **more}
    return [word for name, value in told.items() for word in (f'--{name}', str(value))]


def configs(backbone, takes, out, **more):
    """Return the same run's configurations."""
    told = {'lora_r': 2, 'head_hidden': 16, 'head_layers': 1}
    train_config = {'epochs': 3, 'batch_size': 2, 'accumulate': 2, 'piece_frames': 18,
                    'learning_rate': 1e-3, 'save_every_min': 0.0, **more}
    return (ModelConfig(backbone=backbone, **told), DataConfig(data=str(takes), **RANDOM),
            TrainConfig(out=str(out), device='cpu', **train_config))


def rows(out) -> list[dict]:
    """Return the history without what a clock says."""
    history = json.loads((out / 'history.json').read_text())
    return [{name: value for name, value in row.items() if name not in TIMES} for row in history]


def weights(out) -> dict[str, torch.Tensor]:
    """Return every trained number of the last epoch."""
    return {**load_file(out / 'last' / 'head.safetensors'),
            **load_file(out / 'last' / 'adapter' / 'adapter_model.safetensors')}


def assert_equal(out, other):
    """Bit for bit: every number of every epoch, and every weight."""
    assert rows(out) == rows(other)
    first, second = weights(out), weights(other)
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


@pytest.fixture(scope='module')
def whole(small_backbone, takes, tmp_path_factory):
    """The folder of a run that nobody interrupted."""
    AcceleratorState._reset_state(reset_partial_state=True)
    out = tmp_path_factory.mktemp('whole') / 'out'
    train(*configs(small_backbone, takes, out), say=lambda _: None)
    return out


def test_a_run_repeats(small_backbone, takes, whole, tmp_path):
    """The same command gives the same numbers, also with another number of threads to decode."""
    train(*configs(small_backbone, takes, tmp_path / 'out', workers=0), say=lambda _: None)
    assert_equal(tmp_path / 'out', whole)


def test_killed_in_the_middle_of_an_epoch_it_goes_on_to_the_same_numbers(
        small_backbone, takes, whole, tmp_path):
    """SIGKILL three times, each somewhere else; no file is torn, and the end is the same."""
    out = tmp_path / 'out'
    command = [sys.executable, '-m', 'mobile_vla_ros.cli.main', 'train',
               *flags(small_backbone, takes, out)]
    for epoch, step in ((0, 1), (1, 2), (2, 1)):
        running = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            wait_for(out, running, epoch, step)
        finally:
            running.send_signal(signal.SIGKILL)
            running.wait()
        progress, _ = state.read_state(out)
        assert (progress.epoch, progress.step) >= (epoch, step)
    done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    assert 'going on in epoch' in done.stdout
    assert_equal(out, whole)
    assert not (out / state.NAME).exists()
    assert not [path for path in out.rglob('.*') if 'partial' in path.name]


def wait_for(out, running, epoch, step):
    """Wait until a run has saved that it is so far."""
    end = time.monotonic() + 200
    while time.monotonic() < end and running.poll() is None:
        found = state.read_state(out)
        if found and (found[0].epoch, found[0].step) >= (epoch, step):
            return
        time.sleep(0.002)
    raise AssertionError(f'the run ended or hung ({running.poll()})')


def stop_at(line: str, number=signal.SIGINT):
    """Return a `say` that sends this process a signal when a line begins so."""
    def say(text):
        if text.strip().startswith(line):
            os.kill(os.getpid(), number)
    return say


@pytest.mark.parametrize('number', [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_saves_and_says_how_to_go_on(small_backbone, takes, whole, tmp_path, number):
    """The step is finished, the state is kept, and the same command ends with the same numbers."""
    told = configs(small_backbone, takes, tmp_path / 'out')
    with pytest.raises(TrainingStopped, match=r'epoch 1 after step 1 of \d+; the same command'):
        train(*told, say=stop_at('0 ', number))
    assert len(rows(tmp_path / 'out')) == 1
    assert signal.getsignal(number) in (signal.default_int_handler, signal.SIG_DFL)
    AcceleratorState._reset_state(reset_partial_state=True)
    train(*told, say=lambda _: None)
    assert_equal(tmp_path / 'out', whole)


def test_a_run_that_was_told_otherwise_is_not_gone_on_with(small_backbone, takes, tmp_path):
    """Every difference is named with both values; the state stays."""
    with pytest.raises(TrainingStopped):
        train(*configs(small_backbone, takes, tmp_path / 'out'), say=stop_at('0 '))
    kept = (tmp_path / 'out' / state.NAME).read_bytes()
    with pytest.raises(UserError, match=r'batch_size was 2 and is 3; epochs was 3 and is 9'):
        train(*configs(small_backbone, takes, tmp_path / 'out', epochs=9, batch_size=3),
              say=lambda _: None)
    assert (tmp_path / 'out' / state.NAME).read_bytes() == kept


def test_a_finished_run_is_not_trained_over(small_backbone, takes, whole):
    """Its folder is refused."""
    with pytest.raises(UserError, match='holds a training run already'):
        train(*configs(small_backbone, takes, whole), say=lambda _: None)


def test_other_takes_are_not_gone_on_with(small_backbone, takes, tmp_path):
    """A take that was added or removed changes the split, and so every number."""
    import shutil
    mine = shutil.copytree(takes, tmp_path / 'takes')
    with pytest.raises(TrainingStopped):
        train(*configs(small_backbone, mine, tmp_path / 'out'), say=stop_at('0 '))
    next(iter(sorted(mine.glob('*.h5')))).unlink()
    with pytest.raises(UserError, match='fingerprint was'):
        train(*configs(small_backbone, mine, tmp_path / 'out'), say=lambda _: None)


def test_a_torn_state_is_said(small_backbone, takes, tmp_path):
    """What we write is never torn; what a disk did to it is a sentence."""
    told = configs(small_backbone, takes, tmp_path / 'out')
    with pytest.raises(TrainingStopped):
        train(*told, say=stop_at('0 '))
    path = tmp_path / 'out' / state.NAME
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(UserError, match='cannot be read'):
        train(*told, say=lambda _: None)


def test_a_full_disk_does_not_end_a_training(small_backbone, takes, whole, tmp_path, monkeypatch):
    """In the middle it is said and the run goes on; later epochs are kept again."""
    said, real = [], state.save_file
    calls = iter(range(1000))

    def full(*args, **kwargs):
        if next(calls) < 4:
            raise OSError(28, 'No space left on device')
        return real(*args, **kwargs)
    monkeypatch.setattr(state, 'save_file', full)
    train(*configs(small_backbone, takes, tmp_path / 'out'), say=said.append)
    told = [line for line in said if line.startswith('not written')]
    assert len(told) == 4 and all('MB free' in line for line in told)
    assert_equal(tmp_path / 'out', whole)


def test_a_loss_that_is_no_number_ends_with_its_takes(small_backbone, takes, tmp_path,
                                                      monkeypatch):
    """Epoch, step and files are named; the bundle of the epoch before is whole."""
    def broken(motion, actions, real, delta=1.0):
        broken.calls += 1
        return motion.sum() * (float('nan') if broken.calls > 16 else 0.0)
    broken.calls = 0
    monkeypatch.setattr(optimise, 'motion_loss_sum', broken)
    with pytest.raises(UserError, match=r'nan in epoch \d+, step \d+.*\.h5.*learning_rate'):
        train(*configs(small_backbone, takes, tmp_path / 'out'), say=lambda _: None)
    assert (tmp_path / 'out' / 'best' / 'policy.json').is_file()


def test_no_room_is_said_before_the_first_step(small_backbone, takes, tmp_path, monkeypatch):
    """With the bytes that are needed and those that are free."""
    from mobile_vla_ros.training import run_folder
    usage = run_folder.shutil.disk_usage(tmp_path)._replace(free=1000)
    monkeypatch.setattr(run_folder.shutil, 'disk_usage', lambda _: usage)
    with pytest.raises(UserError, match=r'no room for checkpoints; got 0.0 MB free.*[\d.]+ MB'):
        train(*configs(small_backbone, takes, tmp_path / 'out'), say=lambda _: None)

"""Training on several processes, in several precisions and with less memory."""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

import pytest
import torch
from accelerate.state import AcceleratorState

from device_reads import DeviceReads
from forked import ForkedProcess
from made_segments import sliding
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.model.backbone import LoraSettings, load_backbone
from mobile_vla_ros.model.network import build_network
from mobile_vla_ros.training import optimise, prepare, state
from mobile_vla_ros.training.config import DataConfig, ModelConfig, TrainConfig
from mobile_vla_ros.training.flags import parse
from mobile_vla_ros.training.loop import train
from small_backbone import without_dropout
from small_training import small_run_flags

pytestmark = pytest.mark.usefixtures('fresh_accelerate')


def flags(backbone, episode_folder, out, **more) -> list[str]:
    """Return the flags of a small run; batches of one piece keep dropout the same."""
    defaults = {'epochs': 2, 'accumulate': 4}
    return small_run_flags(backbone, episode_folder, out, **{**defaults, **more})


class Launched(subprocess.Popen):
    """`mobile_vla train` as two processes of `accelerate launch`, as in docs/training.md."""

    def __init__(self, *arguments: str):
        # --multi_gpu selects accelerate's launcher of several processes; --device cpu
        # makes them CPU processes with gloo. --cpu would start only one.
        options = (
            '--multi_gpu --num_processes 2 --num_machines 1 --mixed_precision no '
            '--dynamo_backend no --main_process_port 0'
        )
        launcher = [sys.executable, '-m', 'accelerate.commands.launch', *options.split()]
        super().__init__(
            [*launcher, '-m', 'mobile_vla_ros.cli.main', 'train', *arguments],
            env={**os.environ, 'OMP_NUM_THREADS': '1'},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def interrupt(self) -> None:
        """Send Ctrl-C, as a terminal does to all of them."""
        os.killpg(self.pid, signal.SIGINT)


class Forked:
    """`mobile_vla train` as the launcher's two processes, without the launcher."""

    def __init__(self, *arguments: str):
        with socket.create_server(('127.0.0.1', 0)) as found:
            port = str(found.getsockname()[1])
        shared = {'WORLD_SIZE': '2', 'MASTER_ADDR': '127.0.0.1', 'MASTER_PORT': port}
        self._output = tempfile.TemporaryFile()  # noqa: SIM115
        self._ranks = [
            ForkedProcess(
                ['-m', 'mobile_vla_ros.cli.main', 'train', *arguments],
                self._output,
                self._output,
                {**os.environ, **shared, 'RANK': rank, 'LOCAL_RANK': rank},
            )
            for rank in '01'
        ]

    def poll(self) -> int | None:
        """Return None while both run."""
        return next((one.poll() for one in self._ranks if one.poll() is not None), None)

    def interrupt(self) -> None:
        """Send Ctrl-C to both."""
        for one in self._ranks:
            one.send_signal(signal.SIGINT)

    def communicate(self, timeout: float) -> tuple[str, list[int]]:
        """Wait for the end of both; return their output and their statuses."""
        try:
            statuses = [one.wait(timeout) for one in self._ranks]
        finally:
            self.kill()
        return os.pread(self._output.fileno(), 1 << 24, 0).decode(), statuses

    def kill(self) -> None:
        """End both at once."""
        for one in self._ranks:
            one.kill()


def history(out) -> list[dict]:
    """Return the rows of a run's history."""
    return json.loads((out / 'history.json').read_text())


def one_process(backbone, episode_folder, out, **more) -> list[dict]:
    """Train in this process with the same settings; return the history."""
    train(*parse(flags(backbone, episode_folder, out, **more)), log=lambda _: None)
    return history(out)


def assert_near(first: list[dict], second: list[dict]):
    """Assert that all losses agree within 1e-4, over as many frames."""
    assert len(first) == len(second)
    for row, other in zip(first, second, strict=True):
        assert row['frames_encoded'] == other['frames_encoded']
        for name, value in row.items():
            if 'loss' in name:
                assert other[name] == pytest.approx(value, rel=1e-4, abs=1e-6), name


def test_two_processes_train_like_one(small_backbone, episode_folder, tmp_path):
    """With the same command: every loss within 1e-4, and one set of files."""
    settings = {'batch_size': 3, 'accumulate': 1, 'lora_dropout': 0.0, 'epochs': 1}
    small_backbone = without_dropout(small_backbone, tmp_path / 'backbone')
    output, statuses = Forked(
        *flags(small_backbone, episode_folder, tmp_path / 'two', **settings)
    ).communicate(timeout=280)
    assert statuses == [0, 0], output
    assert 'trained on 2 × cpu' in output and output.count('trainable parameters') == 1
    assert_near(
        one_process(small_backbone, episode_folder, tmp_path / 'one', **settings),
        history(tmp_path / 'two'),
    )
    assert {path.name for path in (tmp_path / 'two').iterdir()} == {
        path.name for path in (tmp_path / 'one').iterdir()
    } | {'report.html'}


@pytest.mark.parametrize('start', [Forked, pytest.param(Launched, marks=pytest.mark.exhaustive)])
def test_two_processes_stop_together_and_one_resumes(
    small_backbone, episode_folder, tmp_path, start
):
    """Ctrl-C saves the state of both; one process resumes to the same losses."""
    settings = {'save_every_min': 0}
    two = start(*flags(small_backbone, episode_folder, tmp_path / 'two', **settings))
    try:
        end = time.monotonic() + 200
        while not (found := state.read_state(tmp_path / 'two')) or found[0].step < 2:
            assert time.monotonic() < end and two.poll() is None
            time.sleep(0.01)
        two.interrupt()
        output, _ = two.communicate(timeout=120)
    finally:
        two.kill()
    assert output.count('the same command resumes from here') == 1, output
    assert not (tmp_path / 'two' / 'last').exists()
    assert_near(
        one_process(small_backbone, episode_folder, tmp_path / 'one', **settings),
        one_process(small_backbone, episode_folder, tmp_path / 'two', **settings),
    )


def test_activation_checkpointing_changes_no_number(small_backbone):
    """Less memory, the same loss and gradients, dropout included."""
    grads = []
    for saving in (False, True):
        torch.manual_seed(0)
        net = build_network(
            load_backbone(small_backbone),
            LoraSettings(r=4, dropout=0.1),
            motion_dims=2,
            chunk=3,
            hidden=16,
            layers=1,
            activation_checkpointing=saving,
        ).train()
        torch.manual_seed(1)
        pixels, ids = torch.randn(6, 3, 56, 56), torch.tensor([[4, 5, 6]])
        torch.manual_seed(2)
        motion, _ = net(pixels, ids, torch.tensor([3]), [6], torch.from_numpy(sliding(6)))
        motion.square().sum().backward()
        grads.append({name: p.grad for name, p in net.named_parameters() if p.grad is not None})
    assert grads[0].keys() == grads[1].keys()
    for name, grad in grads[0].items():
        torch.testing.assert_close(grads[1][name], grad, rtol=1e-5, atol=1e-7)


def loss_in(precision: str, weights: str, backbone, episode_folder, out) -> float:
    """Return the training loss of an epoch in a precision, with frozen weights of a type."""
    AcceleratorState._reset_state(reset_partial_state=True)
    train(
        ModelConfig(
            backbone=backbone,
            lora_r=2,
            head_hidden=16,
            head_layers=1,
            lora_dropout=0.0,
            backbone_dtype=weights,
        ),
        DataConfig(data=str(episode_folder)),
        TrainConfig(out=str(out), epochs=1, device='cpu', precision=precision),
        log=lambda _: None,
    )
    return history(out)[0]['train_loss']


@pytest.fixture(scope='module')
def float32_loss(small_backbone, episode_folder, tmp_path_factory):
    return loss_in('no', 'float32', small_backbone, episode_folder, tmp_path_factory.mktemp('32'))


@pytest.mark.parametrize(
    ('precision', 'dtype'), [('bf16', 'float32'), ('bf16', 'bfloat16'), ('no', 'bfloat16')]
)
def test_bfloat16_trains_on_a_cpu(
    float32_loss, small_backbone, episode_folder, tmp_path, precision, dtype
):
    """Mixed precision, frozen weights of half the size, or both: close to float32's loss."""
    loss = loss_in(precision, dtype, small_backbone, episode_folder, tmp_path / 'out')
    assert loss == pytest.approx(float32_loss, rel=0.05)
    assert loss != float32_loss


def test_float16_weights_without_a_scaled_loss_are_refused(monkeypatch, small_backbone):
    """On a GPU their gradients would underflow to zero."""
    monkeypatch.setattr(prepare, 'pick_device', lambda _: torch.device('cuda'))
    with pytest.raises(UserError, match=r'need a scaled loss.*--precision fp16'):
        prepare.accelerator_for(
            ModelConfig(backbone=small_backbone, backbone_dtype='float16'),
            TrainConfig(out='x', precision='bf16'),
        )


def test_no_batch_waits_for_the_gpu(small_backbone, episode_folder, tmp_path, monkeypatch):
    """However many a step has; AdamW reads its own step count, which stays on the CPU."""
    real_step, reads = optimise.Optimisation.step, {}

    def step(self, pieces, *arguments):
        with DeviceReads() as mode:
            sums = real_step(self, pieces, *arguments)
        reads.setdefault(len(self.share_of(pieces)), set()).add(mode.count)
        return sums

    monkeypatch.setattr(optimise.Optimisation, 'step', step)
    for accumulate in (1, 4):
        AcceleratorState._reset_state(reset_partial_state=True)
        train(
            ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
            DataConfig(data=str(episode_folder)),
            TrainConfig(
                out=str(tmp_path / str(accumulate)), epochs=1, accumulate=accumulate, device='cpu'
            ),
            log=lambda _: None,
        )
    assert reads[1] == reads[4] and len(reads[1]) == 1, reads


def test_training_uses_the_very_device_that_is_named(small_backbone):
    """accelerate knows the first GPU alone, so that `cuda:1` was `cuda:0`."""
    accelerator = prepare.accelerator_for(
        ModelConfig(backbone=small_backbone), TrainConfig(out='x', device='cpu:0', precision='no')
    )
    assert accelerator.device == torch.device('cpu', 0) != torch.device('cpu')


def test_precision_auto_is_resolved_before_it_is_stored():
    """A run resumes with the precision that it began in, or is refused."""
    assert prepare.with_precision(TrainConfig(out='x', device='cpu')).precision == 'no'
    named = TrainConfig(out='x', device='cpu', precision='bf16')
    assert prepare.with_precision(named) is named


@pytest.mark.parametrize(('precision', 'dtype'), [('fp16', 'float32'), ('no', 'float16')])
def test_float16_on_a_cpu_is_refused(small_backbone, episode_folder, tmp_path, precision, dtype):
    """The error names the precisions that a CPU supports."""
    with pytest.raises(UserError, match='Use --precision bf16, or a GPU'):
        train(
            ModelConfig(backbone=small_backbone, backbone_dtype=dtype),
            DataConfig(data=str(episode_folder)),
            TrainConfig(out=str(tmp_path / 'out'), device='cpu', precision=precision),
            log=lambda _: None,
        )
    assert not (tmp_path / 'out').exists()


def test_a_device_with_too_little_memory_is_reported(
    small_backbone, episode_folder, tmp_path, monkeypatch
):
    """The error names the flags that save memory."""

    def full(*_, **__):
        raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 2.00 GiB')

    monkeypatch.setattr(optimise, 'motion_loss_sum', full)
    with pytest.raises(UserError, match=r'Tried to allocate 2.00 GiB.*--activation_checkpointing'):
        train(
            ModelConfig(backbone=small_backbone, lora_r=2, head_hidden=16, head_layers=1),
            DataConfig(data=str(episode_folder)),
            TrainConfig(out=str(tmp_path / 'out'), device='cpu'),
            log=lambda _: None,
        )

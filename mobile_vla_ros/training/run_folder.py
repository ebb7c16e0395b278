"""The folder of a run: what a person reads, what driving loads, and what a resumed run needs."""

import contextlib
import json
import math
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
import yaml

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import disk_full_error, replaced
from mobile_vla_ros.model.bundle import save_bundle
from mobile_vla_ros.model.golden import Golden
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import defaults
from mobile_vla_ros.training.state import Progress

# A run writes at most so many times its trained numbers at once: the best bundle, the last, the
# new one; the state (with AdamW's two moments) before and after.
ROOM_FACTOR = 3 + 2 * 3

# Names of what is not finished: of `files.replaced`, of the state, of bundles and links.
PARTIALS = (
    '.config.yaml.*',
    '.history.json.*',
    '.report.html.*',
    f'.{state.NAME}.*',
    '.best.new',
    '.last.new',
    'checkpoints/.epoch=*',
)


class RunFolder:
    """
    `config.yaml`, `history.json`, `train.log`, `tensorboard/`, `checkpoints/`, the links `best`
    and `last`, and `state.safetensors` until the run is finished.

    :param writes: whether this process does; of several, one.
    """

    def __init__(self, path: Path, say: Callable[[str], None], *, writes: bool):
        self.path = path
        self.writes = writes
        self._say = say
        self._early: list[str] | None = []  # said before there is a folder
        self._board = None
        self._lock: int | None = None

    def refuse_finished(self) -> None:
        """Raise UserError when the folder is none, or holds a run that cannot be gone on with."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'{self.path} is no folder', expected='a new folder for --out')
        ended = (self.path / 'history.json').exists() or any(self.path.glob('checkpoints/epoch=*'))
        if ended and not (self.path / state.NAME).exists():
            raise UserError(
                f'{self.path} holds a training run already',
                got='a finished one, or one without its state',
                expected='a new folder, or one to go on in',
            )

    def begin(self, told: dict, trained_bytes: int, config: dict) -> Progress | None:
        """
        Return the progress of an interrupted run to go on from, or make the folder for a new one.

        :param told: everything that the numbers depend on.
        :param trained_bytes: size of all parameters that are trained.
        :param config: every setting by name, for `config.yaml`.
        :raises UserError: when the run was told something else, or there is no room on the disk.
        """
        if self.writes:
            self._take()
            self._sweep()
        found = state.read_state(self.path)
        if found is None:
            self._make(trained_bytes, config)
            return None
        self._flush_log()
        progress, told_then = found
        # A setting that came later was, in a run of before it, what it is when nobody gives it.
        told_then = {
            **{name: value for name, value in defaults().items() if name in told},
            **told_then,
        }
        other = [
            f'{name} was {told_then.get(name)!r} and is {told.get(name)!r}'
            for name in sorted(set(told) | set(told_then))
            if told.get(name) != told_then.get(name)
        ]
        if other:
            raise UserError(
                f'{self.path} holds an interrupted run that was told otherwise',
                got='; '.join(other),
                expected='the same command and takes',
                remedy='give them to go on, or train into a new folder',
            )
        return progress

    def _take(self) -> None:
        """Make the folder, and keep other trainings out of it for as long as this one lives."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise UserError(
                f'{self.path} cannot be made',
                got=error.strerror,
                expected='a place for --out that can be written',
            ) from None
        try:
            file_lock.claim(self._lock)
        except BlockingIOError:
            raise UserError(
                f'another training writes into {self.path} at the moment',
                expected='a folder of its own for each',
                remedy='wait for it, or choose another --out',
            ) from None
        except OSError:  # a file system without locks
            return

    def _sweep(self) -> None:
        """Remove what a killed process was in the middle of writing, and nothing else."""
        for partial in (found for name in PARTIALS for found in self.path.glob(name)):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)

    def _make(self, trained_bytes: int, config: dict) -> None:
        if not self.writes:
            return
        needed = ROOM_FACTOR * trained_bytes
        if shutil.disk_usage(self.path).free < needed:
            raise disk_full_error('checkpoints', self.path, needed)
        with replaced(self.path / 'config.yaml') as file:
            yaml.safe_dump(config, file, sort_keys=False)
        self._flush_log()

    def say(self, text: str) -> None:
        """Print a line, and keep it in `train.log`."""
        if not self.writes:
            return
        self._say(text)
        if self._early is not None:
            self._early.append(text)
        else:
            self._log([text])

    def _flush_log(self) -> None:
        """There is a folder from now on."""
        lines, self._early = self._early, None
        if self.writes:
            self._log(lines)

    def _log(self, lines: Sequence[str]) -> None:
        with contextlib.suppress(OSError), (self.path / 'train.log').open('a') as log:
            log.writelines(f'{line}\n' for line in lines)

    def save_state(
        self, network: VlaNetwork, optimizer: torch.optim.Optimizer, progress: Progress, told: dict
    ) -> bool:
        """Write the state; where it cannot be, say why and return False."""
        return not self.writes or self.without_dying(
            lambda: state.save_state(self.path, network, optimizer, progress, told)
        )

    def keep(
        self,
        network: VlaNetwork,
        spec: PolicySpec,
        history: Sequence[dict],
        golden: Golden | None = None,
    ) -> None:
        """
        Write the newest epoch's bundle, point `last` and perhaps `best` at it, drop the others.

        :param golden: what this network says of a window.
        :raises UserError: when there is no room; nothing that was there is lost.
        """
        row = history[-1]
        name = f'epoch={row["epoch"]:03d}-val_loss={row["val_loss"]:.5f}'
        folder = self.path / 'checkpoints' / name
        if not folder.exists():  # a resumed run has made it before
            save_bundle(folder, network, spec, golden)
        point(self.path / 'last', folder)
        # Not the best of the history: there may have been no room for that one.
        if row['val_loss'] < _val_loss(self.path / 'best'):
            point(self.path / 'best', folder)
        kept = {(self.path / link).resolve() for link in ('best', 'last')}
        for other in folder.parent.iterdir():
            if other.resolve() not in kept:
                shutil.rmtree(other, ignore_errors=True)

    def write_history(self, history: Sequence[dict], blind: dict[str, dict]) -> None:
        """Write the table of epochs, and the newest one for TensorBoard beside the baselines."""
        from torch.utils.tensorboard import SummaryWriter

        with replaced(self.path / 'history.json') as file:
            file.write(json.dumps(list(history), indent=2) + '\n')
        row = history[-1]
        if self._board is None:
            self._board = SummaryWriter(self.path / 'tensorboard', purge_step=row['epoch'])
        for name, value in row.items():
            if isinstance(value, int | float) and name != 'epoch':
                self._board.add_scalar(name, value, row['epoch'])
        for name, entry in blind.items():
            self._board.add_scalar(
                f'val_loss_arm_act of {name}', entry['loss_arm_act'], row['epoch']
            )
        self._board.flush()

    def finish(self) -> None:
        """Close what is open, and drop the state: there is nothing to go on with."""
        if self._board is not None:
            self._board.close()
        if self.writes:
            (self.path / state.NAME).unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Let others into the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def without_dying(self, write: Callable[[], None]) -> bool:
        """Write something; when it cannot be, say why and return False."""
        try:
            write()
        except (UserError, OSError) as error:
            self.say(f'not written: {error}')
            return False
        return True


def _val_loss(bundle: Path) -> float:
    """Return the validation loss of a bundle's epoch; without a bundle, any is lower."""
    if not bundle.exists():
        return math.inf
    return read_spec(bundle).metrics['epoch']['val_loss']


def point(link: Path, target: Path) -> None:
    """Point a link at a folder, in one step."""
    partial = link.with_name(f'.{link.name}.new')
    partial.unlink(missing_ok=True)
    partial.symlink_to(os.path.relpath(target, link.parent))
    partial.replace(link)

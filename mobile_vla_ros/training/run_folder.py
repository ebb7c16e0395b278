"""The folder of a training run: its log, history, bundles, and the state to resume from."""

import contextlib
import errno
import json
import math
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
import yaml

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.files import disk_full_error, replaced
from mobile_vla_ros.model.builtin import bundle_folder
from mobile_vla_ros.model.bundle import save_bundle
from mobile_vla_ros.model.golden import Golden
from mobile_vla_ros.model.network import VlaNetwork
from mobile_vla_ros.model.policy_spec import PolicySpec, read_spec
from mobile_vla_ros.training import state
from mobile_vla_ros.training.config import defaults
from mobile_vla_ros.training.state import Progress

# Copies of the trainable parameters on the disk at once: the best, the last and the new bundle,
# and the old and the new state (each with AdamW's two moments).
ROOM_FACTOR = 3 + 2 * 3

# Unfinished files and folders: from `files.replaced`, of the state, of bundles and links.
PARTIALS = (
    '.config.yaml.*',
    '.history.json.*',
    '.report.html.*',
    f'.{state.NAME}.*',
    '.best.new',
    '.last.new',
    'checkpoints/.epoch=*',
)


# Errors of file systems without symbolic links.
NO_LINKS = (errno.EPERM, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)


class RunFolder:
    """
    `config.yaml`, `history.json`, `train.log`, `tensorboard/`, `checkpoints/`, the links `best`
    and `last`, and `state.safetensors` until the training run is finished.

    :param log: called with every line of the log.
    :param writes: whether this process writes; True in only one of several.
    """

    def __init__(self, path: Path, log: Callable[[str], None], *, writes: bool):
        self.path = path
        self.writes = writes
        self._log_line = log
        self._early: list[str] | None = []  # lines logged before the folder exists
        self._board: Any = None
        self._lock: int | None = None

    def refuse_finished(self) -> None:
        """Raise UserError if the path is not a folder, or has a run that cannot be resumed."""
        if self.path.exists() and not self.path.is_dir():
            raise UserError(f'{self.path} is not a folder', expected='a new folder for --out')
        ended = (self.path / 'history.json').exists() or any(self.path.glob('checkpoints/epoch=*'))
        if ended and not (self.path / state.NAME).exists():
            raise UserError(
                f'{self.path} already contains a training run',
                got='a finished one, or one without its state',
                expected='a new folder, or one to resume in',
            )

    def begin(
        self, settings: Mapping[str, Any], trained_bytes: int, config: Mapping[str, Any]
    ) -> Progress | None:
        """
        Return the progress of the interrupted run to resume, or create the folder of a new one.

        :param settings: everything that the numbers depend on.
        :param trained_bytes: size of all trainable parameters.
        :param config: all settings by name, for `config.yaml`.
        :raises UserError: when the interrupted run has different settings, or the disk is full.
        """
        if self.writes:
            self._claim()
            self._sweep()
        found = state.read_state(self.path)
        if found is None:
            self._create(trained_bytes, config)
            return None
        self._flush_log()
        progress, before = found
        # A setting that did not exist when the run started had its default value.
        before = {
            **{name: value for name, value in defaults().items() if name in settings},
            **before,
        }
        changed = [
            f'{name} was {before.get(name)!r} and is {settings.get(name)!r}'
            for name in sorted({*settings, *before})
            if settings.get(name) != before.get(name)
        ]
        if changed:
            raise UserError(
                f'{self.path} contains an interrupted run started with different settings',
                got='; '.join(changed),
                expected='the same command and episodes',
                remedy='use the same ones to resume, or train into a new folder',
            )
        return progress

    def _claim(self) -> None:
        """Create the folder, and lock it against other training runs until `release`."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(self.path, os.O_RDONLY)
        except OSError as error:
            raise UserError(
                f'cannot create {self.path}',
                got=error.strerror,
                expected='a writable place for --out',
            ) from None
        try:
            file_lock.claim(self._lock)
        except BlockingIOError:
            raise UserError(
                f'another training run is writing into {self.path}',
                expected='a folder of its own for each',
                remedy='wait for it, or choose another --out',
            ) from None
        except OSError:  # a file system without locks
            return

    def _sweep(self) -> None:
        """Remove files and folders that a killed process left unfinished."""
        for partial in (found for name in PARTIALS for found in self.path.glob(name)):
            if partial.is_dir() and not partial.is_symlink():
                shutil.rmtree(partial, ignore_errors=True)
            else:
                partial.unlink(missing_ok=True)

    def _create(self, trained_bytes: int, config: Mapping[str, Any]) -> None:
        if not self.writes:
            return
        needed = ROOM_FACTOR * trained_bytes
        if shutil.disk_usage(self.path).free < needed:
            raise disk_full_error('checkpoints', self.path, needed)
        with replaced(self.path / 'config.yaml') as file:
            yaml.safe_dump(dict(config), file, sort_keys=False)
        self._flush_log()
        probe = self.path / '.last.new'
        point(probe, self.path)
        if not probe.is_symlink():
            self.log('this disk has no links: best and last will be files that name a folder')
        probe.unlink()

    def log(self, text: str) -> None:
        """Log a line, on the terminal and in `train.log`."""
        if not self.writes:
            return
        self._log_line(text)
        if self._early is not None:
            self._early.append(text)
        else:
            self._append([text])

    def _flush_log(self) -> None:
        """Write the lines that were logged before the folder existed."""
        lines, self._early = self._early or [], None
        if self.writes:
            self._append(lines)

    def _append(self, lines: Sequence[str]) -> None:
        with contextlib.suppress(OSError), (self.path / 'train.log').open('a') as log:
            log.writelines(f'{line}\n' for line in lines)

    def save_state(
        self,
        network: VlaNetwork,
        optimizer: torch.optim.Optimizer,
        progress: Progress,
        settings: Mapping[str, Any],
    ) -> bool:
        """Write the state; on failure log the reason and return False."""
        return not self.writes or self.try_write(
            lambda: state.save_state(self.path, network, optimizer, progress, settings)
        )

    def keep(
        self,
        network: VlaNetwork,
        spec: PolicySpec,
        history: Sequence[dict[str, Any]],
        golden: Golden | None = None,
    ) -> None:
        """
        Write the newest epoch's bundle, update the links `last` and `best`, remove other bundles.

        :param golden: this network's output for a window.
        :raises UserError: when the disk is full; the existing bundles are kept then.
        """
        row = history[-1]
        name = f'epoch={row["epoch"]:03d}-val_loss={row["val_loss"]:.5f}'
        folder = self.path / 'checkpoints' / name
        if not folder.exists():  # a resumed run may have written it before
            save_bundle(folder, network, spec, golden)
        point(self.path / 'last', folder)
        # Compared with the bundle, not the history: the disk may have been full at the best epoch.
        if row['val_loss'] < _val_loss(self.path / 'best'):
            point(self.path / 'best', folder)
        kept = {bundle_folder(self.path / link).resolve() for link in ('best', 'last')}
        for other in folder.parent.iterdir():
            if other.resolve() not in kept:
                shutil.rmtree(other, ignore_errors=True)

    def write_history(
        self, history: Sequence[dict[str, Any]], blind: Mapping[str, Mapping[str, Any]]
    ) -> None:
        """
        Write the history, and its newest epoch for TensorBoard.

        :param blind: metrics of the baselines, by name.
        """
        with replaced(self.path / 'history.json') as file:
            file.write(json.dumps(list(history), indent=2) + '\n')
        row = history[-1]
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            if len(history) == 1:
                self.log('tensorboard is not installed: history.json alone has the losses')
            return
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
        """Close TensorBoard's file, and remove the state: there is nothing left to resume."""
        if self._board is not None:
            self._board.close()
        if self.writes:
            (self.path / state.NAME).unlink(missing_ok=True)
            self.release()

    def release(self) -> None:
        """Unlock the folder."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def try_write(self, write: Callable[[], None]) -> bool:
        """Call a function that writes; on failure log the reason and return False."""
        try:
            write()
        except (UserError, OSError) as error:
            self.log(f'not written: {error}')
            return False
        return True


def _val_loss(bundle: Path) -> float:
    """Return the validation loss of a bundle's epoch; inf without a bundle."""
    if not bundle_folder(bundle).is_dir():
        return math.inf
    return float(read_spec(bundle).metrics['epoch']['val_loss'])


def point(link: Path, target: Path) -> None:
    """
    Point a link at a folder, atomically.

    On a disk without links (exFAT) it is a file that names the folder (`builtin.bundle_folder`).
    """
    name = os.path.relpath(target, link.parent)
    partial = link.with_name(f'.{link.name}.new')
    partial.unlink(missing_ok=True)
    try:
        partial.symlink_to(name)
    except OSError as error:
        if error.errno not in NO_LINKS:
            raise
        with replaced(link) as file:
            file.write(f'{name}\n')
    else:
        partial.replace(link)

"""Trials on disk, one line of JSON each, so that an interrupted run can continue."""

import contextlib
import json
import os
from pathlib import Path

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.trials import Trial

FORMAT = 'mobile_vla_trials'
ADDED = ('precision', 'backbone')  # absent in older logs
START = f'{{"format":"{FORMAT}"'.encode()


class TrialLog(contextlib.AbstractContextManager):
    """
    A file with a header line that describes the drives, then a line for each finished trial.

    An incomplete last line (of a run killed while writing) is dropped.

    :param header: plain values that describe the drives; ``seed`` is the first trial.
    :raises UserError: if the file contains other trials, is damaged, or is being written.
    """

    def __init__(self, path: Path, header: dict):
        self.path = path
        self.header = {'format': FORMAT, **header}
        try:
            self._file = open(path, 'a+b')  # noqa: SIM115
        except OSError as error:
            raise UserError(f'cannot write {path}', got=error.strerror) from error
        try:
            file_lock.claim(self._file)
            self.trials = self._read()
        except BlockingIOError as error:
            self._file.close()
            raise UserError(
                f'{path} is being written by another run',
                remedy='wait for it, or use another --out',
            ) from error
        except UserError:
            self._file.close()
            raise

    def _read(self) -> list[Trial]:
        self._file.seek(0)
        text = self._file.read()
        whole = text[: text.rfind(b'\n') + 1]
        lines = whole.splitlines()
        if text:
            self._compare(lines[0] if lines else text)
        trials = [self._trial(number, line) for number, line in enumerate(lines[1:])]
        self._file.truncate(len(whole))
        return trials

    def _compare(self, line: bytes) -> None:
        if not line.endswith(b'}') and START.startswith(line[: len(START)]):
            return  # an incomplete header
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get('format') != FORMAT:
            raise UserError(f'{self.path} is not a log of trials', remedy='use another --out')
        # As JSON reads it back: a tuple becomes a list.
        wanted = json.loads(json.dumps(self.header))
        found = {**{name: wanted[name] for name in ADDED if name in wanted}, **found}
        other = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        if other:
            raise UserError(
                f'{self.path} contains trials of other settings',
                got=', '.join(f'{name} {_short(found.get(name))}' for name in other),
                expected=', '.join(f'{name} {_short(wanted.get(name))}' for name in other),
                remedy='use another --out',
            )

    def _trial(self, place: int, line: bytes) -> Trial:
        try:
            trial = Trial.from_json(json.loads(line))
            if trial.number != self.header['seed'] + place:
                raise ValueError(f'trial {trial.number}')
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'line {place + 2} of {self.path} is damaged',
                got=str(error),
                remedy='delete this line and all after it, or use another --out',
            ) from error
        return trial

    def add(self, trial: Trial) -> None:
        """Append a finished trial and flush it to the file."""
        if os.fstat(self._file.fileno()).st_size == 0:
            self._write(self.header)
        self._write(trial.to_json())
        self.trials.append(trial)

    def _write(self, content: dict) -> None:
        self._file.write(json.dumps(content, separators=(',', ':')).encode() + b'\n')
        self._file.flush()

    def __exit__(self, *_):
        self._file.close()


def _short(value: object) -> str:
    text = 'none' if value is None else str(value)
    return text if len(text) <= 16 else text[:12] + '…'

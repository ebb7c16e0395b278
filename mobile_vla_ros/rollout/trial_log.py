"""Trials on disk: one line of JSON each, so that a run that was stopped can go on."""

import contextlib
import json
import os
from pathlib import Path

from mobile_vla_ros import file_lock
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.rollout.trials import Drive, Trial

FORMAT = 'mobile_vla_trials'
START = f'{{"format":"{FORMAT}"'.encode()


class TrialLog(contextlib.AbstractContextManager):
    """
    A file whose first line says what is driven, and every other line one finished trial.

    A last line without its end (a run that was killed while it wrote) is dropped.

    :param header: what is driven: plain values; ``seed`` is the number of the first trial.
    :raises UserError: when the file holds other trials, is damaged, or is being written.
    """

    def __init__(self, path: Path, header: dict):
        self.path = path
        self.header = {'format': FORMAT, **header}
        try:
            self._file = open(path, 'a+b')  # noqa: SIM115
        except OSError as error:
            raise UserError(f'{path} cannot be written', got=error.strerror) from error
        try:
            file_lock.claim(self._file)
            self.trials = self._read()
        except BlockingIOError as error:
            self._file.close()
            raise UserError(
                f'{path} is being written by another run',
                remedy='wait for it, or give another --out',
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
            return  # a header that was not written to its end
        try:
            found = json.loads(line)
        except ValueError:
            found = None
        if not isinstance(found, dict) or found.get('format') != FORMAT:
            raise UserError(f'{self.path} is no list of trials', remedy='give another --out')
        # As it will be read back: a tuple is a list in JSON.
        wanted = json.loads(json.dumps(self.header))
        other = [name for name in {**wanted, **found} if wanted.get(name) != found.get(name)]
        if other:
            raise UserError(
                f'{self.path} holds trials of another kind',
                got=', '.join(f'{name} {_short(found.get(name))}' for name in other),
                expected=', '.join(f'{name} {_short(wanted.get(name))}' for name in other),
                remedy='give another --out',
            )

    def _trial(self, place: int, line: bytes) -> Trial:
        try:
            content = json.loads(line)
            trial = Trial(content['trial'], tuple(map(Drive.from_json, content['drives'])))
            if trial.number != self.header['seed'] + place:
                raise ValueError(f'trial {trial.number}')
        except (ValueError, KeyError, TypeError) as error:
            raise UserError(
                f'line {place + 2} of {self.path} is damaged',
                got=str(error),
                remedy='delete that line and what follows, or give another --out',
            ) from error
        return trial

    def add(self, trial: Trial) -> None:
        """Append a finished trial; it is in the file when this returns."""
        if os.fstat(self._file.fileno()).st_size == 0:
            self._write(self.header)
        self._write({'trial': trial.number, 'drives': [drive.to_json() for drive in trial.drives]})
        self.trials.append(trial)

    def _write(self, content: dict) -> None:
        self._file.write(json.dumps(content, separators=(',', ':')).encode() + b'\n')
        self._file.flush()

    def __exit__(self, *_):
        self._file.close()


def _short(value: object) -> str:
    text = 'none' if value is None else str(value)
    return text if len(text) <= 16 else text[:12] + '…'

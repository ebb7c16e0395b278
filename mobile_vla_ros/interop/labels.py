"""Instruction and outcome of each source: from a table, or from its name."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from mobile_vla_ros.episode.catalog.edit import MAX_NAMED, read_table
from mobile_vla_ros.episode.storage.schema import OUTCOMES, check_outcome
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.importers import bare

INSTRUCTION, OUTCOME = 'instruction', 'outcome'
PARTS = {
    f'{{{INSTRUCTION}}}': f'(?P<{INSTRUCTION}>.+)',
    f'{{{OUTCOME}}}': f'(?P<{OUTCOME}>{"|".join(OUTCOMES)})',
    '{}': '.*?',
}


class Labels:
    """
    What a table or a pattern says of each source.

    :param text: path of a table as ``edit.read_table`` reads it, whose files are named as seen
        from its folder, with or without their suffix and with the key of an episode behind; or a
        pattern of file names without their suffix, such as ``{instruction}_{outcome}_{}``,
        whose instruction is as long as it can be; '': neither.
    :raises UserError: when it is neither.
    """

    def __init__(self, text: str) -> None:
        self._pattern: re.Pattern[str] | None = None
        self._rows: dict[Path, dict[str, str]] = {}
        if '{' in text:
            parts = [PARTS.get(one, re.escape(one)) for one in re.split(r'(\{\w*\})', text)]
            try:
                self._pattern = re.compile(''.join(parts))
            except re.error as error:  # a part that is there twice
                raise UserError(f'labels cannot be read so: {text}', got=error) from None
            if not self._pattern.groups:
                raise UserError(
                    f'labels cannot be read so: {text}', expected=' and '.join([*PARTS][:2])
                )
        elif text:
            table = Path(text).expanduser()
            for name, values in read_table(table):
                check_outcome(values.get(OUTCOME) or OUTCOMES[0])
                self._rows[_absolute(table.parent / name)] = values

    def check(self, sources: Iterable[Path]) -> None:
        """Raise UserError for a row of the table that names none of the sources."""
        known = {one for path in map(_absolute, sources) for one in (path, bare(path))}
        missing = [one for one in self._rows if known.isdisjoint((one, *one.parents))]
        if missing:
            more = f' and {len(missing) - MAX_NAMED} more' if len(missing) > MAX_NAMED else ''
            raise UserError(
                'the table of labels names files that are not imported; nothing was imported',
                got=', '.join(map(str, missing[:MAX_NAMED])) + more,
                expected='files and folders among the sources, as seen from its folder',
            )

    def unknown(self, source: Path, keys: Iterable[str]) -> list[Path]:
        """Return the rows of the table that name an episode of a source which it has not."""
        path = _absolute(source)
        places = [path] if bare(path).is_dir() else [path, bare(path)]
        known = {one / key for one in places for key in ('', *keys)}
        return [one for one in self._rows if one not in known and {*places} & {*one.parents}]

    def of(self, source: Path, key: str) -> dict[str, str]:
        """
        Return the instruction and the outcome of an episode, as far as they are said.

        :raises UserError: when the name of the source does not fit the pattern.
        """
        if self._pattern is None:
            path = _absolute(source)
            names = (path, bare(path), path / key, bare(path) / key)
            found = [self._rows.get(one, {}) for one in names]
            return {name: value for row in found for name, value in row.items() if value.strip()}
        match = self._pattern.fullmatch(bare(source).name)
        if match is None:
            raise UserError('its name does not fit the pattern of the labels', got=source.name)
        values = match.groupdict()
        if INSTRUCTION in values:
            values[INSTRUCTION] = re.sub(r'[_\s-]+', ' ', values[INSTRUCTION]).strip()
        return values


def _absolute(path: Path) -> Path:
    return Path(os.path.abspath(path))  # without `..`, as the table's

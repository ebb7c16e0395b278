"""Text of strangers on terminals and in tables: names, instructions, anything from a file."""

import re
from typing import Any, TextIO

FORMULA = ('=', '+', '-', '@', '\t', '\r')
NUMBER = re.compile(r'[-+]?[0-9.]+(e[-+]?[0-9]+)?|[-+]?(nan|inf)')


def plain(text: str, kept: str = '') -> str:
    """Replace control characters (of which a terminal obeys some) by question marks."""
    return ''.join(c if c.isprintable() or c in kept else '?' for c in text)


def cell(value: object) -> object:
    """Return a table's value; text that a spreadsheet would compute begins with an apostrophe."""
    if isinstance(value, str) and value.startswith(FORMULA) and not NUMBER.fullmatch(value):
        return f"'{value}"
    return value


class PlainStream:
    """
    A text stream that passes printable characters alone.

    :param kept: control characters that pass too.
    """

    def __init__(self, stream: TextIO, kept: str):
        self._stream, self._kept = stream, kept

    def write(self, text: str) -> int:
        """Write text without control characters; return the number of characters given."""
        self._stream.write(plain(text, self._kept))
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

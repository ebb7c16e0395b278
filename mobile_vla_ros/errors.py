"""The one exception that users see, its message, and the end by a signal."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """
    A mistake that the user can fix: bad input, a missing file, an absent device.

    Commands and nodes print its message and exit with status 2; any other exception is a defect
    of this package and keeps its traceback.

    :param what: what happened, without a full stop; also an attribute.
    :param got: the value found.
    :param expected: a value that would have been right.
    :param remedy: what the user can do.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, remedy: str | None = None
    ) -> None:
        self.what = what
        parts = [what]
        if got is not None:
            parts.append(f'got {got}')
        if expected is not None:
            parts.append(f'expected {expected}')
        sentence = '; '.join(parts) + '.'
        if remedy:
            end = '' if remedy.endswith('?') else '.'
            sentence += f' {remedy[0].upper()}{remedy[1:].rstrip(".")}{end}'
        super().__init__(sentence)


class Left(SystemExit):
    """The end by a signal, of a load say: no mistake of what is loaded."""


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a remedy that names the closest known word, or None when none is close."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'did you mean {near[0]!r}?' if near else None


def first_line(error: BaseException) -> str:
    """Return the first line of an exception's message, or its type where it has no message."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

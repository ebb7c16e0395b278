"""The one exception that a user may see, and the sentence it turns into."""

import difflib
from collections.abc import Iterable


class UserError(Exception):
    """
    A mistake that a person can mend: bad input, a missing file, a device that is not there.

    Commands and nodes print it as one sentence and exit with status 2; anything else that is
    raised is a defect of ours and keeps its traceback.

    :param what: what went wrong, without a full stop.
    :param got: what was found.
    :param expected: what would have been right.
    :param remedy: what the person can do about it.
    """

    def __init__(
        self, what: str, *, got: object = None, expected: object = None, remedy: str | None = None
    ):
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


def did_you_mean(name: str, known: Iterable[str]) -> str | None:
    """Return a remedy that names the nearest known word, or None when nothing is near."""
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f'did you mean {near[0]!r}?' if near else None


def first_line(error: Exception) -> str:
    """Return the first line of what a library says of a failure, its kind where it says none."""
    return (str(error).strip().splitlines() or [type(error).__name__])[0]

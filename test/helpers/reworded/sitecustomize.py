"""Reword every sentence that guard and inference publish (`test_rewording.py`)."""

import functools

from mobile_vla_ros.safety import status
from mobile_vla_ros.types import Check


def reworded(sentence: str) -> str:
    """Return another sentence; '' stays ''."""
    return f'<{sentence[::-1]}>' if sentence else ''


def _in_values(values):
    @functools.wraps(values)
    def wrapped(self):
        found = values(self)
        return {**found, 'reason': reworded(found['reason'])}

    return wrapped


def _in_arguments(init, *places):
    @functools.wraps(init)
    def wrapped(self, *args, **named):
        args = [reworded(one) if place in places else one for place, one in enumerate(args)]
        for name in ('sentence', 'remedy'):
            if name in named:
                named[name] = reworded(named[name])
        init(self, *args, **named)

    return wrapped


status.GuardStatus.values = _in_values(status.GuardStatus.values)
status.Health.__init__ = _in_arguments(status.Health.__init__, 2)
Check.__init__ = _in_arguments(Check.__init__, 2, 3)

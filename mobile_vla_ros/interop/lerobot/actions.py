"""Which value of an `action` is which axis of a command."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from mobile_vla_ros.errors import UserError
from mobile_vla_ros.interop.lerobot.layout import AXIS_NAMES
from mobile_vla_ros.interop.source import axes_of
from mobile_vla_ros.types import TWIST_AXES

# Known names: ours, those of LeKiwi, and those of EarthRover.
KNOWN = {
    **{axis: axis for axis in TWIST_AXES},
    **{name: axis for axis, name in AXIS_NAMES.items()},
    **dict.fromkeys(('linear_velocity', 'linear.vel'), 'linear_x'),
    **dict.fromkeys(('angular_velocity', 'angular.vel'), 'angular_z'),
}
DEGREES = ('lekiwi',)  # begin of robot types whose theta.vel is in degrees a second
UNITS = {'deg/s': np.pi / 180}


class Axis(NamedTuple):
    """
    One axis of a command.

    :param name: of its value in an `action`.
    :param factor: by which the value becomes m/s or rad/s.
    """

    axis: str
    name: str
    factor: float = 1.0


def parse(text: str) -> list[Axis]:
    """
    Return the axes that ``linear_x=NAME,angular_z=NAME*FACTOR`` names; none for ''.

    :raises UserError: for anything else.
    """
    found = []
    for axis, column in axes_of(text).items():
        name, _, factor = (part.strip() for part in column.partition('*'))
        try:
            found.append(Axis(axis, name, float(factor or 1)))
        except ValueError:
            raise UserError('a factor is not a number', got=repr(factor)) from None
    if text and (not found or len({one.name for one in found}) < len(found)):
        raise UserError('actions cannot be mapped so', got=text, expected='AXIS=NAME*FACTOR,…')
    return found


def names_of(feature: dict[str, Any]) -> list[str]:
    """Return the names of the values of a feature; their numbers, where it has none."""
    names = feature.get('names')
    if isinstance(names, dict):  # such as {"motors": […]}, of older sets
        names = next(iter(names.values()), None)
    size = int(feature['shape'][0])
    if isinstance(names, list) and len(names) == size:
        return [str(name) for name in names]
    return [str(number) for number in range(size)]


def chosen(given: Sequence[Axis], feature: dict[str, Any], robot_type: str) -> list[Axis]:
    """
    Return the axes that an `action` has, as given or else by their names.

    :raises UserError: when it has none of them.
    """
    names = names_of(feature)
    units = (feature.get('info') or {}).get('units') or [''] * len(names)
    unit_of = dict(zip(names, units, strict=False))
    found = [
        Axis(KNOWN[name], name, UNITS.get(_unit(name, unit_of.get(name, ''), robot_type), 1.0))
        for name in names
        if name in KNOWN
    ]
    found = [*given] or found
    missing = [one.name for one in found if one.name not in names]
    if missing or not found:
        raise UserError(
            f'its actions have no {missing[0]!r}' if missing else 'its actions are no velocities',
            got=', '.join(names),
            expected=None if missing else f'some of {", ".join(KNOWN)}',
            remedy='say which is which: --actions linear_x=NAME,angular_z=NAME*FACTOR',
        )
    return found


def _unit(name: str, unit: str, robot_type: str) -> str:
    is_degrees = name == 'theta.vel' and robot_type.startswith(DEGREES)
    return unit or ('deg/s' if is_degrees else '')


def twists(axes: Sequence[Axis], names: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Return (T, 6) float64 commands of (T, n) actions."""
    found = np.zeros((len(values), len(TWIST_AXES)))
    for one in axes:
        column = values[:, names.index(one.name)].astype(np.float64)
        found[:, TWIST_AXES.index(one.axis)] = column * one.factor
    return found

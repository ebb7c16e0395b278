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
# Begin of robot types whose theta.vel is in degrees a second, or whose actions are from -1 to 1.
DEGREES, UNSCALED = ('lekiwi', 'xlerobot'), ('earthrover',)
UNITS = {'m/s': 1.0, 'rad/s': 1.0, 'deg/s': np.pi / 180}


class Axis(NamedTuple):
    """
    One axis of a command.

    :param name: of its value in an `action`.
    :param factor: by which the value becomes m/s or rad/s; None: as its unit or robot says.
    """

    axis: str
    name: str
    factor: float | None = None


def parse(text: str) -> list[Axis]:
    """
    Return the axes that ``linear_x=NAME,angular_z=NAME*FACTOR`` names; none for ''.

    :raises UserError: for anything else.
    """
    found = []
    for axis, column in axes_of(text).items():
        name, _, factor = (part.strip() for part in column.partition('*'))
        try:
            found.append(Axis(axis, name, float(factor) if factor else None))
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
    Return the axes that an `action` has, as given or else by their names, all with a factor.

    :raises UserError: when it has none of them, or nobody knows their unit.
    """
    names = names_of(feature)
    units = (feature.get('info') or {}).get('units') or [''] * len(names)
    unit_of = dict(zip(names, map(str, units), strict=False))
    found = [*given] or [Axis(KNOWN[name], name) for name in names if name in KNOWN]
    missing = [one.name for one in found if one.name not in names]
    if missing or not found:
        raise UserError(
            f'its actions have no {missing[0]!r}' if missing else 'its actions are no velocities',
            got=', '.join(names),
            expected=None if missing else f'some of {", ".join(KNOWN)}',
            remedy='say which is which: --actions linear_x=NAME,angular_z=NAME*FACTOR',
        )
    return [
        one._replace(factor=_factor(one.name, unit_of.get(one.name, ''), robot_type))
        if one.factor is None
        else one
        for one in found
    ]


def _factor(name: str, unit: str, robot_type: str) -> float:
    """Return the factor of a value by its unit, else by its robot; raise UserError for neither."""
    if not unit and name == 'theta.vel' and robot_type.startswith(DEGREES):
        return UNITS['deg/s']
    is_unknown = robot_type.startswith(UNSCALED) or name == 'theta.vel'
    if unit in UNITS or not (unit or is_unknown):
        return UNITS.get(unit, 1.0)
    raise UserError(
        f'the unit of its action {name} is unknown',
        got=unit or ('-1 to 1' if robot_type.startswith(UNSCALED) else f'robot {robot_type!r}'),
        expected=', '.join(UNITS),
        remedy=f'give --actions AXIS={name}*FACTOR, which makes it m/s or rad/s',
    )


def twists(axes: Sequence[Axis], names: Sequence[str], values: np.ndarray) -> np.ndarray:
    """Return (T, 6) float64 commands of (T, n) actions, of axes that were ``chosen``."""
    found = np.zeros((len(values), len(TWIST_AXES)))
    for one in axes:
        column = values[:, names.index(one.name)].astype(np.float64)
        found[:, TWIST_AXES.index(one.axis)] = column * (1.0 if one.factor is None else one.factor)
    return found

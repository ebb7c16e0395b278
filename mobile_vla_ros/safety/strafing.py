"""The check that linear_y reaches the wheels."""

from collections.abc import Iterable, Mapping, Sequence

from mobile_vla_ros.safety.preflight import Endpoint, combine
from mobile_vla_ros.types import Check

# Parts of the names of nodes that drive a base which cannot strafe.
CANNOT_STRAFE = ('diff_drive', 'diffbot', 'ackermann', 'bicycle', 'tricycle', 'turtlebot3')
SMOOTHER = 'velocity_smoother'
# Parameters of nav2's smoother whose y must not be zero, and its sign; otherwise the smoother
# zeroes y without a warning (ros-navigation/navigation2#6292).
SMOOTHER_SIGNS = {'max_velocity': 1, 'min_velocity': -1, 'max_accel': 1, 'max_decel': -1}


def find_smoothers(path: Iterable[Endpoint]) -> list[str]:
    """Return the full names of nav2's smoothers, whose parameters decide about y."""
    return sorted({one.full_name for one in path if SMOOTHER in one.node})


def check_linear_y(
    path: Iterable[Endpoint],
    used: bool,
    parameters: Mapping[str, Mapping[str, Sequence[float]] | None],
) -> Check:
    """
    Check that no node on the path to the wheels is known to drop linear_y.

    :param path: subscribers of the commands, direct or through other nodes.
    :param used: whether commands can have a linear_y at all.
    :param parameters: the ``SMOOTHER_SIGNS`` parameters of each smoother; None where it did not
        answer.
    """
    if not used:
        return Check('linear_y', True, 'no command has a linear_y')
    path = list(path)
    problems = [
        (
            f'{one} drives a base that cannot strafe',
            'set max_velocity y to 0.0 and drive a policy with angular_z',
        )
        for one in sorted(
            {one.full_name for one in path if any(word in one.node for word in CANNOT_STRAFE)}
        )
    ]
    for name in find_smoothers(path):
        values = parameters.get(name)
        if values is None:
            problems.append(
                (
                    f'{name} may drop linear_y and does not report its parameters',
                    f'make sure that y of {", ".join(SMOOTHER_SIGNS)} is not 0.0 there',
                )
            )
            continue
        zero = [
            key
            for key, sign in SMOOTHER_SIGNS.items()
            if len(values.get(key) or ()) < 2 or not values[key][1] * sign > 0
        ]
        if zero:
            problems.append(
                (
                    f'{name} makes linear_y zero',
                    f'set y of {", ".join(zero)} there to other than 0.0 (navigation2 #6292)',
                )
            )
    return combine(
        'linear_y', problems, 'no node on the path to the wheels is known to drop linear_y'
    )


def drives_linear_y(axes: Sequence[str] | None) -> bool:
    """Return whether a policy of these axes drives linear_y; True where they are unknown."""
    return axes is None or 'linear_y' in axes

"""Whether linear_y comes through to the wheels."""

from collections.abc import Iterable, Mapping, Sequence

from mobile_vla_ros.safety.preflight import Endpoint, verdict
from mobile_vla_ros.types import Check

# Part of the name of a node that drives a base which cannot strafe.
CANNOT_STRAFE = ('diff_drive', 'diffbot', 'ackermann', 'bicycle', 'tricycle', 'turtlebot3')
SMOOTHER = 'velocity_smoother'
# Parameters of nav2's smoother that must each leave room on y, and the sign of that room
# (ros-navigation/navigation2#6292: without it, y becomes zero and nothing is said).
SMOOTHER_SIGNS = {'max_velocity': 1, 'min_velocity': -1, 'max_accel': 1, 'max_decel': -1}


def smoothers(found: Iterable[Endpoint]) -> list[str]:
    """Return the full names of nav2's smoothers, whose parameters say whether y goes through."""
    return sorted({one.full_name for one in found if SMOOTHER in one.node})


def linear_y(
    on_the_way: Iterable[Endpoint],
    wanted: bool,
    answers: Mapping[str, Mapping[str, Sequence[float]] | None],
) -> Check:
    """
    Check that nobody on the way to the wheels is known to drop linear_y.

    :param on_the_way: who hears commands, directly or through another.
    :param wanted: whether commands can have a linear_y at all.
    :param answers: what each smoother says of its parameters ``SMOOTHER_SIGNS``; None where it
        said nothing.
    """
    if not wanted:
        return Check('linear_y', True, 'no command has a linear_y')
    on_the_way = list(on_the_way)
    problems = [
        (
            f'{one} drives a base that cannot strafe',
            'set max_velocity y to 0.0 and drive a policy with angular_z',
        )
        for one in sorted(
            {
                one.full_name
                for one in on_the_way
                if any(word in one.node for word in CANNOT_STRAFE)
            }
        )
    ]
    for name in smoothers(on_the_way):
        values = answers.get(name)
        if values is None:
            problems.append(
                (
                    f'{name} may drop linear_y and does not tell its parameters',
                    f'see that y of {", ".join(SMOOTHER_SIGNS)} is not 0.0 there',
                )
            )
            continue
        shut = [
            key
            for key, sign in SMOOTHER_SIGNS.items()
            if len(values.get(key) or ()) < 2 or not values[key][1] * sign > 0
        ]
        if shut:
            problems.append(
                (
                    f'{name} makes linear_y zero',
                    f'give {", ".join(shut)} there a y other than 0.0 (navigation2 #6292)',
                )
            )
    return verdict(
        'linear_y', problems, 'nobody on the way to the wheels is known to drop linear_y'
    )


def with_linear_y(axes: Sequence[str] | None) -> bool:
    """Return whether a policy drives linear_y, by its axes; yes where it does not name them."""
    return axes is None or 'linear_y' in axes

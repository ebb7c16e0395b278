"""Speed and acceleration limits of a planar base, which keep the direction of motion."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.errors import UserError

X, Y, THETA = 0, 1, 5  # columns of a twist that a planar base drives


@dataclass(frozen=True)
class Limits:
    """
    What a base may be asked to do.

    An axis whose speed limit is zero is one the base does not have: it is left out before the
    direction of motion is looked at.

    :param max_velocity: speed limits of x and y in m/s and of theta in rad/s, none negative.
    :param max_planar_speed_mps: limit of the speed over ground, m/s.
    :param max_acceleration: limits of x and y in m/s² and of theta in rad/s², all positive.
    :param stop_distance_m: longest way that the base may still roll, reaction and braking
        together, before it stands; zero: none is asked for.
    :param base_deceleration_mps2: how hard the base itself brakes when it is told zero.
    :raises UserError: naming everything that does not fit.
    """

    max_velocity: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_planar_speed_mps: float = 1.0
    max_acceleration: tuple[float, float, float] = (2.0, 2.0, 4.0)
    stop_distance_m: float = 0.0
    base_deceleration_mps2: float = 1.0

    def __post_init__(self):
        for name in ('max_velocity', 'max_acceleration'):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        wrong = []
        for name, lowest in (('max_velocity', 'zero or more'), ('max_acceleration', 'positive')):
            values = getattr(self, name)
            fits = len(values) == 3 and all(
                np.isfinite(v) and (v > 0 or (v == 0 and lowest != 'positive')) for v in values
            )
            if not fits:
                wrong.append(
                    f'{name} is {list(values)}, and must be three numbers [x, y, theta], '
                    f'each {lowest}'
                )
        if not (np.isfinite(self.max_planar_speed_mps) and self.max_planar_speed_mps > 0):
            wrong.append(
                f'max_planar_speed_mps is {self.max_planar_speed_mps}, and must be positive'
            )
        if not (np.isfinite(self.stop_distance_m) and self.stop_distance_m >= 0):
            wrong.append(
                f'stop_distance_m is {self.stop_distance_m}, and must be zero (none '
                'asked) or more metres'
            )
        if not (np.isfinite(self.base_deceleration_mps2) and self.base_deceleration_mps2 > 0):
            wrong.append(
                f'base_deceleration_mps2 is {self.base_deceleration_mps2}, and must be positive'
            )
        if wrong:
            raise UserError('limits that cannot be kept: ' + '; '.join(wrong))

    @property
    def top_speed_mps(self) -> float:
        """Speed over ground that these limits allow in the best direction."""
        return min(self.max_planar_speed_mps, math.hypot(*self.max_velocity[:2]))

    def rolled_m(self, reaction_s: float) -> float:
        """Return how far a base rolls from its top speed until it stands, at the worst."""
        return stop_distance_m(self.top_speed_mps, reaction_s, self.base_deceleration_mps2)

    def to_stop_in(self, reaction_s: float) -> 'Limits':
        """
        Return these limits with the speed over ground from which ``stop_distance_m`` is enough.

        :param reaction_s: longest time until the base is told zero.
        """
        if self.stop_distance_m == 0:
            return self
        speed = speed_to_stop_in(self.stop_distance_m, reaction_s, self.base_deceleration_mps2)
        return replace(self, max_planar_speed_mps=min(speed, self.max_planar_speed_mps))


def stop_distance_m(speed_mps: float, reaction_s: float, deceleration_mps2: float) -> float:
    """Return the way rolled at even speed while nothing is noticed, and then braking evenly."""
    return reaction_s * speed_mps + speed_mps**2 / (2 * deceleration_mps2)


def speed_to_stop_in(distance_m: float, reaction_s: float, deceleration_mps2: float) -> float:
    """Return the speed whose ``stop_distance_m`` is that distance, m/s."""
    # The root of the quadratic in the form that loses no digits when reaction_s is large.
    lost = deceleration_mps2 * reaction_s
    return (
        2
        * deceleration_mps2
        * distance_m
        / (lost + math.sqrt(lost**2 + 2 * deceleration_mps2 * distance_m))
    )


def limit_speed(twist: np.ndarray, limits: Limits) -> np.ndarray:
    """
    Return the twist within the speed limits; x and y shrink together, so the heading stays.

    :param twist: (6,) finite, m/s and rad/s; the axes a planar base lacks become zero.
    """
    max_x, max_y, max_theta = limits.max_velocity
    x = twist[X] if max_x > 0 else 0.0
    y = twist[Y] if max_y > 0 else 0.0
    with np.errstate(over='ignore'):  # of a number too large to square nothing is left: zero
        excess = max(
            1.0,
            np.hypot(x, y) / limits.max_planar_speed_mps,
            abs(x) / max_x if max_x > 0 else 0.0,
            abs(y) / max_y if max_y > 0 else 0.0,
        )
    limited = np.zeros(6)
    limited[X], limited[Y] = x / excess, y / excess
    limited[THETA] = np.clip(twist[THETA], -max_theta, max_theta)
    return limited


def limit_acceleration(
    twist: np.ndarray, previous: np.ndarray, limits: Limits, elapsed_s: float
) -> np.ndarray:
    """
    Return the twist nearest to the wanted one on the way from the previous one.

    The planar velocity moves on the straight line between the two, so a base that starts or
    stops does not swerve, and a result between two twists within the speed limits is within them.

    :param twist: (6,) what is wanted, within the speed limits.
    :param previous: (6,) what was commanded last.
    :param elapsed_s: time since then.
    """
    change = twist - previous
    share = 1.0
    for axis, most in zip((X, Y), limits.max_acceleration[:2], strict=True):
        room = most * elapsed_s
        if abs(change[axis]) > room:
            share = min(share, room / abs(change[axis]))
    room = limits.max_acceleration[2] * elapsed_s
    reached = np.array(twist)
    if share < 1.0:
        reached[[X, Y]] = previous[[X, Y]] + share * change[[X, Y]]
    if abs(change[THETA]) > room:
        reached[THETA] = previous[THETA] + np.clip(change[THETA], -room, room)
    return reached

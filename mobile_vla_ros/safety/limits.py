"""Speed and acceleration limits of a planar base, which keep the direction of motion."""

import math
from dataclasses import dataclass, replace

import numpy as np

from mobile_vla_ros.errors import UserError

X, Y, THETA = 0, 1, 5  # columns of a twist that a planar base drives


@dataclass(frozen=True)
class Limits:
    """
    Speed and acceleration limits of a base.

    A speed limit of zero means that the base lacks the axis: it is dropped before the direction
    of motion is computed.

    :param max_velocity: limits of x and y in m/s and of theta in rad/s, none negative.
    :param max_planar_speed_mps: limit of the planar speed, m/s.
    :param max_acceleration: limits of x and y in m/s² and of theta in rad/s², all positive.
    :param stop_distance_m: maximum stopping distance, reaction and braking together; zero: no
        limit.
    :param base_deceleration_mps2: deceleration of the base itself on a zero command.
    :raises UserError: naming every value that does not fit.
    """

    max_velocity: tuple[float, float, float] = (1.0, 1.0, 1.0)
    max_planar_speed_mps: float = 1.0
    max_acceleration: tuple[float, float, float] = (2.0, 2.0, 4.0)
    stop_distance_m: float = 0.0
    base_deceleration_mps2: float = 1.0

    def __post_init__(self) -> None:
        for name in ('max_velocity', 'max_acceleration'):
            object.__setattr__(self, name, tuple(float(v) for v in getattr(self, name)))
        problems = []
        for name, lowest in (('max_velocity', 'zero or more'), ('max_acceleration', 'positive')):
            values = getattr(self, name)
            fits = len(values) == 3 and all(
                np.isfinite(v) and (v > 0 or (v == 0 and lowest != 'positive')) for v in values
            )
            if not fits:
                problems.append(
                    f'{name} is {list(values)}, and must be three numbers [x, y, theta], '
                    f'each {lowest}'
                )
        if not (np.isfinite(self.max_planar_speed_mps) and self.max_planar_speed_mps > 0):
            problems.append(
                f'max_planar_speed_mps is {self.max_planar_speed_mps}, and must be positive'
            )
        if not (np.isfinite(self.stop_distance_m) and self.stop_distance_m >= 0):
            problems.append(
                f'stop_distance_m is {self.stop_distance_m}, and must be zero (no limit) '
                'or more metres'
            )
        if not (np.isfinite(self.base_deceleration_mps2) and self.base_deceleration_mps2 > 0):
            problems.append(
                f'base_deceleration_mps2 is {self.base_deceleration_mps2}, and must be positive'
            )
        if problems:
            raise UserError('invalid limits: ' + '; '.join(problems))

    @property
    def top_speed_mps(self) -> float:
        """Maximum planar speed, reached in the fastest direction."""
        return min(self.max_planar_speed_mps, math.hypot(*self.max_velocity[:2]))

    def max_stop_distance_m(self, reaction_s: float) -> float:
        """Return the worst-case stopping distance, from the top speed."""
        return stop_distance_m(self.top_speed_mps, reaction_s, self.base_deceleration_mps2)

    def within_stop_distance(self, reaction_s: float) -> 'Limits':
        """
        Return these limits with the planar speed reduced to what ``stop_distance_m`` allows.

        :param reaction_s: longest time until zero is commanded.
        """
        if self.stop_distance_m == 0:
            return self
        speed = max_speed_mps(self.stop_distance_m, reaction_s, self.base_deceleration_mps2)
        return replace(self, max_planar_speed_mps=min(speed, self.max_planar_speed_mps))


def stop_distance_m(speed_mps: float, reaction_s: float, deceleration_mps2: float) -> float:
    """Return the distance covered at constant speed during the reaction, then while braking."""
    return reaction_s * speed_mps + speed_mps**2 / (2 * deceleration_mps2)


def max_speed_mps(distance_m: float, reaction_s: float, deceleration_mps2: float) -> float:
    """Return the speed whose ``stop_distance_m`` is that distance, m/s."""
    # The root of the quadratic in the form without cancellation for a large reaction_s.
    lost = deceleration_mps2 * reaction_s
    return (
        2
        * deceleration_mps2
        * distance_m
        / (lost + math.sqrt(lost**2 + 2 * deceleration_mps2 * distance_m))
    )


def limit_speed(twist: np.ndarray, limits: Limits) -> np.ndarray:
    """
    Return the twist within the speed limits; x and y scale together, which keeps the heading.

    :param twist: (6,) finite, m/s and rad/s; axes that a planar base lacks become zero.
    """
    max_x, max_y, max_theta = limits.max_velocity
    x = twist[X] if max_x > 0 else 0.0
    y = twist[Y] if max_y > 0 else 0.0
    with np.errstate(over='ignore'):  # a value too large to square becomes zero
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
    Return the twist closest to the requested one that the acceleration limits allow.

    The planar velocity stays on the straight line between the two twists, so that a base does not
    swerve as it starts or stops, and the result is within the speed limits if both twists are.

    :param twist: (6,) requested, within the speed limits.
    :param previous: (6,) commanded last.
    :param elapsed_s: time since then.
    """
    change = twist - previous
    share = 1.0
    for axis, limit in zip((X, Y), limits.max_acceleration[:2], strict=True):
        max_change = limit * elapsed_s
        if abs(change[axis]) > max_change:
            share = min(share, max_change / abs(change[axis]))
    max_change = limits.max_acceleration[2] * elapsed_s
    reached = np.array(twist)
    if share < 1.0:
        reached[[X, Y]] = previous[[X, Y]] + share * change[[X, Y]]
    if abs(change[THETA]) > max_change:
        reached[THETA] = previous[THETA] + np.clip(change[THETA], -max_change, max_change)
    return reached

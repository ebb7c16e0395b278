"""Types shared by all parts: frames, commands, checks, and a policy's axes and image format."""

from dataclasses import dataclass, field
from enum import Enum

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean

# Columns of a twist, in the order of geometry_msgs/Twist and REP 103.
TWIST_AXES = ('linear_x', 'linear_y', 'linear_z', 'angular_x', 'angular_y', 'angular_z')
PLANAR_AXES = ('linear_x', 'linear_y', 'angular_z')  # over a floor
AXIS_UNITS = {axis: 'm/s' if axis.startswith('linear') else 'rad/s' for axis in TWIST_AXES}

NANOSECONDS = 1_000_000_000

# Sources of a command, as stored with each command of an episode.
SOURCES = {'unknown': 0, 'teleop': 1, 'policy': 2, 'takeover': 3}
SOURCE_NAMES = {number: name for name, number in SOURCES.items()}

# Kosmos-2 reads 2048 tokens, a character is up to four, and the cost is quadratic in them.
MAX_INSTRUCTION_CHARS = 500

# The input that a control policy does not get; empty: it gets both.
BLANKS = ('', 'image', 'instruction')

# Verdicts on an episode, and those that training accepts by default.
VERDICTS = ('good', 'poor', 'bad')
ACCEPTED_VERDICTS = ('good', 'poor')


class StrEnum(str, Enum):
    """Values that are texts, as `enum.StrEnum`, which Python 3.10 lacks."""

    __str__ = str.__str__


@dataclass(frozen=True)
class Check:
    """
    One check before a drive; a line of the preflight.

    :param name: its name in the parameter ``override``.
    :param sentence: the finding.
    :param remedy: what to do when it is not ``ok``; empty where the sentence includes it.
    """

    name: str
    ok: bool
    sentence: str
    remedy: str = ''

    @property
    def line(self) -> str:
        """``green NAME: sentence`` or ``red NAME: sentence; remedy``."""
        tail = f'; {self.remedy}' if self.remedy and not self.ok else ''
        return f'{"green" if self.ok else "red"} {self.name}: {self.sentence}{tail}'


@dataclass(frozen=True)
class Frame:
    """
    One camera image with its two times.

    :param image: (height, width, 3) uint8, RGB.
    :param stamp_ns: time of exposure from the message header, nanoseconds.
    :param received_ns: time of receipt on the receiving node's clock, nanoseconds.
    """

    image: np.ndarray
    stamp_ns: int
    received_ns: int


@dataclass(frozen=True)
class Command:
    """
    One velocity command.

    :param twist: (6,) float64: vx vy vz in m/s, wx wy wz in rad/s.
    :param stamp_ns: header stamp, or time of receipt where the message has no header.
    :param received_ns: time of receipt on the receiving node's clock, nanoseconds.
    :param source: a key of ``SOURCES``.
    :param steady_ns: time of receipt on a clock of the receiver that never steps, and goes on
        while the machine is suspended, nanoseconds; None: ``received_ns``, if there is no better.
    """

    twist: np.ndarray
    stamp_ns: int
    received_ns: int
    source: str = 'unknown'
    steady_ns: int | None = None


@dataclass(frozen=True)
class ActionSpec:
    """
    The axes that a policy drives, and their scale.

    ``normalised = physical / scale``, with the same scale in training and driving; inputs are not
    clamped.

    :param axes: names from ``TWIST_AXES``, in the order of the policy's output.
    :param scale: one positive number per axis, in its unit: the speed that becomes 1.0.
    :raises UserError: for unknown or repeated axes, or scales that do not fit.
    """

    axes: tuple[str, ...] = ('linear_x', 'linear_y')
    scale: tuple[float, ...] = field(default=(1.0, 1.0))

    def __post_init__(self) -> None:
        object.__setattr__(self, 'axes', tuple(self.axes))
        object.__setattr__(self, 'scale', tuple(float(s) for s in self.scale))
        for axis in self.axes:
            if axis not in TWIST_AXES:
                raise UserError(
                    'unknown axis',
                    got=repr(axis),
                    expected=', '.join(TWIST_AXES),
                    remedy=did_you_mean(axis, TWIST_AXES),
                )
        if not self.axes or len(set(self.axes)) != len(self.axes):
            raise UserError('a policy needs axes, each given once', got=self.axes)
        if len(self.scale) != len(self.axes):
            raise UserError(
                'every axis needs one scale',
                got=f'{len(self.scale)} scales',
                expected=f'{len(self.axes)}, for {", ".join(self.axes)}',
            )
        if not all(np.isfinite(s) and s > 0 for s in self.scale):
            raise UserError('a scale must be a positive number', got=self.scale)

    @property
    def columns(self) -> list[int]:
        """Columns of these axes in a (…, 6) twist."""
        return [TWIST_AXES.index(axis) for axis in self.axes]

    @property
    def units(self) -> tuple[str, ...]:
        """Physical unit of each axis."""
        return tuple(AXIS_UNITS[axis] for axis in self.axes)

    def normalise(self, twist: np.ndarray) -> np.ndarray:
        """Return the (…, axes) float32 action of a (…, 6) twist."""
        twist = np.asarray(twist, dtype=np.float64)
        return (twist[..., self.columns] / np.asarray(self.scale)).astype(np.float32)

    def denormalise(self, action: np.ndarray) -> np.ndarray:
        """Return the (…, 6) float64 twist of a (…, axes) action; other axes are zero."""
        action = np.asarray(action, dtype=np.float64)
        twist = np.zeros((*action.shape[:-1], len(TWIST_AXES)))
        twist[..., self.columns] = action * np.asarray(self.scale)
        return twist


@dataclass(frozen=True)
class ImageSpec:
    """
    Size and normalisation of the RGB images that a network reads.

    :param size: side of the square that images are resized to (bicubic), pixels.
    :param mean: per channel, subtracted from values in 0 to 1.
    :param std: per channel, the divisor after that.
    :raises UserError: for values that do not fit.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self) -> None:
        object.__setattr__(self, 'mean', tuple(float(v) for v in self.mean))
        object.__setattr__(self, 'std', tuple(float(v) for v in self.std))
        if self.size <= 0 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                'invalid image format',
                got=f'{self.size}, {self.mean}, {self.std}',
                expected='a positive size, three means and three positive stds',
            )

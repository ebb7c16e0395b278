"""What every part speaks of: frames, commands and the axes that a policy drives."""

from dataclasses import dataclass, field

import numpy as np

from mobile_vla_ros.errors import UserError, did_you_mean

# Names of the columns of a twist, in the order of geometry_msgs/Twist and REP 103.
TWIST_AXES = ('linear_x', 'linear_y', 'linear_z', 'angular_x', 'angular_y', 'angular_z')
AXIS_UNITS = {axis: 'm/s' if axis.startswith('linear') else 'rad/s' for axis in TWIST_AXES}

NANOSECONDS = 1_000_000_000

# Who a command came from, as it is stored beside each command of an episode.
SOURCES = {'unknown': 0, 'teleop': 1, 'policy': 2, 'takeover': 3}
SOURCE_NAMES = {number: name for name, number in SOURCES.items()}


# Kosmos-2 reads 2048 tokens, up to four for one character, and the cost grows with their square.
MAX_INSTRUCTION_CHARS = 500

# What a control may be kept from; empty: from nothing.
BLANKS = ('', 'image', 'instruction')

# What a take is worth, and what is learned from unless the user says otherwise.
VERDICTS = ('good', 'poor', 'bad')
ACCEPTED_VERDICTS = ('good', 'poor')


@dataclass(frozen=True)
class Check:
    """
    One thing that is looked at before a drive; a line of the preflight.

    :param name: by which it can be overridden.
    :param sentence: what was found.
    :param remedy: what to do when it is not ``ok``; empty where the sentence says so.
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
    One camera image with both of its times.

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
    :param stamp_ns: header stamp, or the time of receipt where the message has no header.
    :param received_ns: time of receipt on the receiving node's clock, nanoseconds.
    :param source: a key of ``SOURCES``.
    """

    twist: np.ndarray
    stamp_ns: int
    received_ns: int
    source: str = 'unknown'


@dataclass(frozen=True)
class ActionSpec:
    """
    The axes a policy drives and the scale that turns them into the numbers it learns.

    ``normalised = physical / scale``; the same scale is used in training and in driving, and no
    value is clamped on the way in.

    :param axes: names out of ``TWIST_AXES``, in the order of the policy's output.
    :param scale: one positive number an axis, in the axis' unit: the speed that becomes 1.0.
    """

    axes: tuple[str, ...] = ('linear_x', 'linear_y')
    scale: tuple[float, ...] = field(default=(1.0, 1.0))

    def __post_init__(self):
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
            raise UserError('the axes of a policy must be given once each', got=self.axes)
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
        """Columns of a (…, 6) twist that these axes stand for."""
        return [TWIST_AXES.index(axis) for axis in self.axes]

    @property
    def units(self) -> tuple[str, ...]:
        """Physical unit of each axis."""
        return tuple(AXIS_UNITS[axis] for axis in self.axes)

    def normalise(self, twist: np.ndarray) -> np.ndarray:
        """Return (…, axes) float32 of what the network learns from a (…, 6) twist."""
        twist = np.asarray(twist, dtype=np.float64)
        return (twist[..., self.columns] / np.asarray(self.scale)).astype(np.float32)

    def denormalise(self, action: np.ndarray) -> np.ndarray:
        """Return the (…, 6) float64 twist of a (…, axes) network output; other axes are zero."""
        action = np.asarray(action, dtype=np.float64)
        twist = np.zeros((*action.shape[:-1], len(TWIST_AXES)))
        twist[..., self.columns] = action * np.asarray(self.scale)
        return twist


@dataclass(frozen=True)
class ImageSpec:
    """
    What the network wants of an image, besides being RGB.

    :param size: side of the square that every image is resized to (bicubic), pixels.
    :param mean: per channel, of values in 0 to 1; subtracted first.
    :param std: per channel; divided by afterwards.
    """

    size: int
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __post_init__(self):
        object.__setattr__(self, 'mean', tuple(float(v) for v in self.mean))
        object.__setattr__(self, 'std', tuple(float(v) for v in self.std))
        if self.size <= 0 or len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0:
            raise UserError(
                'an image needs a positive size, three means and three positive stds',
                got=f'{self.size}, {self.mean}, {self.std}',
            )

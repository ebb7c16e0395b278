"""The input of an import: an episode in another layout, and how to read it."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.episode.timing.command_rule import known_rule
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.compressed import FORMATS
from mobile_vla_ros.images.messages import check_encoding

COLOURS = ('rgb', 'bgr')
AXES = {'linear_x': 0, 'linear_y': 1, 'angular_z': 5}  # of a planar base: columns of a twist


def axes_of(text: str) -> dict[str, str]:
    """
    Return the column of each axis in ``AXIS=COLUMN,…``; none of a text without ``=``.

    :raises UserError: for an axis that a planar base does not have, or two columns for one.
    """
    if '=' not in text:
        return {}
    pairs = [part.partition('=') for part in text.split(',')]
    names = [name.strip() for name, _, _ in pairs]
    if (
        not AXES.keys() >= set(names)
        or len(set(names)) < len(names)
        or not all(column.strip() for _, _, column in pairs)
    ):
        raise UserError(
            'actions cannot be mapped so', got=text, expected=f'AXIS=COLUMN,… of {", ".join(AXES)}'
        )
    return {name: column.strip() for name, (_, _, column) in zip(names, pairs, strict=True)}


def scales_of(text: str, needed: Iterable[str] = ()) -> dict[str, float]:
    """
    Return the scale of each axis in ``AXIS=NUMBER,…``.

    :param needed: axes that must be there, no other.
    :raises UserError: when it is empty or otherwise not so.
    """
    scales = {name: plain_float(one) for name, one in axes_of(text).items()}
    if (
        not scales
        or not all(map(math.isfinite, scales.values()))
        or (needed and {*needed} != scales.keys())
    ):
        raise UserError(
            'its commands have no unit',
            got=f'--scale {text}' if text else None,
            expected='m/s and rad/s at full deflection',
            remedy='give --scale linear_x=1.0,angular_z=2.0 with those of your robot',
        )
    return scales


def plain_float(text: str) -> float:
    """Return a number, NaN for a text that is none."""
    try:
        return float(text)
    except ValueError:
        return math.nan


@dataclass(frozen=True)
class ImportOptions:
    """
    Settings for reading files in other layouts.

    :param instruction: the robot's instruction, for files that do not contain it.
    :param rate_hz: rows a second of a layout without times; greater than zero.
    :param image_format: encoding of raw pixels: ``jpeg``, or ``png`` (lossless).
    :param jpeg_quality: 1 to 100.
    :param image_topic: topic of the images in a bag; '': the only one.
    :param command_topic: likewise for the commands.
    :param base_command_timeout_s: the base stops this long after a command; 0: it holds the last
        one; None: unknown.
    :param encoding: of raw images in a bag whose own does not name colours (8UC3); '': none.
    :param extra_topics: other topics of a bag to keep as they are.
    :param images: path of the images in a file of rows; '': that of a known layout.
    :param actions: of the commands: ``PATH`` of three columns, or ``AXIS=COLUMN,…`` (``axes_of``).
    :param colour: order of the values of a pixel in a file of rows: ``rgb`` or ``bgr``; '': that
        of the layout.
    :param scale: ``AXIS=SPEED,…``: m/s and rad/s at full deflection of a joystick, or of throttle
        and steering (``scales_of``).
    :param wheelbase_m: between the axles of a base that steers, greater than zero; None: unknown.
    :param label: the instruction of one episode, whatever the file says; '': none.
    :param outcome: likewise.
    :raises UserError: for a value out of range.
    """

    instruction: str = ''
    rate_hz: float | None = None
    image_format: str = 'jpeg'
    jpeg_quality: int = 90
    image_topic: str = ''
    command_topic: str = ''
    base_command_timeout_s: float | None = None
    encoding: str = ''
    extra_topics: Sequence[str] = ()
    images: str = ''
    actions: str = ''
    colour: str = ''
    scale: str = ''
    wheelbase_m: float | None = None
    label: str = ''
    outcome: str = ''

    def __post_init__(self) -> None:
        known_rule(self.base_command_timeout_s)
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise UserError(
                'a rate must be greater than zero and at most 1000 Hz',
                got=self.rate_hz,
                remedy='give --rate the rows a second',
            )
        if self.wheelbase_m is not None and not 0 < self.wheelbase_m < 100:
            raise UserError('a wheelbase must be greater than zero', got=self.wheelbase_m)
        if self.image_format not in FORMATS:
            raise UserError(
                'unknown image format', got=repr(self.image_format), expected=' or '.join(FORMATS)
            )
        check_encoding(self.encoding)
        if self.colour not in ('', *COLOURS):
            raise UserError('unknown colour', got=repr(self.colour), expected=' or '.join(COLOURS))
        axes_of(self.actions)
        scales_of(self.scale or 'linear_x=1')
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(
                'JPEG quality out of range', got=self.jpeg_quality, expected='1 to 100'
            )

    def or_given(self, instruction: str) -> str:
        """
        Return the label, else the file's own instruction, else the one given for all files.

        :raises UserError: when there is neither.
        """
        text = self.label.strip() or instruction.strip() or self.instruction.strip()
        if not text:
            raise UserError(
                'it contains no instruction',
                remedy='give --instruction "…" for such files, or --labels',
            )
        return text


@dataclass(frozen=True)
class ImportedInfo(EpisodeInfo):
    """
    Attributes of an imported episode.

    :param origin_attributes: attributes of the source as JSON, its begin if it is too long for an
        episode; '' if it has none.
    """

    origin_attributes: str = ''


@dataclass(frozen=True)
class Source:
    """
    One episode in another layout, open for reading.

    :param created_ns: Unix time of its start.
    :param copy: writes every frame, command and event; calls back after every frame.
    :param info: fields of ``ImportedInfo``, except ``origin``.
    :param rate_hz: expected rate of the frames; None if unknown.
    :param timed: False if the layout has no times, so that they are derived from the rate.
    :param outcome: of the episode, one of ``schema.OUTCOMES``.
    :param notes: sentences on what is not imported.
    """

    created_ns: int
    copy: Callable[[EpisodeWriter, Callable[[], None]], None]
    info: dict[str, str] = field(default_factory=dict)
    rate_hz: float | None = None
    timed: bool = True
    outcome: str = 'unknown'
    notes: tuple[str, ...] = ()

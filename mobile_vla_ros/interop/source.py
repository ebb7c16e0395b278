"""What an import reads: a take in another layout, and how it is to be read."""

from collections.abc import Callable
from dataclasses import dataclass, field

from mobile_vla_ros.episode.storage.schema import EpisodeInfo
from mobile_vla_ros.episode.storage.writer import EpisodeWriter
from mobile_vla_ros.errors import UserError
from mobile_vla_ros.images.messages import FORMATS


@dataclass(frozen=True)
class ImportOptions:
    """
    How files of other layouts are read.

    :param instruction: what the robot was told, for takes that do not say it themselves.
    :param rate_hz: rows a second of a layout that has no times; more than zero.
    :param image_format: how pixels are encoded: ``jpeg``, or ``png`` for no loss.
    :param jpeg_quality: of a JPEG, 1 to 100.
    :param image_topic: which topic of a bag has the images; '': the only one there is.
    :param command_topic: likewise of the commands.
    :raises UserError: for a value out of its range.
    """

    instruction: str = ''
    rate_hz: float | None = None
    image_format: str = 'jpeg'
    jpeg_quality: int = 90
    image_topic: str = ''
    command_topic: str = ''

    def __post_init__(self):
        if self.rate_hz is not None and not 0 < self.rate_hz <= 1000:
            raise UserError(
                'a rate must be more than zero, and 1000 Hz at the most',
                got=self.rate_hz,
                remedy='give --rate the rows a second',
            )
        if self.image_format not in FORMATS:
            raise UserError(
                'unknown image format', got=repr(self.image_format), expected=' or '.join(FORMATS)
            )
        if not 1 <= self.jpeg_quality <= 100:
            raise UserError(
                'the quality of a JPEG is out of range', got=self.jpeg_quality, expected='1 to 100'
            )

    def or_given(self, instruction: str) -> str:
        """
        Return the take's own instruction, or the one that was given for all.

        :raises UserError: when there is neither.
        """
        text = instruction.strip() or self.instruction.strip()
        if not text:
            raise UserError(
                'it does not say what the robot was told',
                remedy='give --instruction "…" for such files',
            )
        return text


@dataclass(frozen=True)
class ImportedInfo(EpisodeInfo):
    """
    What is known of an imported take.

    :param origin_attributes: JSON of what the source said of itself; '' when it said nothing.
    """

    origin_attributes: str = ''


@dataclass(frozen=True)
class Source:
    """
    One take in another layout, open for reading.

    :param created_ns: Unix time of its first moment.
    :param info: fields of ``ImportedInfo``, all but ``origin``.
    :param pour: writes every frame, command and event; calls back after every frame.
    :param rate_hz: what the frames' rate must be; None where nobody knows.
    :param timed: False where the layout has no times, and they are made up from the rate.
    """

    created_ns: int
    pour: Callable[[EpisodeWriter, Callable[[], None]], None]
    info: dict[str, str] = field(default_factory=dict)
    rate_hz: float | None = None
    timed: bool = True

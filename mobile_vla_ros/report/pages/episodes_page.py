"""The page of `mobile_vla episodes view`: a card an episode, and a player for the chosen one."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobile_vla_ros.report.pages import page

VERDICTS = ('bad', 'unfinished', 'poor', 'good')  # worst first: the order of the cards
SOURCES = ('unknown', 'teleop', 'policy', 'takeover')  # by their number in an episode


@dataclass(frozen=True)
class EpisodeView:
    """
    What the page shows of an episode; times are seconds since its first frame or command.

    :param verdict: a key of ``VERDICTS``.
    :param reasons: why, in words.
    :param measures: more that is known of it: name and value as they are to be read.
    :param span: the first and the last second that the plot shows.
    :param times: of each picture; ``index``: its row in the episode; ``pictures``: JPEG files,
        an empty one where a frame cannot be read.
    :param rows: commands [t, vx (m/s), vy (m/s), wz (rad/s), number of the source].
    :param proposals: likewise what a policy proposed, in an episode that has proposals.
    :param max_age_s: a command holds until the next one, or this long.
    :param gaps: [from, to] where frames are missing.
    :param events: [t, name, text].
    """

    name: str
    instruction: str
    outcome: str
    verdict: str
    reasons: Sequence[str]
    duration_s: float
    frames: int
    span: tuple[float, float] = (0.0, 0.0)
    times: Sequence[float] = ()
    index: Sequence[int] = ()
    pictures: Sequence[bytes] = ()
    rows: Sequence[Sequence[float]] = ()
    proposals: Sequence[Sequence[float]] = ()
    max_age_s: float = 0.5
    gaps: Sequence[Sequence[float]] = ()
    events: Sequence[Sequence] = ()
    measures: Mapping[str, str] = field(default_factory=dict)

    @property
    def rank(self) -> int:
        """Its place in the order of the cards."""
        return VERDICTS.index(self.verdict)

    @property
    def thumb(self) -> int | None:
        """The picture on its card; None where that cannot be read."""
        middle = len(self.pictures) // 2
        return middle if self.pictures and self.pictures[middle] else None

    @property
    def data(self) -> dict:
        """What `episodes.js` reads; it takes the picture on the card from there."""
        pictures = [base64.b64encode(picture).decode() for picture in self.pictures]
        if self.thumb is not None:
            pictures[self.thumb] = ''
        return {
            'span': self.span,
            'times': self.times,
            'index': self.index,
            'thumb': -1 if self.thumb is None else self.thumb,
            'frames': self.frames,
            'pictures': pictures,
            'rows': self.rows,
            'gaps': self.gaps,
            'events': self.events,
            'max_age_s': self.max_age_s,
            'scale': _scale([*self.rows, *self.proposals]),
            **({'proposals': self.proposals} if self.proposals else {}),
        }


def episodes_page(
    title: str, subtitle: str, episodes: Sequence[EpisodeView], notes: Sequence[str] = ()
) -> str:
    """
    Return the whole page; it needs nothing from outside.

    :param episodes: in the order of the cards before anybody sorts them.
    :param notes: sentences on top: what is not shown, and what could not be read.
    """
    counts = Counter(episode.verdict for episode in episodes)
    verdicts = [(verdict, counts[verdict]) for verdict in VERDICTS if counts[verdict]]
    instructions = Counter(episode.instruction for episode in episodes).most_common()
    return page.render(
        'episodes.html',
        title=title,
        subtitle=subtitle,
        episodes=episodes,
        notes=notes,
        numbers=_numbers(episodes, verdicts, len(instructions)),
        verdicts=verdicts,
        instructions=instructions,
        sources=SOURCES,
        proposed=any(episode.proposals for episode in episodes),
    )


def _numbers(
    episodes: Sequence[EpisodeView], verdicts: Sequence[tuple[str, int]], kinds: int
) -> list[tuple[str, str, str]]:
    seconds = sum(episode.duration_s for episode in episodes)
    moods = {'good': 'good', 'bad': 'bad', 'unfinished': 'bad'}
    return [
        (str(len(episodes)), 'episodes', ''),
        (f'{seconds / 60:.1f} min' if seconds >= 60 else f'{seconds:.1f} s', 'recorded', ''),
        (str(kinds), 'instruction' if kinds == 1 else 'instructions', ''),
        *((str(count), verdict, moods.get(verdict, '')) for verdict, count in verdicts),
    ]


def _scale(rows: Sequence[Sequence[float]]) -> list[float]:
    """Return what each lane reaches to: vx and vy alike, so that they can be compared."""
    linear = max([0.1, *(abs(row[column]) for row in rows for column in (1, 2))])
    return [linear, linear, max([0.1, *(abs(row[3]) for row in rows)])]

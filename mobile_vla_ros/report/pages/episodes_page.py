"""The page of `mobile_vla episodes view`: a card for each episode, and a player."""

import base64
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from mobile_vla_ros.report.pages import page

# Worst first: the order of the cards.
VERDICTS = ('bad', 'unfinished', 'poor', 'good', 'excluded')
SOURCES = ('unknown', 'teleop', 'policy', 'takeover')  # by their number in an episode


@dataclass(frozen=True)
class EpisodeView:
    """
    An episode on the page; times are seconds since the first frame of its recording.

    :param verdict: one of ``VERDICTS``.
    :param reasons: sentences for the verdict.
    :param measures: further facts: name and value as text.
    :param span: first and last second of the plot.
    :param times: of each image; ``index``: its row in the episode; ``images``: JPEG files, empty
        if unreadable.
    :param rows: commands [t, vx (m/s), vy (m/s), wz (rad/s), index in ``SOURCES``].
    :param proposals: the policy's proposals, likewise, if the episode has any.
    :param max_age_s: maximum time for which a command is in force; ``proposal_max_age_s``:
        likewise for a proposal.
    :param gaps: [from, to] where frames are missing.
    :param events: [t, name, text], also of edits.
    :param edits: the edits that stand in words, '' without any; ``log``: a line for each entry.
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
    images: Sequence[bytes] = ()
    rows: Sequence[Sequence[float]] = ()
    proposals: Sequence[Sequence[float]] = ()
    max_age_s: float = 0.5
    proposal_max_age_s: float = 0.5
    gaps: Sequence[Sequence[float]] = ()
    events: Sequence[Sequence] = ()
    measures: Mapping[str, str] = field(default_factory=dict)
    edits: str = ''
    log: Sequence[str] = ()

    @property
    def rank(self) -> int:
        """The position in the order of the cards."""
        return VERDICTS.index(self.verdict)

    @property
    def thumb(self) -> int | None:
        """Index of the image on the card; None if unreadable."""
        middle = len(self.images) // 2
        return middle if self.images and self.images[middle] else None

    @property
    def data(self) -> dict:
        """The data for `episodes.js`, without the image that is on the card."""
        images = [base64.b64encode(image).decode() for image in self.images]
        if self.thumb is not None:
            images[self.thumb] = ''
        return {
            'span': self.span,
            'times': self.times,
            'index': self.index,
            'thumb': -1 if self.thumb is None else self.thumb,
            'frames': self.frames,
            'images': images,
            'rows': self.rows,
            'gaps': self.gaps,
            'events': self.events,
            'max_age_s': self.max_age_s,
            'proposal_max_age_s': self.proposal_max_age_s,
            'scale': _scale([*self.rows, *self.proposals]),
            **({'proposals': self.proposals} if self.proposals else {}),
        }


@dataclass(frozen=True)
class Served:
    """
    What the page of one episode has beside it while a server shows it.

    :param outcomes: those that its toolbar offers, whose edits go to the address of the page; ()
        without a toolbar.
    :param every: address of the list of episodes; ``newer``, ``older``: of the episodes before
        and after it; '' without one.
    """

    outcomes: Sequence[str] = ()
    every: str = ''
    newer: str = ''
    older: str = ''


def episodes_page(
    title: str,
    subtitle: str,
    episodes: Sequence[EpisodeView],
    notes: Sequence[str] = (),
    served: Served | None = None,
) -> str:
    """
    Return the page, which is self-contained.

    :param episodes: in the initial order of the cards.
    :param notes: sentences at the top: what is not shown or unreadable.
    :param served: None for a file.
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
        served=served,
        editable=bool(served and served.outcomes and episodes),
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
    """Return the range of each lane; vx and vy share one."""
    linear = max([0.1, *(abs(row[column]) for row in rows for column in (1, 2))])
    return [linear, linear, max([0.1, *(abs(row[3]) for row in rows)])]

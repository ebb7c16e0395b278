"""What the page of a training shows, as plain numbers and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class Drive:
    """
    One validation episode: what was driven, and what the policy says at each of its frames.

    :param seconds: (N,) of driving; nan, like the velocities there, where frames are missing.
    :param driven: (N, axes) in the axes' units; so is predicted.
    :param gaps: seconds at which frames are missing.
    """

    title: str
    about: str
    seconds: np.ndarray
    driven: np.ndarray
    predicted: np.ndarray
    gaps: Sequence[float] = ()


@dataclass(frozen=True)
class BadWindow:
    """
    A window that the policy gets wrong.

    :param driven: the mean velocity over the chunk in words; so is predicted.
    :param pictures: (height, width, 3) uint8 RGB and a caption each, oldest first.
    :param problem: why there are none.
    """

    title: str
    about: str
    driven: str
    predicted: str
    pictures: Sequence[tuple[np.ndarray, str]] = ()
    problem: str = ''


@dataclass(frozen=True)
class Coverage:
    """
    The episodes of both sides.

    :param rows: an instruction each: it, and for training and for validation episodes, minutes and
        idle share, as they are to be read.
    :param train: (N, axes) commands in the axes' units; so is val.
    :param left_out: episodes that were not used and why.
    :param alike: groups of episodes of nearly the same commands; leaks: those on both sides.
    :param broken: sentences that name frames which cannot be read.
    """

    rows: Sequence[Sequence[str]]
    train: np.ndarray
    val: np.ndarray
    left_out: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[Sequence[str]] = ()
    leaks: Sequence[Sequence[str]] = ()
    broken: Sequence[str] = ()


@dataclass(frozen=True)
class TrainingView:
    """
    All that the page shows.

    :param lead: what was trained, and how good it is: a paragraph each.
    :param verdict: more sentences, the most important first.
    :param mood: `good` or `bad` news, or '' for neither.
    :param cards: as `page.cards` takes them.
    :param axes: name and unit of each axis.
    :param metrics: name to an entry of `mobile_vla evaluate --json`; the first is the policy.
    :param blind: names in `metrics` of the predictors that see no image.
    :param meaning: what a name in `metrics` means, in a sentence.
    :param change: what was changed to the mean change of the action of each axis.
    :param history: rows of `history.json`; chosen: the epoch of this policy.
    :param driven: (N, axes) in the axes' units; so is predicted.
    :param chunk_errors: kind of error to predictor to (chunk, axes) in the axes' units.
    :param facts: of each group, name and value.
    """

    title: str
    subtitle: str
    lead: Sequence[str]
    verdict: Sequence[str]
    mood: str
    cards: Sequence[tuple[str, str, str]]
    axes: Sequence[tuple[str, str]]
    rate_hz: float
    metrics: Mapping[str, Mapping]
    blind: Sequence[str]
    meaning: Mapping[str, str]
    change: Mapping[str, Mapping[str, float]]
    history: Sequence[Mapping]
    chosen: int | None
    driven: np.ndarray
    predicted: np.ndarray
    chunk_errors: Mapping[str, Mapping[str, np.ndarray]]
    drives: Sequence[Drive]
    worst: Sequence[BadWindow]
    coverage: Coverage
    facts: Mapping[str, Mapping[str, str]]

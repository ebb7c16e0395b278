"""The content of the page of a training, as plain numbers and words."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np


@dataclass(frozen=True)
class PredictedEpisode:
    """
    One validation episode: driven and predicted velocity at each frame.

    :param seconds: (N,) times; NaN, like the velocities there, where frames are missing.
    :param driven, predicted: (N, axes) in the axes' units.
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
    A window with a large error.

    :param driven, predicted: the mean velocity over the chunk, in words.
    :param images: (height, width, 3) uint8 RGB and a caption each, oldest first.
    :param error: why there are none.
    """

    title: str
    about: str
    driven: str
    predicted: str
    images: Sequence[tuple[np.ndarray, str]] = ()
    error: str = ''


@dataclass(frozen=True)
class Coverage:
    """
    The episodes of both sides.

    :param rows: for each instruction: its text, then for training and for validation episodes,
        minutes and idle share, as text.
    :param train, val: (N, axes) commands in the axes' units.
    :param left_out: unused episodes and the reasons.
    :param alike: groups of near-identical episodes; leaks: those on both sides.
    :param broken: errors that name unreadable frames.
    :param audit: rows of what is learned from (`evaluation.audit`); verdict: its sentence.
    """

    rows: Sequence[Sequence[str]]
    train: np.ndarray
    val: np.ndarray
    left_out: Mapping[str, str] = field(default_factory=dict)
    alike: Sequence[Sequence[str]] = ()
    leaks: Sequence[Sequence[str]] = ()
    broken: Sequence[str] = ()
    audit: Sequence[tuple[str, str]] = ()
    verdict: str = ''


@dataclass(frozen=True)
class TrainingView:
    """
    The content of the page.

    :param lead: paragraphs: what was trained, and how good it is.
    :param verdict: more sentences, the most important first.
    :param mood: `good`, `bad`, or '' if uncertain.
    :param cards: (number, description, mood) of each key figure.
    :param axes: name and unit of each axis.
    :param metrics: name → entry of `mobile_vla evaluate --json`; the policy comes first.
    :param blind: names in `metrics` of the predictors that see no image.
    :param meaning: name in `metrics` → description.
    :param change: control → mean change of the action of each axis.
    :param history: rows of `history.json`; chosen: the epoch of this policy.
    :param driven, predicted: (N, axes) in the axes' units.
    :param chunk_errors: kind of error → predictor → (chunk, axes) in the axes' units.
    :param facts: group → name → value.
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
    drives: Sequence[PredictedEpisode]
    worst: Sequence[BadWindow]
    coverage: Coverage
    facts: Mapping[str, Mapping[str, str]]
